/**
 * WASM code that packs a file's rows into panels of F32, F16 and BF16.
 *
 *     NK (PyTorch Linear):   16 rows [16, K]    → panel [K, 16], transposed in registers
 *     KN (GPT-2's Conv1D):   16 columns [K, 16] → panel [K, 16], copied line by line
 *
 * @module
 */
import { i32, ints, v128 } from "../asm/assembler.ts";
import type { FunctionBuilder, Int, Local, ModuleBuilder, Value } from "../asm/assembler.ts";
import { VECTOR_BYTES } from "../asm/lanes.ts";
import type { StoredOrder } from "../tensor.ts";
import { BYTES } from "./elements.ts";
import { f16Rescaler } from "./f16.ts";
import type { PanelPacker } from "./format.ts";
import { PANEL_COLUMNS, type PanelOrder } from "./panels.ts";

const PARAMS = ints("to", "from", "count", "pitch", "mask");

/** Defines the packing of a part of a panel; `rescaled`: times 2¹⁰, as F16 panels (`f16.ts`). */
export function definePacker(
  m: ModuleBuilder,
  order: PanelOrder,
  stored: StoredOrder,
  rescaled: boolean,
): PanelPacker {
  if (stored === "KN") return packColumns(m, order, rescaled);
  return order.bytes === BYTES.F32 ? rows32(m) : rows16(m, order, rescaled);
}

/** Packs 16 rows of K F32: [16, K] → [K, 16]. */
function rows32(m: ModuleBuilder): PanelPacker {
  return m.define(PARAMS, "int", (f, { to, from, count: K, pitch }) => {
    const { k, at } = f.locals(ints("k", "at"));
    const rows = f.array("v128", "row", 4);
    f.for(k, 0, K, 4, () => {
      at.set(from.plus(k.shl(2)));
      for (let column = 0; column < PANEL_COLUMNS; column += 4) {
        for (const row of rows) {
          row.set(v128.load(at));
          at.advance(pitch);
        }
        storeRows(f, transposed(f, rows, 4), { to, k, K, size: 4, column });
      }
      to.advance(4 * PANEL_COLUMNS * 4);
    });
    return i32.const(0);
  });
}

/** Packs 16 rows of K 16-bit numbers: [16, K] → [K, 16]. */
function rows16(m: ModuleBuilder, { places }: PanelOrder, rescaled: boolean): PanelPacker {
  const columns = places.map((_, place) => places.indexOf(place));
  return m.define(PARAMS, "int", (f, { to, from, count: K, pitch }) => {
    const { k, at } = f.locals(ints("k", "at"));
    const rows = f.array("v128", "row", 8);
    const rescaler = rescaled ? f16Rescaler(f) : null;
    f.for(k, 0, K, 8, () => {
      for (let place = 0; place < PANEL_COLUMNS; place += 8) {
        for (const [i, row] of rows.entries()) {
          at.set(from.plus(pitch.times(columns[place + i])).plus(k.shl(1)));
          row.set(v128.load(at));
        }
        const stored = { to, k, K, size: 2, column: place };
        storeRows(f, transposed(f, rows, 2), stored, (row) => rescaler?.rescale(row));
      }
      to.advance(8 * PANEL_COLUMNS * 2);
    });
    return rescaler?.overflow ?? i32.const(0);
  });
}

/** Stores lines k, k + 1 … of a panel from `column` on; lines from K on are skipped. */
function storeRows(
  f: FunctionBuilder,
  rows: readonly Local<"v128">[],
  { to, k, K, size, column }: {
    readonly to: Local<Int>;
    readonly k: Local<Int>;
    readonly K: Local<Int>;
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
    k.plus(rows.length).le(K),
    () => rows.forEach((_, i) => store(i)),
    () => rows.forEach((_, i) => f.if(k.plus(i).lt(K), () => store(i))),
  );
}

/** Packs 16 columns of `count` rows. */
function packColumns(m: ModuleBuilder, order: PanelOrder, rescaled: boolean): PanelPacker {
  const line = PANEL_COLUMNS * order.bytes;
  const vectors = line / VECTOR_BYTES;
  const out = Array.from({ length: vectors }, (_, i) => columnsAt(order, i));
  return m.define(PARAMS, "int", (f, { to, from, count, pitch, mask: maskAt }) => {
    const end = f.local("int", "end");
    const row = f.array("v128", "row", vectors);
    const mask = f.array("v128", "mask", vectors);
    const rescaler = rescaled ? f16Rescaler(f) : null;
    for (const [i, each] of mask.entries()) each.set(v128.load(maskAt, 16 * i));
    end.set(to.plus(count.times(line)));
    f.while(to.lt(end), () => {
      for (const [i, each] of row.entries()) {
        each.set(v128.load(from, 16 * i).and(mask[i]));
        rescaler?.rescale(each);
      }
      for (const i of row.keys()) {
        const columns = out[i];
        f.store(to, columns ? v128.shuffleBytes(row[0], row[1], columns) : row[i], 16 * i);
      }
      from.advance(pitch);
      to.advance(line);
    });
    return rescaler?.overflow ?? i32.const(0);
  });
}

/**
 * Shuffle of two vectors of columns that gives vector `i` of a line; null if columns are in order.
 */
function columnsAt({ places, bytes }: PanelOrder, i: number): number[] | null {
  const columns = places.map((_, place) => places.indexOf(place));
  if (columns.every((column, place) => column === place)) return null;
  const lanes = VECTOR_BYTES / bytes;
  return bytesOfLanes(columns.slice(i * lanes, (i + 1) * lanes), bytes);
}

/**
 * Transposes a square matrix: n vectors of n numbers of `size` bytes. Method: log₂ n rounds zip the
 * first half of the vectors with the second. A round rotates the bits of (vector, lane) by one;
 * after log₂ n rounds the two halves of the bits are swapped.
 */
export function transposed(
  f: FunctionBuilder,
  rows: readonly Local<"v128">[],
  size: number,
): readonly Local<"v128">[] {
  const half = rows.length / 2;
  let from = rows;
  for (let round = 0; round < Math.log2(rows.length); round++) {
    const to = f.array("v128", "zipped", rows.length);
    for (let i = 0; i < half; i++) {
      to[2 * i].set(zip(from[i], from[i + half], size, 0));
      to[2 * i + 1].set(zip(from[i], from[i + half], size, 1));
    }
    from = to;
  }
  return from;
}

/** Interleaves the lanes of two vectors' lower (0) or upper (1) halves. */
function zip(a: Value<"v128">, b: Value<"v128">, size: number, half: 0 | 1): Value<"v128"> {
  const lanes = 16 / size;
  const order = Array.from(
    { length: lanes },
    (_, i) => half * lanes / 2 + (i >> 1) + (i & 1) * lanes,
  );
  return v128.shuffleBytes(a, b, bytesOfLanes(order, size));
}

/** Byte indices of lanes of `size` bytes. */
function bytesOfLanes(lanes: readonly number[], size: number): number[] {
  return lanes.flatMap((lane) => Array.from({ length: size }, (_, i) => lane * size + i));
}
