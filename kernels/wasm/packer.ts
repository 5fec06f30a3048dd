/**
 * Weight packer: reads a file in pieces, which all threads pack into panels.
 *
 * Rows of the file are read into scratch in the same memory; the format's code packs them from
 * there. The scratch is double-buffered: while this thread reads a piece, the workers pack the
 * other one. Most of their time goes into page faults of the weight's new pages.
 *
 *     this thread   read 0 │ read 1 │ read 2 │ …
 *     workers              │ pack 0 │ pack 1 │ …      piece i is in scratch half i % 2
 *
 * @module
 */
import { FORMATS, storedBytes, wasmOf, type WeightDtype } from "../formats/mod.ts";
import { PANEL_COLUMNS, rowsAtATime, scratchRows } from "../formats/panels.ts";
import type { EncodedFrom, PanelPacker, WasmFormat } from "../formats/format.ts";
import type { FillRows, StoredOrder } from "../tensor.ts";
import { call, i32, ints, ModuleBuilder } from "../asm/assembler.ts";
import { defineKernel, type Kernel } from "../asm/kernel.ts";
import type { Run } from "./control.ts";
import { type Block, type LinearMemory, PACKING_ADDRESS } from "./memory.ts";
import type { Pool } from "./pool.ts";
import { defineRun } from "./program.ts";

/** Floats that are quantised while they are packed. */
const ENCODED: readonly EncodedFrom[] = ["F32", "BF16"];

/** Packing functions; the word `kind` is an index into this list. */
const KINDS: readonly Kind[] = Object.entries(FORMATS).flatMap(([dtype, { wasm }]) => {
  if (!wasm) return [];
  const kinds: Kind[] = ordersOf(wasm).map((stored) => ({ dtype, stored, wasm }));
  if (!wasm.encode) return kinds;
  return [...kinds, ...ENCODED.map((from) => ({ dtype, stored: "NK" as const, wasm, from }))];
});

/** Packing of a dtype; of rows of floats, if they are quantised first. */
interface Kind {
  readonly dtype: string;
  readonly stored: StoredOrder;
  readonly wasm: WasmFormat;
  readonly from?: EncodedFrom;
}

/** Orders of rows that a format is packed from; blocks have inputs of one output. */
function ordersOf({ blocks }: WasmFormat): readonly StoredOrder[] {
  return blocks ? ["NK"] : ["NK", "KN"];
}

/**
 * Description of the current piece: I32 words from `PACKING_ADDRESS` on. Two masks of 64 bytes
 * follow: of whole panels, and of the last panel.
 */
const WORDS = {
  /** Addresses of the first part of the first panel, and of its numbers in the scratch. */
  to: 0,
  from: 1,
  /** Bytes from panel to panel, in the weight and in the scratch. */
  toStep: 2,
  fromStep: 3,
  /** Lines per part, and bytes per row of the scratch, as `PanelPacker` takes them. */
  count: 4,
  pitch: 5,
  /** Panels of the piece. */
  panels: 6,
  /** 1 if panels cannot represent a number of the piece. */
  overflow: 7,
  /** Bytes from part to part of a panel, in the weight and in the scratch. */
  toApart: 8,
  fromApart: 9,
  /** Index in `KINDS`. */
  kind: 10,
  /** Address of the blocks of 16 rows that are quantised, one range per thread, and its bytes. */
  blocks: 11,
  blockBytes: 12,
} as const;
const [MASKS, MASK_BYTES] = [64, 64];

/** A weight to pack, and its block. */
export interface Packing {
  readonly block: Block;
  readonly shape: readonly [N: number, K: number];
  readonly dtype: WeightDtype;
  readonly stored: StoredOrder;
  /** Dtype of the rows, if they are quantised while they are packed. */
  readonly from?: EncodedFrom;
}

/** Whether rows of a dtype can be quantised while they are packed. */
export function encodesHere(dtype: WeightDtype, from: WeightDtype): from is EncodedFrom {
  return KINDS.some((kind) => kind.dtype === dtype && kind.from === from);
}

/** Bytes of the blocks of 16 rows of a weight that is quantised. */
function encodedBytes({ shape: [, K], dtype, from }: Packing): number {
  return from ? PANEL_COLUMNS * storedBytes(dtype, K) : 0;
}

/** Wait for workers, in ms, that indicates a busy machine: a piece takes a third of 1 ms. */
const STALL_MS = 2;
/** Maximum number of pieces to pack on this thread alone before the workers are used again. */
const MOST_ALONE = 64;

/** Packs the weights of one memory, on all threads of its pool. */
export class Packer {
  private constructor(
    readonly linear: LinearMemory,
    readonly pool: Pool | null,
    readonly plan: number,
    readonly program: Run,
  ) {}

  /** Compiles the packing program and loads it on all threads. */
  static async open(linear: LinearMemory, pool: Pool | null): Promise<Packer> {
    const m = new ModuleBuilder(linear.shared, linear.pages);
    const entry = { kernel: definePacking(m), operands: [], items: { count: 1, perRow: true } };
    defineRun(m, [entry], { threads: pool?.threads ?? 1, callerSleeps: false });
    const module = await WebAssembly.compile(m.toBytes());
    const env = { memory: linear.wasm };
    const program = (await WebAssembly.instantiate(module, { env })).exports.run as Run;
    return new Packer(linear, pool, pool ? await pool.load(module) : 0, program);
  }

  /** Bytes of scratch in the memory that `pack` needs: two pieces; one if it is not shared. */
  scratchBytes(packing: Packing): number {
    return this.#pieces() * this.#pieceBytes(packing) + this.#threads() * encodedBytes(packing);
  }

  #pieces(): number {
    return this.linear.shared ? 2 : 1;
  }

  #threads(): number {
    return this.pool?.threads ?? 1;
  }

  #pieceBytes({ shape, dtype, stored, from }: Packing): number {
    const [N, K] = shape;
    const rowBytes = storedBytes(from ?? dtype, stored === "NK" ? K : N);
    return scratchRows(shape, rowBytes, stored) * rowBytes;
  }

  /**
   * Pieces left to pack on this thread alone, and the last such number (exponential backoff): the
   * system may have suspended a worker, and waiting for it wastes time.
   */
  #alone = 0;
  #lastAlone = 0;
  /** State of the weight being packed: whether panels can represent all its numbers so far. */
  #current: { fits: boolean } | null = null;

  /** Packs the rows that `fill` reads; false if panels cannot represent one of the numbers. */
  async pack(packing: Packing, scratch: Block, fill: FillRows): Promise<boolean> {
    const { linear } = this;
    if (linear.shared) return await this.#packPieces(packing, scratch, fill);
    // Memory that is not shared may grow while rows are read, which detaches views of it: the rows
    // are read into a host buffer and copied.
    const host = new Uint8Array(scratch.bytes);
    linear.track("staging", host.byteLength);
    try {
      return await this.#packPieces(packing, scratch, fill, host);
    } finally {
      linear.track("staging", -host.byteLength);
    }
  }

  async #packPieces(
    packing: Packing,
    scratch: Block,
    fill: FillRows,
    host?: Uint8Array,
  ): Promise<boolean> {
    const { shape: [N, K], dtype, stored, from } = packing;
    const [rows, width] = stored === "NK" ? [N, K] : [K, N];
    const rowBytes = storedBytes(from ?? dtype, width);
    const maxRows = rowsAtATime(packing.shape, rowBytes, stored);
    const pieces = host ? 1 : 2;
    const pieceBytes = this.#pieceBytes(packing);
    const state = { fits: true };
    // KN: a piece holds inputs of one part of the panels only, and pieces are of equal length.
    const { inputs } = wasmOf(dtype).layout(packing.shape);
    const chunk = stored === "NK" ? maxRows : Math.ceil(inputs / Math.ceil(inputs / maxRows));
    for (let row = 0, piece = 0; row < rows; piece = (piece + 1) % pieces) {
      const left = stored === "NK" ? rows - row : inputs - row % inputs;
      const count = Math.min(chunk, left);
      const view = () => this.linear.bytes(scratch, piece * pieceBytes, count * rowBytes);
      const into = host?.subarray(0, count * rowBytes) ?? view();
      await fill(row, count, into);
      if (host) view().set(into);
      this.#settle();
      this.#current = state;
      const at = scratch.address + piece * pieceBytes;
      this.#announce(packing, at, { row, count, blocks: scratch.address + pieces * pieceBytes });
      row += count;
    }
    this.#settle();
    return state.fits;
  }

  /**
   * Finishes the piece in progress. It may belong to another weight: several weights may be packed
   * concurrently.
   */
  #settle(): void {
    const start = performance.now();
    this.pool?.settle();
    if (performance.now() - start > STALL_MS) {
      this.#lastAlone = Math.min(Math.max(2 * this.#lastAlone, 4), MOST_ALONE);
      this.#alone = this.#lastAlone;
    }
    if (this.#words()[WORDS.overflow] && this.#current) this.#current.fits = false;
    this.#current = null;
  }

  #words(): Int32Array {
    return new Int32Array(this.linear.wasm.buffer, PACKING_ADDRESS, (MASKS + 2 * MASK_BYTES) / 4);
  }

  /** Starts packing rows first … first + count − 1, which are at address `from`. */
  #announce(
    packing: Packing,
    from: number,
    { row: first, count, blocks }: {
      readonly row: number;
      readonly count: number;
      readonly blocks: number;
    },
  ): void {
    const { block, shape: [N, K], dtype, stored } = packing;
    const nk = stored === "NK";
    const panels = Math.ceil((nk ? count : N) / PANEL_COLUMNS);
    const { parts, inputs, pitch, apart } = wasmOf(dtype).layout([N, K]);
    const rowBytes = storedBytes(packing.from ?? dtype, nk ? K : N);
    const part = Math.floor(first / inputs) * apart + first % inputs * (pitch / inputs);
    const words = this.#words();
    words[WORDS.to] = block.address + (nk ? first / PANEL_COLUMNS * pitch : part);
    words[WORDS.from] = from;
    words[WORDS.toStep] = pitch;
    words[WORDS.fromStep] = nk ? PANEL_COLUMNS * rowBytes : storedBytes(dtype, PANEL_COLUMNS);
    words[WORDS.toApart] = apart;
    words[WORDS.fromApart] = nk ? storedBytes(dtype, inputs) : 0;
    words[WORDS.count] = nk ? inputs : count;
    words[WORDS.pitch] = rowBytes;
    words[WORDS.panels] = panels;
    words[WORDS.overflow] = 0;
    words[WORDS.kind] = KINDS.findIndex((kind) =>
      kind.dtype === dtype && kind.stored === stored && kind.from === packing.from
    );
    words[WORDS.blocks] = blocks;
    words[WORDS.blockBytes] = encodedBytes(packing);
    const bytes = new Uint8Array(words.buffer, PACKING_ADDRESS + MASKS, 2 * MASK_BYTES);
    bytes.fill(255);
    if (nk) {
      const missing = panels * PANEL_COLUMNS - count;
      new Uint8Array(words.buffer, from + count * rowBytes, missing * rowBytes).fill(0);
    } else {
      bytes.fill(0, MASK_BYTES + storedBytes(dtype, N - (panels - 1) * PANEL_COLUMNS));
    }
    const items = nk ? panels * parts : panels;
    if (!this.pool) this.program(0, 0, items, 0, 0, 0);
    else if (this.#alone-- > 0) this.pool.shareAlone(this.program, items);
    else this.pool.share(this.plan, this.program, items);
  }
}

function pack(m: ModuleBuilder, { wasm, stored }: Kind): PanelPacker {
  return wasm.pack(m, stored);
}

/** Quantises 16 rows to blocks in the thread's range, and packs them from there. */
function encodeAndPack(m: ModuleBuilder, { wasm, stored }: Kind, from: EncodedFrom): PanelPacker {
  const [encode, packRows] = [wasm.encode!(m, from), wasm.pack(m, stored)];
  const params = ints("to", "from", "count", "pitch", "mask");
  return m.define(params, "i32", (f, { to, from, count, pitch, mask }) => {
    const { blocks, bytes, row, at } = f.locals(ints("blocks", "bytes", "row", "at"));
    bytes.set(i32.load(PACKING_ADDRESS + 4 * WORDS.blockBytes));
    blocks.set(i32.load(PACKING_ADDRESS + 4 * WORDS.blocks).plus(m.thread.get.times(bytes)));
    bytes.set(bytes.div(PANEL_COLUMNS));
    at.set(blocks);
    f.for(row, 0, PANEL_COLUMNS, 1, () => {
      f.do(call(encode, { to: at, from, count }));
      at.set(at.plus(bytes));
      from.set(from.plus(pitch));
    });
    return call(packRows, { to, from: blocks, count, pitch: bytes, mask });
  });
}

/** Kernel that packs a piece. An item is a part of a panel: part · panels + panel. */
function definePacking(m: ModuleBuilder): Kernel {
  const packers = KINDS.map((kind) =>
    kind.from ? encodeAndPack(m, kind, kind.from) : pack(m, kind)
  );
  return defineKernel(m, [], (f, { begin, end }) => {
    const { part, panel, to, from, mask } = f.locals(ints("part", "panel", "to", "from", "mask"));
    const word = (name: keyof typeof WORDS) => i32.load(PACKING_ADDRESS + 4 * WORDS[name]);
    const addressOf = (name: "to" | "from") => {
      const start = word(name).plus(part.times(word(`${name}Apart`)));
      return start.plus(panel.times(word(`${name}Step`)));
    };
    f.for(begin, begin, end, 1, () => {
      part.set(begin.div(word("panels")));
      panel.set(begin.rem(word("panels")));
      to.set(addressOf("to"));
      from.set(addressOf("from"));
      const isLast = panel.plus(1).eq(word("panels"));
      mask.set(i32.const(PACKING_ADDRESS + MASKS).plus(isLast.times(MASK_BYTES)));
      const args = { to, from, count: word("count"), pitch: word("pitch"), mask };
      for (const [i, packer] of packers.entries()) {
        f.if(word("kind").eq(i), () => {
          const overflow = call(packer, args);
          f.if(overflow, () => f.store(PACKING_ADDRESS + 4 * WORDS.overflow, i32.const(1)));
        });
      }
    });
  });
}
