/**
 * The code that packs a file's rows into panels of single numbers.
 *
 * 16 rows of a weight stored NK are one panel, transposed by vectors; of a weight stored KN, 16
 * columns go side by side.
 *
 * @module
 */
import { i32, simd, v128, Value } from "../asm/assembler.ts";
import type { FunctionBuilder, Local, ModuleBuilder } from "../asm/assembler.ts";
import { VECTOR_BYTES } from "../asm/lanes.ts";
import type { StoredOrder } from "../tensor.ts";
import { BYTES } from "./elements.ts";
import { f16Raiser } from "./f16.ts";
import type { PanelPacker } from "./format.ts";
import { PANEL_COLUMNS, type PanelOrder } from "./panels.ts";

const PARAMS = ["i32", "i32", "i32", "i32", "i32"] as const;

/** Packs a part of a panel; `raised` for F16, which panels hold as `f16.ts` says. */
export function definePacker(
  m: ModuleBuilder,
  order: PanelOrder,
  stored: StoredOrder,
  raised: boolean,
): PanelPacker {
  if (stored === "KN") return packColumns(m, order, raised);
  return order.bytes === BYTES.F32 ? rows32(m) : rows16(m, order, raised);
}

/** One panel of 16 rows of K F32. */
function rows32(m: ModuleBuilder): PanelPacker {
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
function rows16(m: ModuleBuilder, { places }: PanelOrder, raised: boolean): PanelPacker {
  const columns = places.map((_, place) => places.indexOf(place));
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
function packColumns(m: ModuleBuilder, order: PanelOrder, raised: boolean): PanelPacker {
  const line = PANEL_COLUMNS * order.bytes;
  const vectors = line / VECTOR_BYTES;
  const out = Array.from({ length: vectors }, (_, i) => columnsAt(order, i));
  return m.define(PARAMS, "i32", (f, to, from, count, pitch, masks) => {
    const end = f.local("i32");
    const row = Array.from({ length: vectors }, () => f.local("v128"));
    const mask = row.map(() => f.local("v128"));
    const raiser = raised ? f16Raiser(f) : null;
    for (const [i, each] of mask.entries()) f.set(each, v128.load(masks, 16 * i));
    f.set(end, i32.add(to, i32.mul(count, line)));
    f.while(i32.ltU(to, end), () => {
      for (const [i, each] of row.entries()) {
        f.set(each, v128.and(v128.load(from, 16 * i), mask[i]));
        raiser?.raise(each);
      }
      for (const i of row.keys()) {
        const columns = out[i];
        f.store(to, columns ? shuffle(row[0], row[1], columns) : row[i], 16 * i);
      }
      f.set(from, i32.add(from, pitch));
      f.set(to, i32.add(to, line));
    });
    return raiser?.odd ?? i32.const(0);
  });
}

/**
 * Bytes of two vectors of columns that make vector `i` of a line; null where lines
 * are in order of columns.
 */
function columnsAt({ places, bytes }: PanelOrder, i: number): number[] | null {
  const columns = places.map((_, place) => places.indexOf(place));
  if (columns.every((column, place) => column === place)) return null;
  const lanes = VECTOR_BYTES / bytes;
  return bytesOfLanes(columns.slice(i * lanes, (i + 1) * lanes), bytes);
}

/**
 * As many vectors as a vector has numbers of `size` bytes, transposed. Each round zips the first
 * half of the vectors with the second, which turns the bits of a number's place and of its
 * vector's number round by one.
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
