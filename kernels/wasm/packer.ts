/**
 * The code that packs weights into panels, and the loop that reads a file by pieces for it.
 *
 * Rows of a file are read into a scratch in the same memory and turned from there by vectors: 16 rows of a weight stored NK are
 * one panel, transposed; of a weight stored KN, 16 columns go side by side. There are two pieces of scratch: while one is read,
 * other threads pack the other, and touch the weight's new pages, which is the longer part of it.
 *
 * @module
 */
import { BYTES, storedBytes, type WeightDtype } from "../formats/mod.ts";
import type { FillRows, StoredOrder } from "../tensor.ts";
import {
  call,
  type Func,
  type FunctionBuilder,
  i32,
  ModuleBuilder,
  simd,
  v128,
  Value,
} from "../asm/assembler.ts";
import type { Local } from "../asm/assembler.ts";
import type { Run } from "./control.ts";
import type { Kernel } from "../asm/kernel.ts";
import { type Block, type LinearMemory, PACKING_ADDRESS } from "./memory.ts";
import {
  PANEL_COLUMNS,
  panelLayout,
  PLACES,
  rowsAtATime,
  scratchBytes,
} from "../formats/panels.ts";
import type { Pool } from "./pool.ts";
import { defineRun } from "./program.ts";
import { f16Raiser } from "../formats/f16.ts";

/** The kinds of packing, by which the program is told what to do. */
const KINDS = (["NK", "KN"] as const).flatMap((stored) => [
  { stored, dtype: "F32" as const, plain: false },
  { stored, dtype: "F16" as const, plain: false },
  { stored, dtype: "F16" as const, plain: true },
  { stored, dtype: "BF16" as const, plain: false },
]);

/** What is packed next, as I32 words from `PACKING_ADDRESS` on; then come the masks of whole panels and of the last one. */
const WORDS = {
  to: 0,
  from: 1,
  toStep: 2,
  fromStep: 3,
  count: 4,
  pitch: 5,
  panels: 6,
  odd: 7,
  toApart: 8,
  fromApart: 9,
} as const;
const [MASKS, MASK_BYTES] = [64, 64];

/** A weight that is being packed. */
export interface Packing {
  readonly block: Block;
  readonly shape: readonly [N: number, K: number];
  readonly dtype: WeightDtype;
  readonly stored: StoredOrder;
  /** Whether F16 is left as it is, not raised as `widen.ts` has it. */
  readonly plain?: boolean;
}

/** Milliseconds of waiting for other threads that tell of a busy machine: a piece is packed in a third of one. */
const STALL_MS = 2;
/** The most pieces that are then packed alone before the others are asked again. */
const MOST_ALONE = 64;

/** Packs the weights of one memory, on all threads of its pool. */
export class Packer {
  private constructor(
    readonly linear: LinearMemory,
    readonly pool: Pool | null,
    readonly plan: number,
    readonly program: Run,
  ) {}

  /** Compiles the program. */
  static async open(linear: LinearMemory, pool: Pool | null): Promise<Packer> {
    const m = new ModuleBuilder(linear.shared, linear.pages);
    const entry = { kernel: definePacking(m), operands: [], items: { count: 1, perRow: true } };
    defineRun(m, [entry], { threads: pool?.threads ?? 1, callerSleeps: false });
    const module = await WebAssembly.compile(m.toBytes());
    const env = { memory: linear.wasm };
    const program = (await WebAssembly.instantiate(module, { env })).exports.run as Run;
    return new Packer(linear, pool, pool ? await pool.load(module) : 0, program);
  }

  /** Bytes of the scratch that `pack` needs: two pieces, one of which may lie outside. */
  static scratchBytes({ shape, dtype, stored }: Packing, shared: boolean): number {
    return (shared ? 2 : 1) * scratchBytes(shape, dtype, stored);
  }

  /** Pieces to pack alone, and how many they were the last time: a thread that other programs hold up is waited for in vain. */
  #alone = 0;
  #lastAlone = 0;
  /** Whose rows are being packed, and whether panels can have all of them so far. */
  #current: { fits: boolean } | null = null;

  /** Packs what `fill` gives; false when a number is an F16 that panels cannot have. */
  async pack(packing: Packing, scratch: Block, fill: FillRows): Promise<boolean> {
    const { linear } = this;
    if (linear.shared) return await this.#packPieces(packing, scratch, fill);
    // Memory that is not shared may grow, and its arrays be lost, while rows are waited for: they come by way of another.
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
    const [rows, width] = stored === "NK" ? [N, K] : [K, N];
    const rowBytes = storedBytes(dtype, width);
    const most = rowsAtATime(packing.shape, dtype, stored);
    const pieces = host ? 1 : 2;
    const pieceBytes = scratch.bytes / pieces;
    const state = { fits: true };
    // Inputs of one part of a panel go together, in pieces of equal length.
    const { inputs } = panelLayout(packing.shape, dtype);
    const chunk = stored === "NK" ? most : Math.ceil(inputs / Math.ceil(inputs / most));
    for (let row = 0, piece = 0; row < rows; piece = (piece + 1) % pieces) {
      const left = stored === "NK" ? rows - row : inputs - row % inputs;
      const count = Math.min(chunk, left);
      const view = () => this.linear.bytes(scratch, piece * pieceBytes, count * rowBytes);
      const into = host?.subarray(0, count * rowBytes) ?? view();
      await fill(row, count, into);
      if (host) view().set(into);
      this.#settle();
      this.#current = state;
      this.#announce(packing, scratch.address + piece * pieceBytes, row, count);
      row += count;
    }
    this.#settle();
    return state.fits;
  }

  /** Ends the packing that is under way, which may be another weight's: several may be filled at a time. */
  #settle(): void {
    const start = performance.now();
    this.pool?.settle();
    if (performance.now() - start > STALL_MS) {
      this.#lastAlone = Math.min(Math.max(2 * this.#lastAlone, 4), MOST_ALONE);
      this.#alone = this.#lastAlone;
    }
    if (this.#words()[WORDS.odd] && this.#current) this.#current.fits = false;
    this.#current = null;
  }

  #words(): Int32Array {
    return new Int32Array(this.linear.wasm.buffer, PACKING_ADDRESS, (MASKS + 2 * MASK_BYTES) / 4);
  }

  /** Has rows `first` … `first + count`, which lie at `from`, packed from now on. */
  #announce(
    { block, shape: [N, K], dtype, stored, plain = false }: Packing,
    from: number,
    first: number,
    count: number,
  ): void {
    const size = BYTES[dtype];
    const rowBytes = PANEL_COLUMNS * size;
    const nk = stored === "NK";
    const panels = Math.ceil((nk ? count : N) / PANEL_COLUMNS);
    const { parts, inputs, pitch, apart } = panelLayout([N, K], dtype);
    const part = Math.floor(first / inputs) * apart + first % inputs * rowBytes;
    const words = this.#words();
    words[WORDS.to] = block.address + (nk ? first / PANEL_COLUMNS * pitch : part);
    words[WORDS.from] = from;
    words[WORDS.toStep] = pitch;
    words[WORDS.fromStep] = nk ? K * rowBytes : rowBytes;
    words[WORDS.toApart] = apart;
    words[WORDS.fromApart] = inputs * size;
    words[WORDS.count] = nk ? inputs : count;
    words[WORDS.pitch] = (nk ? K : N) * size;
    words[WORDS.panels] = panels;
    words[WORDS.odd] = 0;
    const bytes = new Uint8Array(words.buffer, PACKING_ADDRESS + MASKS, 2 * MASK_BYTES);
    bytes.fill(255);
    bytes.fill(0, MASK_BYTES + (N - (panels - 1) * PANEL_COLUMNS) * size);
    if (nk) {
      const missing = panels * PANEL_COLUMNS - count;
      new Uint8Array(words.buffer, from + count * K * size, missing * K * size).fill(0);
    }
    const position = KINDS.findIndex((kind) =>
      kind.dtype === dtype && kind.stored === stored && kind.plain === plain
    );
    const step = { rows: nk ? panels * parts : panels, position, slot: 0, length: 0 };
    if (!this.pool) this.program(0, 0, step.rows, position, 0, 0);
    else if (this.#alone-- > 0) this.pool.runAlone(this.program, step);
    else this.pool.announce(this.plan, this.program, step);
  }
}

/**
 * Packs parts of panels, `begin` … `end` of the piece that the words describe: all panels' first parts, then the second ones. The
 * step's rows are their number, its position the kind.
 */
function definePacking(m: ModuleBuilder): Kernel {
  const packers = KINDS.map(({ stored, dtype, plain }) => {
    const raised = dtype === "F16" && !plain;
    if (stored === "KN") return defineKn(m, dtype, raised);
    return dtype === "F32" ? defineNk32(m) : defineNk16(m, dtype, raised);
  });
  return m.define(
    ["i32", "i32", "i32", "i32", "i32", "i32"],
    "void",
    (f, _rows, kind, _slot, _length, begin, end) => {
      const [part, panel, to, from, mask] = [0, 1, 2, 3, 4].map(() => f.local("i32"));
      const word = (name: keyof typeof WORDS) => i32.load(PACKING_ADDRESS + 4 * WORDS[name]);
      const placed = (name: "to" | "from") => {
        const start = i32.add(word(name), i32.mul(part, word(`${name}Apart`)));
        return i32.add(start, i32.mul(panel, word(`${name}Step`)));
      };
      f.for(begin, begin, end, 1, () => {
        f.set(part, i32.divU(begin, word("panels")));
        f.set(panel, i32.remU(begin, word("panels")));
        f.set(to, placed("to"));
        f.set(from, placed("from"));
        const isLast = i32.eq(i32.add(panel, 1), word("panels"));
        f.set(mask, i32.add(PACKING_ADDRESS + MASKS, i32.mul(isLast, MASK_BYTES)));
        for (const [i, packer] of packers.entries()) {
          f.if(i32.eq(kind, i), () => {
            const odd = call(packer, to, from, word("count"), word("pitch"), mask);
            f.if(odd, () => f.store(PACKING_ADDRESS + 4 * WORDS.odd, i32.const(1)));
          });
        }
      });
    },
  );
}

/**
 * Packs one part of a panel: its address, that of its first number in the file's rows, how many of its lines to write (NK: all K; KN:
 * as many rows as there are), the distance of the file's rows, and the mask of its columns (KN). Gives 1 when one is an F16 that
 * panels cannot have.
 */
type PanelPacker = Func<readonly ["i32", "i32", "i32", "i32", "i32"], "i32">;
const PARAMS = ["i32", "i32", "i32", "i32", "i32"] as const;

/** One panel of 16 rows of K F32. */
function defineNk32(m: ModuleBuilder): PanelPacker {
  return m.define(PARAMS, "i32", (f, to, from, K, pitch) => {
    const [k, at] = [f.local("i32"), f.local("i32")];
    const rows = [0, 1, 2, 3].map(() => f.local("v128"));
    f.for(k, 0, K, 4, () => {
      f.set(at, i32.add(from, i32.shl(k, 2)));
      for (let column = 0; column < PANEL_COLUMNS; column += 4) {
        for (const row of rows) {
          f.set(row, v128.load(at));
          f.set(at, i32.add(at, pitch));
        }
        storeRows(f, transposed(f, rows, 4), { to, k, K, size: 4, column });
      }
      f.set(to, i32.add(to, 4 * PANEL_COLUMNS * 4));
    });
    return i32.const(0);
  });
}

/** One panel of 16 rows of K 16-bit numbers. */
function defineNk16(m: ModuleBuilder, dtype: "F16" | "BF16", raised: boolean): PanelPacker {
  const columns = PLACES[dtype].map((_, place) => PLACES[dtype].indexOf(place));
  return m.define(PARAMS, "i32", (f, to, from, K, pitch) => {
    const [k, at] = [f.local("i32"), f.local("i32")];
    const rows = [0, 1, 2, 3, 4, 5, 6, 7].map(() => f.local("v128"));
    const raiser = raised ? f16Raiser(f) : null;
    f.for(k, 0, K, 8, () => {
      for (let place = 0; place < PANEL_COLUMNS; place += 8) {
        for (const [i, row] of rows.entries()) {
          f.set(at, i32.add(i32.add(from, i32.mul(pitch, columns[place + i])), i32.shl(k, 1)));
          f.set(row, v128.load(at));
        }
        const stored = { to, k, K, size: 2, column: place };
        storeRows(f, transposed(f, rows, 2), stored, (row) => raiser?.raise(row));
      }
      f.set(to, i32.add(to, 8 * PANEL_COLUMNS * 2));
    });
    return raiser?.odd ?? i32.const(0);
  });
}

/** Stores rows k, k + 1 … of a panel from one of its columns on, as far as there are so many. */
function storeRows(
  f: FunctionBuilder,
  rows: readonly Local<"v128">[],
  { to, k, K, size, column }: {
    readonly to: Local<"i32">;
    readonly k: Local<"i32">;
    readonly K: Local<"i32">;
    readonly size: number;
    readonly column: number;
  },
  before: (row: Local<"v128">) => void = () => {},
): void {
  const store = (i: number) => {
    before(rows[i]);
    f.store(to, rows[i], (i * PANEL_COLUMNS + column) * size);
  };
  f.if(
    i32.leU(i32.add(k, rows.length), K),
    () => rows.forEach((_, i) => store(i)),
    () => rows.forEach((_, i) => f.if(i32.ltU(i32.add(k, i), K), () => store(i))),
  );
}

/** Sixteen columns of some rows. */
function defineKn(m: ModuleBuilder, dtype: WeightDtype, raised: boolean): PanelPacker {
  return m.define(PARAMS, "i32", (f, to, from, count, pitch, masks) => {
    const end = f.local("i32");
    const row = Array.from({ length: BYTES[dtype] }, () => f.local("v128"));
    const mask = row.map(() => f.local("v128"));
    const raiser = raised ? f16Raiser(f) : null;
    for (const [i, each] of mask.entries()) f.set(each, v128.load(masks, 16 * i));
    f.set(end, i32.add(to, i32.mul(count, PANEL_COLUMNS * BYTES[dtype])));
    f.while(i32.ltU(to, end), () => {
      for (const [i, each] of row.entries()) {
        f.set(each, v128.and(v128.load(from, 16 * i), mask[i]));
        raiser?.raise(each);
      }
      for (const i of row.keys()) {
        f.store(to, dtype === "F32" ? row[i] : placed(row[0], row[1], dtype, 8 * i), 16 * i);
      }
      f.set(from, i32.add(from, pitch));
      f.set(to, i32.add(to, PANEL_COLUMNS * BYTES[dtype]));
    });
    return raiser?.odd ?? i32.const(0);
  });
}

/** Eight of 16 columns, those that stand from `place` on. */
function placed(
  a: Value<"v128">,
  b: Value<"v128">,
  dtype: WeightDtype,
  place: number,
): Value<"v128"> {
  const columns = [0, 1, 2, 3, 4, 5, 6, 7].map((i) => PLACES[dtype].indexOf(place + i));
  return shuffle(a, b, bytesOfLanes(columns, 2));
}

/**
 * As many vectors as a vector has numbers of `size` bytes, transposed. Each round zips the first half of the vectors with the
 * second, which turns the bits of a number's place and of its vector's number round by one.
 */
function transposed(
  f: FunctionBuilder,
  rows: readonly Local<"v128">[],
  size: number,
): readonly Local<"v128">[] {
  const half = rows.length / 2;
  let from = rows;
  for (let round = 0; round < Math.log2(rows.length); round++) {
    const to = rows.map(() => f.local("v128"));
    for (let i = 0; i < half; i++) {
      f.set(to[2 * i], zip(from[i], from[i + half], size, 0));
      f.set(to[2 * i + 1], zip(from[i], from[i + half], size, 1));
    }
    from = to;
  }
  return from;
}

/** Lanes of two vectors by turns: of their first halves, or of their second. */
function zip(a: Value<"v128">, b: Value<"v128">, size: number, half: 0 | 1): Value<"v128"> {
  const lanes = 16 / size;
  const turns = Array.from(
    { length: lanes },
    (_, i) => half * lanes / 2 + (i >> 1) + (i & 1) * lanes,
  );
  return shuffle(a, b, bytesOfLanes(turns, size));
}

/** Lanes of two vectors, by their bytes: those of the second count from 16. */
function shuffle(a: Value<"v128">, b: Value<"v128">, bytes: readonly number[]): Value<"v128"> {
  return new Value("v128", [...a.code, ...b.code, ...simd(13), ...bytes]);
}

/** Bytes of lanes of `size` bytes. */
function bytesOfLanes(lanes: readonly number[], size: number): number[] {
  return lanes.flatMap((lane) => Array.from({ length: size }, (_, i) => lane * size + i));
}
