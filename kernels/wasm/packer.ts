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
import { PANEL_COLUMNS, rowsAtATime } from "../formats/panels.ts";
import type { FillRows, StoredOrder } from "../tensor.ts";
import { call, type FunctionBuilder, i32, ints, loadInt, ModuleBuilder } from "../asm/assembler.ts";
import { defineKernel, type Kernel } from "../asm/kernel.ts";
import type { Run } from "./control.ts";
import { encodeAndPack, ENCODED, type EncodedFrom, encodeScratch } from "./encode_panels.ts";
import { type Block, type LinearMemory, PACKING_ADDRESS } from "./memory.ts";
import type { Pool } from "./pool.ts";
import { defineRun } from "./program.ts";

/** A way of packing: of a dtype's rows, or of rows of floats that are quantised first. */
interface Kind {
  readonly dtype: WeightDtype;
  readonly stored: StoredOrder;
  readonly from?: EncodedFrom;
}

/** A kind's code on all threads. */
interface Program {
  readonly plan: number;
  readonly run: Run;
}

/**
 * Description of the current piece: integers of 64 bits from `PACKING_ADDRESS` on; a module with
 * 32-bit addresses reads their lower halves. Two masks of 64 bytes follow: of whole panels, and of
 * the last panel.
 */
const FIELDS = {
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
  /** Address of the scratch of quantisation, one range per thread, and the bytes of a range. */
  ranges: 10,
  rangeBytes: 11,
} as const;
const [FIELD_BYTES, MASKS, MASK_BYTES] = [8, 128, 64];

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
  return FORMATS[dtype].wasm?.encode !== undefined && ENCODED.some((float) => float === from);
}

/** Bytes of a thread's scratch of a weight that is quantised. */
function rangeBytes(packing: Packing): number {
  if (!packing.from) return 0;
  return encodeScratch(packing, packing.stored === "NK" ? packing.shape[1] : chunkOf(packing));
}

/** Bytes of a row of the file. */
function rowBytesOf({ shape: [N, K], dtype, stored, from }: Packing): number {
  return storedBytes(from ?? dtype, stored === "NK" ? K : N);
}

/** Rows of a piece. Pieces are of about equal length; KN: within a part of the panels. */
function chunkOf(packing: Packing): number {
  const { shape, dtype, stored } = packing;
  const most = rowsAtATime(shape, rowBytesOf(packing), stored);
  const [rows, unit] = stored === "NK"
    ? [shape[0], PANEL_COLUMNS]
    : [wasmOf(dtype).layout(shape).inputs, FORMATS[dtype].block];
  const equal = Math.ceil(rows / Math.ceil(rows / most));
  return Math.ceil(equal / unit) * unit;
}

/** Wait for workers, in ms, that indicates a busy machine: a piece takes a third of 1 ms. */
const STALL_MS = 2;
/** Maximum number of pieces to pack on this thread alone before the workers are used again. */
const MOST_ALONE = 64;

/** Packs the weights of one memory, on all threads of its pool. */
export class Packer {
  /** Programs by kind: one of all kinds would take 80 ms to compile and load. */
  readonly #programs = new Map<string, Promise<Program>>();

  constructor(readonly linear: LinearMemory, readonly pool: Pool | null) {}

  /** Compiles a kind's program and loads it on all threads, once. */
  #programOf({ dtype, stored, from }: Kind): Promise<Program> {
    const key = [dtype, stored, from].join();
    const opened = this.#programs.get(key) ?? this.#open({ dtype, stored, from });
    this.#programs.set(key, opened);
    return opened;
  }

  async #open(kind: Kind): Promise<Program> {
    const { linear, pool } = this;
    const m = new ModuleBuilder(linear);
    const kernel = definePacking(m, kind);
    const entry = { kernel, operands: [], items: { count: 1, perRow: true } };
    defineRun(m, [entry], { threads: pool?.threads ?? 1, callerSleeps: false });
    // Beside workers at once: the code is small, and waiting for other threads takes up to 7 ms.
    // Alone, not: the GC frees the memory of a backend before this one while it waits.
    const module = pool
      ? new WebAssembly.Module(m.toBytes())
      : await WebAssembly.compile(m.toBytes());
    const env = { memory: linear.wasm };
    const run = new WebAssembly.Instance(module, { env }).exports.run as Run;
    return { plan: pool?.offer(module) ?? 0, run };
  }

  /** Bytes of scratch in the memory that `pack` needs: two pieces; one if it is not shared. */
  scratchBytes(packing: Packing): number {
    return this.#pieces() * this.#pieceBytes(packing) + this.#threads() * rangeBytes(packing);
  }

  #pieces(): number {
    return this.linear.shared ? 2 : 1;
  }

  #threads(): number {
    return this.pool?.threads ?? 1;
  }

  #pieceBytes(packing: Packing): number {
    const rows = chunkOf(packing);
    const padded = packing.stored === "NK" ? Math.ceil(rows / PANEL_COLUMNS) * PANEL_COLUMNS : rows;
    return padded * rowBytesOf(packing);
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
    const { shape: [N, K], dtype, stored } = packing;
    const rows = stored === "NK" ? N : K;
    const rowBytes = rowBytesOf(packing);
    const pieces = host ? 1 : 2;
    const pieceBytes = this.#pieceBytes(packing);
    const state = { fits: true };
    const { inputs } = wasmOf(dtype).layout(packing.shape);
    const chunk = chunkOf(packing);
    const program = await this.#programOf(packing);
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
      const items = this.#describe(packing, at, {
        row,
        count,
        ranges: scratch.address + pieces * pieceBytes,
      });
      this.#start(program, items);
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
    if (this.#fields()[FIELDS.overflow] && this.#current) this.#current.fits = false;
    this.#current = null;
  }

  #fields(): BigInt64Array {
    return new BigInt64Array(this.linear.wasm.buffer, PACKING_ADDRESS, MASKS / FIELD_BYTES);
  }

  /** Starts packing. */
  #start({ plan, run }: Program, items: number): void {
    if (!this.pool) run(0, 0, items, 0, 0, 0);
    else if (this.#alone-- > 0) this.pool.shareAlone(run, items);
    else this.pool.share(plan, run, items);
  }

  /** Describes rows first … first + count − 1, which are at address `from`; returns the items. */
  #describe(
    packing: Packing,
    from: number,
    { row: first, count, ranges }: {
      readonly row: number;
      readonly count: number;
      readonly ranges: number;
    },
  ): number {
    const { block, shape: [N, K], dtype, stored } = packing;
    const nk = stored === "NK";
    const panels = Math.ceil((nk ? count : N) / PANEL_COLUMNS);
    const { parts, inputs, pitch, apart } = wasmOf(dtype).layout([N, K]);
    const from16 = storedBytes(packing.from ?? dtype, PANEL_COLUMNS);
    const rowBytes = rowBytesOf(packing);
    const part = Math.floor(first / inputs) * apart + first % inputs * (pitch / inputs);
    const fields = this.#fields();
    const values: Readonly<Record<keyof typeof FIELDS, number>> = {
      to: block.address + (nk ? first / PANEL_COLUMNS * pitch : part),
      from,
      toStep: pitch,
      fromStep: nk ? PANEL_COLUMNS * rowBytes : from16,
      toApart: apart,
      fromApart: nk ? storedBytes(dtype, inputs) : 0,
      count: nk ? inputs : count,
      pitch: rowBytes,
      panels,
      overflow: 0,
      ranges,
      rangeBytes: rangeBytes(packing),
    };
    for (const [name, value] of Object.entries(values)) {
      fields[FIELDS[name as keyof typeof FIELDS]] = BigInt(value);
    }
    const bytes = new Uint8Array(fields.buffer, PACKING_ADDRESS + MASKS, 2 * MASK_BYTES);
    bytes.fill(255);
    if (nk) {
      const missing = panels * PANEL_COLUMNS - count;
      new Uint8Array(fields.buffer, from + count * rowBytes, missing * rowBytes).fill(0);
    } else {
      // The mask of floats that are quantised is one of F32.
      const masked = packing.from ? "F32" : dtype;
      bytes.fill(0, MASK_BYTES + storedBytes(masked, N - (panels - 1) * PANEL_COLUMNS));
    }
    return nk ? panels * parts : panels;
  }
}

/** Kernel that packs a piece. An item is a part of a panel: part · panels + panel. */
function definePacking(m: ModuleBuilder, { dtype, stored, from }: Kind): Kernel {
  const fieldIn = (f: FunctionBuilder) => (name: keyof typeof FIELDS) =>
    loadInt(f.int(PACKING_ADDRESS), FIELD_BYTES * FIELDS[name]);
  const rangeIn = (f: FunctionBuilder) =>
    fieldIn(f)("ranges").plus(m.thread.get.times(fieldIn(f)("rangeBytes")));
  const pack = from
    ? encodeAndPack(m, { dtype, stored, from }, rangeIn)
    : wasmOf(dtype).pack(m, stored);
  return defineKernel(m, [], (f, { begin, end }) => {
    const field = fieldIn(f);
    const { part, panel, to, rows, mask } = f.locals(ints("part", "panel", "to", "rows", "mask"));
    const addressOf = (name: "to" | "from") => {
      const start = field(name).plus(part.times(field(`${name}Apart`)));
      return start.plus(panel.times(field(`${name}Step`)));
    };
    f.for(begin, begin, end, 1, () => {
      part.set(begin.div(field("panels")));
      panel.set(begin.rem(field("panels")));
      to.set(addressOf("to"));
      rows.set(addressOf("from"));
      const isLast = panel.plus(1).eq(field("panels"));
      mask.set(f.int(PACKING_ADDRESS + MASKS).plus(isLast.times(MASK_BYTES)));
      const args = { to, from: rows, count: field("count"), pitch: field("pitch"), mask };
      const overflow = call(pack, args);
      f.if(
        overflow,
        () => f.store(f.int(PACKING_ADDRESS), i32.const(1), FIELD_BYTES * FIELDS.overflow),
      );
    });
  });
}
