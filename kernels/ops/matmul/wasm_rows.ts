/**
 * The WASM form of the matrix product under many rows: 5 rows by 8 outputs at a time, and 4 by 8
 * where fives do not come out even.
 *
 * A multiply-add takes four cycles, and a processor begins two in each: with eight sums, what comes
 * late is never made up for. Ten leave room for two vectors of x. So rows are packed first, where a
 * vector holds one input of four of them.
 *
 * An engine without guard pages (Deno's V8) tests each access, which costs as much as a
 * multiply-add: hence numbers of x are spread by shuffles, where a load could do it as well.
 *
 * @module
 */
import { call, f32x4, type Func, type Global, i32, type Local, v128 } from "../../asm/assembler.ts";
import type { FunctionBuilder, ModuleBuilder } from "../../asm/assembler.ts";
import type { VectorMath } from "../../asm/math.ts";
import { FORMATS, type PanelCopy } from "../../formats/mod.ts";
import { PANEL_COLUMNS } from "../../formats/panels.ts";
import {
  type Corner,
  type MatmulWasm,
  type Store,
  storeInline,
  storeTileWasm,
} from "./wasm_epilogue.ts";

/** Rows that are many. */
export const MANY = 4;
/** Outputs of a tile. */
const COLUMNS = 8;
/** Inputs of a turn of the inner loop. */
const STEP = 4;
/** Bytes of a panel's line, wide: the outputs of one input. */
const LINE = 4 * PANEL_COLUMNS;
/** Parts of a panel that are read side by side: memory answers several streams faster than one. */
const STREAMS = 8;

/** Bytes of a packed row, of which no piece is left open. */
function pitchOf(K: number): number {
  return 4 * STEP * Math.ceil(K / STEP);
}

/** Bytes of up to T packed rows: 6, 7 and 11 are filled up to fours. */
function packedBytes({ T, K }: Pick<MatmulWasm, "T" | "K">): number {
  return 4 * Math.ceil(T / 4) * pitchOf(K);
}

/** Bytes of scratch that a thread needs: for packed rows, and for a panel of 16 bits made wide. */
export function rowsScratch(shape: Pick<MatmulWasm, "T" | "K" | "dtype">): number {
  return packedBytes(shape) + (FORMATS[shape.dtype].wasm.widen ? shape.K * LINE : 0);
}

/**
 * How many rows go into tiles of five: all rows are in as few tiles as can be, of which as
 * many as can be have four.
 */
function inFives(f: FunctionBuilder, rows: Local<"i32">): Local<"i32"> {
  const [tiles, missing] = [0, 1].map(() => f.local("i32"));
  f.set(tiles, i32.divU(i32.add(rows, 4), 5));
  f.set(missing, i32.sub(i32.mul(tiles, 5), rows));
  const fives = i32.sub(tiles, i32.select(missing, tiles, i32.ltU(missing, tiles)));
  f.set(tiles, i32.mul(fives, 5));
  return tiles;
}

/** Packs rows [rows, K] for `rowsWasm`: where to, x, and the rows. */
export function packWasm(
  m: ModuleBuilder,
  K: number,
): Func<readonly ["i32", "i32", "i32"], "void"> {
  const [byFives, byFours] = [5, 4].map((height) => packTilesWasm(m, K, height));
  return m.define(["i32", "i32", "i32"], "void", (f, to, x, rows) => {
    const first = inFives(f, rows);
    const beside = (at: Local<"i32">, bytes: number) => i32.add(at, i32.mul(first, bytes));
    f.do(call(byFives, to, x, first));
    f.do(call(byFours, beside(to, pitchOf(K)), beside(x, 4 * K), i32.sub(rows, first)));
  });
}

/**
 * Packs tiles of so many rows: of four inputs each a vector of the first four
 * rows, and one of the fifth.
 */
function packTilesWasm(
  m: ModuleBuilder,
  K: number,
  height: number,
): Func<readonly ["i32", "i32", "i32"], "void"> {
  return m.define(["i32", "i32", "i32"], "void", (f, to, x, rows) => {
    const [row, end] = [0, 1].map(() => f.local("i32"));
    const from = Array.from({ length: height }, () => f.local("i32"));
    const inputs = from.map(() => f.local("v128"));
    const pairs = [0, 1, 2, 3].map(() => f.local("v128"));
    f.for(row, 0, rows, height, () => {
      // For rows that are not there the last one stands in: what is made of it is not stored.
      for (const [r, at] of from.entries()) {
        const [here, last] = [i32.add(row, r), i32.sub(rows, 1)];
        const there = i32.select(here, last, i32.ltU(here, last));
        f.set(at, i32.add(x, i32.mul(there, 4 * K)));
      }
      f.set(end, i32.add(to, height * pitchOf(K)));
      // What is read behind a row fills up the last piece, and is never used.
      f.for(to, to, end, 4 * STEP * height, () => {
        for (const [r, four] of inputs.entries()) {
          f.set(four, v128.load(from[r]));
          f.set(from[r], i32.add(from[r], 4 * STEP));
        }
        const [a, b, c, d, fifth] = inputs;
        for (const [i, lanes] of [[0, 4, 1, 5], [2, 6, 3, 7]].entries()) {
          f.set(pairs[2 * i], v128.shuffle(a, b, lanes));
          f.set(pairs[2 * i + 1], v128.shuffle(c, d, lanes));
        }
        for (let k = 0; k < STEP; k++) {
          const [ab, cd] = pairs.slice(k & 2);
          const lanes = k % 2 ? [2, 3, 6, 7] : [0, 1, 4, 5];
          f.store(to, v128.shuffle(ab, cd, lanes), 16 * k);
        }
        if (fifth) f.store(to, fifth, 16 * STEP);
      });
    });
  });
}

/**
 * How the next panel is fetched while one is multiplied: a look at each turn, slowly on, so that
 * the processor runs ahead of it.
 */
interface Ahead {
  /** Where a tile looks first: in the panel that was last fetched, or behind it. */
  readonly next: Global;
  /** Bytes that each tile, and each turn of it, moves on by. */
  readonly tileBytes: number;
  readonly turnBytes: number;
  readonly kept: Global;
}

/**
 * How to fetch F32 panels under up to T rows: the last tile's looks end with the panel, for
 * behind it memory may end.
 */
export function aheadOf(m: ModuleBuilder, { T, K }: Pick<MatmulWasm, "T" | "K">): Ahead {
  const panelBytes = K * LINE;
  const tiles = Math.ceil(T / 5) * (PANEL_COLUMNS / COLUMNS);
  const turns = Math.floor(K / STEP);
  const turnBytes = Math.ceil(panelBytes / (tiles * Math.max(1, turns)));
  const span = (turns - 1) * turnBytes + 4; // of a tile's looks, of four bytes each
  return {
    next: m.global(),
    tileBytes: Math.max(0, Math.floor((panelBytes - span) / (tiles - 1))),
    turnBytes,
    kept: m.global(),
  };
}

/**
 * Addresses of y, packed rows, weight, bias and gate; the outputs that are left
 * from there, and the rows.
 */
type Product = Func<readonly ["i32", "i32", "i32", "i32", "i32", "i32", "i32"], "void">;

/** All rows by a panel; the rows are a thread's scratch. */
export function rowsWasm(
  m: ModuleBuilder,
  math: VectorMath,
  store: Store,
  shape: MatmulWasm,
): Product {
  const { T, N, K, dtype } = shape;
  const { widen } = FORMATS[dtype].wasm;
  const bring = widen ? widen(m, [N, K]) : readWasm(m, K);
  const ahead = widen ? null : aheadOf(m, shape);
  const [byFives, byFours] = [5, 4].map((height) =>
    tilesWasm(m, math, store, { height, ahead }, shape)
  );
  return m.define(
    ["i32", "i32", "i32", "i32", "i32", "i32", "i32"],
    "void",
    (f, y, x, w, bias, gate, left, rows) => {
      const wide = f.local("i32");
      const first = inFives(f, rows);
      const beside = (at: Local<"i32">, bytes: number) => i32.add(at, i32.mul(first, bytes));
      f.set(wide, widen ? i32.add(x, packedBytes(shape)) : w);
      const bringIt = () => f.do(call(bring, wide, w));
      if (ahead) {
        // A short step looks at but a part of the next panel.
        const fetched = i32.and(i32.eq(ahead.next.get, w), i32.geU(rows, Math.floor(T / 2)));
        f.if(i32.eqz(fetched), bringIt);
        // Of the last panel, itself: it is there already.
        f.do(ahead.next.set(i32.select(i32.add(w, K * LINE), w, i32.gtS(left, PANEL_COLUMNS))));
      } else {
        bringIt();
      }
      f.do(call(byFives, y, x, wide, bias, gate, left, first));
      const [others, of] = [beside(y, 4 * N), beside(gate, 4 * N)];
      const packed = beside(x, pitchOf(K));
      f.do(call(byFours, others, packed, wide, bias, of, left, i32.sub(rows, first)));
      if (ahead) f.do(ahead.next.set(i32.add(w, K * LINE)));
    },
  );
}

/**
 * Reads an F32 panel that was not prefetched, one number of each line, so that it arrives at the
 * speed of memory. It stays where it is: `to` is `from`.
 */
function readWasm(m: ModuleBuilder, K: number): PanelCopy {
  const kept = m.global();
  return m.define(["i32", "i32"], "void", (f, from) => {
    const [end, seen] = [0, 1].map(() => f.local("i32"));
    const length = Math.floor(K / STREAMS);
    f.set(end, i32.add(from, length * LINE));
    f.for(from, from, end, LINE, () => {
      for (let stream = 0; stream < STREAMS; stream++) {
        f.set(seen, i32.or(seen, i32.load(from, stream * length * LINE)));
      }
    });
    f.do(kept.set(seen)); // else nobody would have to read it
  });
}

/** Tiles of so many rows by a panel. */
function tilesWasm(
  m: ModuleBuilder,
  math: VectorMath,
  store: Store,
  { height, ahead }: { height: number; ahead: Ahead | null },
  { N, K, options }: MatmulWasm,
): Product {
  const piece = 4 * STEP * height;
  // Sums in order of rows and columns, and where they go.
  const corners: Corner[] = Array.from({ length: height * COLUMNS / 4 }, (_, i) => {
    const [row, column] = [Math.floor(4 * i / COLUMNS), 4 * i % COLUMNS];
    return { row, ofRow: 4 * (row * N + column), column };
  });
  const storeAll = options.activation || options.softCap
    ? storeTileWasm(m, math, corners, options)
    : null;
  return m.define(
    ["i32", "i32", "i32", "i32", "i32", "i32", "i32"],
    "void",
    (f, y, x, w, bias, gate, left, rows) => {
      const [column, end, next, look, seen] = [0, 1, 2, 3, 4].map(() => f.local("i32"));
      const [four, fifth, xr] = [0, 1, 2].map(() => f.local("v128"));
      const weights = Array.from({ length: COLUMNS / 4 }, () => f.local("v128"));
      const sums = corners.map(() => f.local("v128"));
      const advance = (at: Local<"i32">, bytes: number) => f.set(at, i32.add(at, bytes));

      /** The first inputs of a piece by their lines of the panel. */
      const multiply = (inputs: number) => {
        if (height > 4) f.set(fifth, v128.load(x, 16 * STEP));
        for (let k = 0; k < inputs; k++) {
          f.set(four, v128.load(x, 16 * k));
          for (let r = 0; r < height; r++) {
            const [from, lane] = r < 4 ? [four, r] : [fifth, k];
            f.set(xr, v128.shuffle(from, from, [lane, lane, lane, lane]));
            for (const [j, weight] of weights.entries()) {
              // Only where it is needed: between multiply-adds there is time for it.
              if (r === 0) f.set(weight, v128.load(w, k * LINE + 16 * j));
              const sum = sums[r * weights.length + j];
              f.set(sum, math.madd(xr, weight, sum));
            }
          }
        }
        advance(w, inputs * LINE);
        advance(x, piece);
      };
      const whole = () => {
        if (storeAll) {
          f.do(call(storeAll, ...sums, y, bias, gate));
          return;
        }
        for (const [i, corner] of corners.entries()) {
          storeInline(f, math, sums[i], { y, bias, gate, ...corner }, options);
        }
      };
      const ragged = () => {
        for (const [i, { row, ofRow, column }] of corners.entries()) {
          const [at, of] = [i32.add(y, ofRow), i32.add(gate, ofRow)];
          const [ofBias, beside] = [i32.add(bias, 4 * column), i32.sub(left, column)];
          f.if(i32.gtS(rows, row), () => f.do(call(store, sums[i], at, ofBias, of, beside)));
        }
      };

      if (ahead) f.set(next, ahead.next.get);
      f.while(i32.gtS(rows, 0), () => {
        f.for(column, 0, PANEL_COLUMNS, COLUMNS, () => {
          for (const sum of sums) f.set(sum, f32x4.splat(0));
          f.set(end, i32.add(x, Math.floor(K / STEP) * piece));
          if (ahead) f.set(look, next);
          f.while(i32.ltU(x, end), () => {
            if (ahead) {
              f.set(seen, i32.or(seen, i32.load(look)));
              advance(look, ahead.turnBytes);
            }
            multiply(STEP);
          });
          if (K % STEP > 0) multiply(K % STEP);
          f.if(i32.and(i32.geS(left, COLUMNS), i32.geS(rows, height)), whole, ragged);
          advance(x, -height * pitchOf(K));
          advance(w, 4 * COLUMNS - K * LINE);
          for (const at of [y, bias, gate]) advance(at, 4 * COLUMNS);
          advance(left, -COLUMNS);
          if (ahead) advance(next, ahead.tileBytes);
        });
        advance(x, height * pitchOf(K));
        for (const at of [w, bias]) advance(at, -LINE);
        for (const at of [y, gate]) advance(at, 4 * height * N - LINE);
        advance(left, PANEL_COLUMNS);
        advance(rows, -height);
      });
      if (ahead) {
        f.do(ahead.next.set(next));
        f.do(ahead.kept.set(seen)); // else nobody would have to read it
      }
    },
  );
}
