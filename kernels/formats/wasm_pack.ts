/**
 * The code that packs a file's rows into panels of single numbers.
 *
 * 16 rows of a weight stored NK are one panel, transposed by vectors; of a weight stored KN, 16
 * columns go side by side.
 *
 * @module
 */
import { i32, ints, simd, v128, Value } from "../asm/assembler.ts";
import type { FunctionBuilder, Local, ModuleBuilder } from "../asm/assembler.ts";
import { VECTOR_BYTES } from "../asm/lanes.ts";
import type { StoredOrder } from "../tensor.ts";
import { BYTES } from "./elements.ts";
import { f16Raiser } from "./f16.ts";
import type { PanelPacker } from "./format.ts";
import { PANEL_COLUMNS, type PanelOrder } from "./panels.ts";

const PARAMS = ints("to", "from", "count", "pitch", "mask");

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
  return m.define(PARAMS, "i32", (f, { to, from, count: K, pitch }) => {
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

/** One panel of 16 rows of K 16-bit numbers. */
function rows16(m: ModuleBuilder, { places }: PanelOrder, raised: boolean): PanelPacker {
  const columns = places.map((_, place) => places.indexOf(place));
  return m.define(PARAMS, "i32", (f, { to, from, count: K, pitch }) => {
    const { k, at } = f.locals(ints("k", "at"));
    const rows = f.array("v128", "row", 8);
    const raiser = raised ? f16Raiser(f) : null;
    f.for(k, 0, K, 8, () => {
      for (let place = 0; place < PANEL_COLUMNS; place += 8) {
        for (const [i, row] of rows.entries()) {
          at.set(from.plus(pitch.times(columns[place + i])).plus(k.shl(1)));
          row.set(v128.load(at));
        }
        const stored = { to, k, K, size: 2, column: place };
        storeRows(f, transposed(f, rows, 2), stored, (row) => raiser?.raise(row));
      }
      to.advance(8 * PANEL_COLUMNS * 2);
    });
    return raiser?.overflow ?? i32.const(0);
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
    k.plus(rows.length).le(K),
    () => rows.forEach((_, i) => store(i)),
    () => rows.forEach((_, i) => f.if(k.plus(i).lt(K), () => store(i))),
  );
}

/** Sixteen columns of some rows. */
function packColumns(m: ModuleBuilder, order: PanelOrder, raised: boolean): PanelPacker {
  const line = PANEL_COLUMNS * order.bytes;
  const vectors = line / VECTOR_BYTES;
  const out = Array.from({ length: vectors }, (_, i) => columnsAt(order, i));
  return m.define(PARAMS, "i32", (f, { to, from, count, pitch, mask: maskAt }) => {
    const end = f.local("i32", "end");
    const row = f.array("v128", "row", vectors);
    const mask = f.array("v128", "mask", vectors);
    const raiser = raised ? f16Raiser(f) : null;
    for (const [i, each] of mask.entries()) each.set(v128.load(maskAt, 16 * i));
    end.set(to.plus(count.times(line)));
    f.while(to.lt(end), () => {
      for (const [i, each] of row.entries()) {
        each.set(v128.load(from, 16 * i).and(mask[i]));
        raiser?.raise(each);
      }
      for (const i of row.keys()) {
        const columns = out[i];
        f.store(to, columns ? shuffle(row[0], row[1], columns) : row[i], 16 * i);
      }
      from.advance(pitch);
      to.advance(line);
    });
    return raiser?.overflow ?? i32.const(0);
  });
}

/**
 * Bytes of two vectors of columns that make vector `i` of a line; null where lines are in order of
 * columns.
 */
function columnsAt({ places, bytes }: PanelOrder, i: number): number[] | null {
  const columns = places.map((_, place) => places.indexOf(place));
  if (columns.every((column, place) => column === place)) return null;
  const lanes = VECTOR_BYTES / bytes;
  return bytesOfLanes(columns.slice(i * lanes, (i + 1) * lanes), bytes);
}

/**
 * As many vectors as a vector has numbers of `size` bytes, transposed. Each round zips the first
 * half of the vectors with the second, which rotates the bits of a number's place and of its
 * vector's number by one.
 */
function transposed(
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

/** Lanes of two vectors, alternating: of their first halves, or of their second. */
function zip(a: Value<"v128">, b: Value<"v128">, size: number, half: 0 | 1): Value<"v128"> {
  const lanes = 16 / size;
  const order = Array.from(
    { length: lanes },
    (_, i) => half * lanes / 2 + (i >> 1) + (i & 1) * lanes,
  );
  return shuffle(a, b, bytesOfLanes(order, size));
}

/** Lanes of two vectors, by their bytes: those of the second count from 16. */
function shuffle(a: Value<"v128">, b: Value<"v128">, bytes: readonly number[]): Value<"v128"> {
  return new Value("v128", [...a.code, ...b.code, ...simd(13), ...bytes]);
}

/** Bytes of lanes of `size` bytes. */
function bytesOfLanes(lanes: readonly number[], size: number): number[] {
  return lanes.flatMap((lane) => Array.from({ length: size }, (_, i) => lane * size + i));
}
