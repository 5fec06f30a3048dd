/**
 * Matmul of many rows in WASM (prefill): register tiles of 5 rows × two vectors of outputs, the
 * rest 4 × 2. A vector has 8 outputs where V8 joins pairs to 256 bits (`asm/join.ts`), otherwise 4.
 *
 *     for each panel (item):  load panel → for each tile: multiply over K, epilogue
 *
 * A multiply-add takes four cycles and two start per cycle: eight sums only just keep the processor
 * busy, and never make up for a delay. A tile of 5 × 2 has ten sums (vectors) and leaves room for
 * two vectors of x. So x is packed first: a vector holds one input of four rows.
 *
 * Trick: numbers of x are broadcast by shuffles, not by splat loads: an engine without guard pages
 * (Deno's V8) checks the bounds of each load, which costs as much as a multiply-add.
 *
 * @module
 */
import { call, i32, ints, v128, vectors } from "../../asm/assembler.ts";
import type {
  Func,
  FunctionBuilder,
  Global,
  Int,
  Ints,
  Local,
  ModuleBuilder,
} from "../../asm/assembler.ts";
import { f32PairLoads, joinPairs } from "../../asm/join.ts";
import { spread } from "../../asm/lanes.ts";
import type { VectorMath } from "../../asm/math.ts";
import { type PanelCopy, wasmOf } from "../../formats/mod.ts";
import { PANEL_COLUMNS } from "../../formats/panels.ts";
import {
  type MatmulWasm,
  type Store,
  storeInline,
  storeParts,
  storeTileWasm,
  sumArgs,
  TILE_COLUMNS,
  type TileVector,
} from "./wasm_epilogue.ts";

/** Minimum number of rows for this kernel. */
export const MIN_TILE_ROWS = 4;
/** Inputs per iteration of the inner loop. */
const STEP = 4;
/** Bytes of a panel's line of outputs, in F32. */
const LINE = 4 * PANEL_COLUMNS;
/** Streams of a panel loaded in parallel: memory serves several streams faster than one. */
const STREAMS = 8;

/** Bytes of a packed row, in whole steps. */
function pitchOf(K: number): number {
  return 4 * STEP * Math.ceil(K / STEP);
}

/** Bytes of up to T packed rows; 6, 7 and 11 rows are padded to a multiple of four. */
function packedBytes({ T, K }: Pick<MatmulWasm, "T" | "K">): number {
  return 4 * Math.ceil(T / 4) * pitchOf(K);
}

/** Bytes of scratch per thread: the packed rows, and a panel widened to F32 if needed. */
export function rowsScratch(shape: Pick<MatmulWasm, "T" | "K" | "dtype" | "simd">): number {
  return packedBytes(shape) + (pairsOf(shape) || !wasmOf(shape.dtype).widen ? 0 : shape.K * LINE);
}

/** Loads of a 16-bit panel as it is stored; null if tiles read F32. */
function pairsOf({ dtype, simd }: Pick<MatmulWasm, "dtype" | "simd">) {
  return simd === "128" ? null : wasmOf(dtype).pairs;
}

/** The panel that tiles read: lines of 16 outputs, in parts that are `apart` bytes apart. */
interface TilePanel {
  /** Bytes of a line. */
  readonly line: number;
  readonly parts: number;
  /** Inputs per part. */
  readonly inputs: number;
  readonly apart: number;
}

function tilePanel(shape: MatmulWasm): TilePanel {
  const { N, K, dtype } = shape;
  if (!pairsOf(shape)) return { line: LINE, parts: 1, inputs: K, apart: K * LINE };
  return { line: LINE / 2, ...wasmOf(dtype).layout([N, K]) };
}

/**
 * Splits rows into the fewest tiles of 5, then makes as many of them as possible tiles of 4.
 * Returns the number of rows in tiles of 5, which come first: 5 for 13 = 5 + 4 + 4 rows.
 */
function inFives(f: FunctionBuilder, rows: Local<Int>): Local<Int> {
  const { tiles, missing } = f.locals(ints("tiles", "missing"));
  tiles.set(rows.plus(4).div(5));
  missing.set(tiles.times(5).minus(rows));
  const fives = tiles.minus(missing.min(tiles));
  tiles.set(fives.times(5));
  return tiles;
}

/** Defines the packing of x [rows, K] for `rowsWasm`. */
export function packWasm(m: ModuleBuilder, K: number): Func<Ints<"to" | "x" | "rows">> {
  const [byFives, byFours] = [5, 4].map((height) => packTilesWasm(m, K, height));
  return m.define(ints("to", "x", "rows"), "void", (f, { to, x, rows }) => {
    const first = inFives(f, rows);
    const after = (at: Local<Int>, bytes: number) => at.plus(first.times(bytes));
    f.do(call(byFives, { to, x, rows: first }));
    const rest = { to: after(to, pitchOf(K)), x: after(x, 4 * K), rows: rows.minus(first) };
    f.do(call(byFours, rest));
  });
}

/**
 * Defines the packing of tiles of `height` rows, in steps of four inputs: one vector per input with
 * the first four rows, and one vector with the fifth row's four inputs.
 *
 *     step of a tile of five:  k: r0 r1 r2 r3 │ k+1: r0 … r3 │ k+2: … │ k+3: … │ r4: k … k+3
 */
function packTilesWasm(
  m: ModuleBuilder,
  K: number,
  height: number,
): Func<Ints<"to" | "x" | "rows">> {
  return m.define(ints("to", "x", "rows"), "void", (f, { to, x, rows }) => {
    const { row, end } = f.locals(ints("row", "end"));
    const from = f.array("int", "from", height);
    const inputs = f.array("v128", "inputs", height);
    const pairs = f.array("v128", "pairs", 4);
    const [a, b, c, d, fifth] = inputs;
    const packStep = () => {
      for (const [r, four] of inputs.entries()) {
        four.set(v128.load(from[r]));
        from[r].advance(4 * STEP);
      }
      for (const [i, lanes] of [[0, 4, 1, 5], [2, 6, 3, 7]].entries()) {
        pairs[2 * i].set(v128.shuffle(a, b, lanes));
        pairs[2 * i + 1].set(v128.shuffle(c, d, lanes));
      }
      for (let k = 0; k < STEP; k++) {
        const [ab, cd] = pairs.slice(k & 2);
        const lanes = k % 2 ? [2, 3, 6, 7] : [0, 1, 4, 5];
        f.store(to, v128.shuffle(ab, cd, lanes), 16 * k);
      }
      if (fifth) f.store(to, fifth, 16 * STEP);
    };
    f.for(row, 0, rows, height, () => {
      // Missing rows repeat the last one; their results are not stored.
      for (const [r, at] of from.entries()) {
        at.set(x.plus(row.plus(r).min(rows.minus(1)).times(4 * K)));
      }
      end.set(to.plus(height * pitchOf(K)));
      // The last step reads past the end of the row; those inputs are never used.
      f.for(to, to, end, 4 * STEP * height, packStep);
    });
  });
}

/**
 * Software prefetch of the next panel: each iteration of a tile loads one word of it, in small
 * strides, so that the hardware prefetcher runs ahead.
 */
interface Prefetch {
  /** Address where the next tile begins to prefetch. */
  readonly next: Global;
  /** Bytes to advance per tile. */
  readonly tileBytes: number;
  /** Bytes to advance per iteration. */
  readonly stepBytes: number;
  /** Sink of the loaded words, so that the compiler keeps the loads. */
  readonly kept: Global;
}

/**
 * Strides of the prefetch of F32 panels for up to T rows. The last tile's loads end with the panel,
 * since the memory may end there.
 */
export function prefetchOf(
  m: ModuleBuilder,
  { T, K, simd }: Pick<MatmulWasm, "T" | "K" | "simd">,
): Prefetch {
  const panelBytes = K * LINE;
  const tiles = Math.ceil(T / 5) * (PANEL_COLUMNS / TILE_COLUMNS[simd]);
  const steps = Math.floor(K / STEP);
  const stepBytes = Math.ceil(panelBytes / (tiles * Math.max(1, steps)));
  const span = (steps - 1) * stepBytes + 4; // bytes from a tile's first load to its last, inclusive
  return {
    next: m.global(),
    tileBytes: Math.max(0, Math.floor((panelBytes - span) / (tiles - 1))),
    stepBytes,
    kept: m.global(),
  };
}

/**
 * Multiplies packed rows x by a panel. y, bias and gate are addresses of the panel's first output;
 * `left` is the number of the row's outputs from there.
 */
type Product = Func<Ints<"y" | "x" | "w" | "bias" | "gate" | "left" | "rows">>;
const PRODUCT = ints("y", "x", "w", "bias", "gate", "left", "rows");

/** Defines the product of all rows with a panel; x is the thread's scratch. */
export function rowsWasm(
  m: ModuleBuilder,
  math: VectorMath,
  store: Store,
  shape: MatmulWasm,
): Product {
  const { T, N, K, dtype, columns: { width } } = shape;
  const pairs = pairsOf(shape);
  const widen = pairs ? null : wasmOf(dtype).widen;
  const load = widen ? widen(m, [N, K]) : loadWasm(m, tilePanel(shape));
  const prefetch = pairs || widen ? null : prefetchOf(m, shape);
  const [byFives, byFours] = [5, 4].map((height) =>
    tilesWasm(m, math, store, { height, prefetch }, shape)
  );
  return m.define(PRODUCT, "void", (f, { y, x, w, bias, gate, left, rows }) => {
    const wide = f.local("int", "wide");
    const first = inFives(f, rows);
    const after = (at: Local<Int>, bytes: number) => at.plus(first.times(bytes));
    const loadPanel = () => f.do(call(load, { to: wide, from: w }));
    // Load panel.
    wide.set(widen ? x.plus(packedBytes(shape)) : w);
    if (prefetch) {
      // Skip the load if the previous panel prefetched this one. Fewer rows than T/2 have too few
      // iterations to prefetch a whole panel.
      const fetched = prefetch.next.get.eq(w).and(rows.ge(Math.floor(T / 2)));
      f.if(fetched.eqz(), loadPanel);
      // The last panel prefetches itself.
      const next = i32.select(w.plus(K * LINE), w, left.gtS(PANEL_COLUMNS));
      f.do(prefetch.next.set(next));
    } else {
      loadPanel();
    }
    // Tiles.
    f.do(call(byFives, { y, x, w: wide, bias, gate, left, rows: first }));
    const rest = { y: after(y, 4 * width), x: after(x, pitchOf(K)), gate: after(gate, 4 * width) };
    f.do(call(byFours, { ...rest, w: wide, bias, left, rows: rows.minus(first) }));
    if (prefetch) f.do(prefetch.next.set(w.plus(K * LINE)));
  });
}

/**
 * Loads a panel that was not prefetched into the cache: one number of each cache line, in parallel
 * streams. Nothing is copied; `to` is unused.
 */
function loadWasm(m: ModuleBuilder, { line, parts, inputs, apart }: TilePanel): PanelCopy {
  const kept = m.global();
  const each = STREAMS / parts;
  const length = Math.floor(inputs * line / LINE / each);
  return m.define(ints("to", "from"), "void", (f, { to: from }) => {
    const { end, seen } = f.locals(ints("end", "seen"));
    end.set(from.plus(length * LINE));
    f.for(from, from, end, LINE, () => {
      for (let stream = 0; stream < STREAMS; stream++) {
        const start = Math.floor(stream / each) * apart + stream % each * length * LINE;
        seen.set(seen.or(i32.load(from, start)));
      }
    });
    // Trick: keeps the loads alive; without a use the compiler drops them.
    f.do(kept.set(seen));
  });
}

/** Emits the loads of a tile's weights: line k of the panel, from `w`. */
type LoadWeights = (j: number, k: number) => void;

/** Loads at first use: the latency hides between multiply-adds. */
function weightLoads(
  f: FunctionBuilder,
  math: VectorMath,
  shape: MatmulWasm,
  w: Local<Int>,
  weights: readonly Local<"v128">[],
): { readonly load: LoadWeights; readonly restore: (sums: readonly Local<"v128">[]) => void } {
  if (math.simd === "128") {
    const load: LoadWeights = (j, k) => weights[j].set(v128.load(w, k * LINE + 16 * j));
    return { load, restore: () => {} };
  }
  const pairs = pairsOf(shape) ?? f32PairLoads(f, math.simd);
  const { line } = tilePanel(shape);
  return {
    load: (j, k) => {
      if (j % 2 > 0) return;
      pairs.load([weights[j], weights[j + 1]], w, k * line + j * line / weights.length);
    },
    restore: (sums) => joinPairs(f, w, sums, pairs),
  };
}

/** Defines the product of tiles of `height` rows with a panel. */
function tilesWasm(
  m: ModuleBuilder,
  math: VectorMath,
  store: Store,
  { height, prefetch }: { height: number; prefetch: Prefetch | null },
  shape: MatmulWasm,
): Product {
  const { K, options, columns: { width } } = shape;
  const columns = TILE_COLUMNS[math.simd];
  const { line, parts, inputs, apart } = tilePanel(shape);
  const stepBytes = 4 * STEP * height;
  // Positions of the sums, by row, then column.
  const tile: TileVector[] = Array.from({ length: height * columns / 4 }, (_, i) => {
    const [row, column] = [Math.floor(4 * i / columns), 4 * i % columns];
    return { row, ofRow: 4 * (row * width + column), column };
  });
  const storeAll = options.activation || options.softCap
    ? storeTileWasm(m, math, tile, options)
    : null;
  return m.define(PRODUCT, "void", (f, { y, x, w, bias, gate, left, rows }) => {
    const { column, part, end, next, ahead, seen } = f.locals(
      ints("column", "part", "end", "next", "ahead", "seen"),
    );
    const { four, fifth, broadcast } = f.locals(vectors("four", "fifth", "broadcast"));
    const weights = f.array("v128", "weights", columns / 4);
    const sums = f.array("v128", "sum", tile.length);
    const { load, restore } = weightLoads(f, math, shape, w, weights);

    /** Multiplies a step's first `count` inputs by their lines of the panel. */
    const multiply = (count: number) => {
      if (height > 4) fifth.set(v128.load(x, 16 * STEP));
      for (let k = 0; k < count; k++) {
        four.set(v128.load(x, 16 * k));
        for (let r = 0; r < height; r++) {
          broadcast.set(r < 4 ? spread(four, r) : spread(fifth, k));
          for (const [j, weight] of weights.entries()) {
            if (r === 0) load(j, k);
            const sum = sums[r * weights.length + j];
            sum.set(math.madd(broadcast, weight, sum));
          }
        }
      }
      w.advance(count * line);
      x.advance(stepBytes);
    };
    const multiplyPart = () => {
      end.set(x.plus(Math.floor(inputs / STEP) * stepBytes));
      f.while(x.lt(end), () => {
        if (prefetch) {
          seen.set(seen.or(i32.load(ahead)));
          ahead.advance(prefetch.stepBytes);
        }
        multiply(STEP);
      });
      if (inputs % STEP > 0) multiply(inputs % STEP);
      w.advance(apart - inputs * line);
    };
    const multiplyTile = () => {
      for (const sum of sums) sum.set(0);
      if (prefetch) ahead.set(next);
      if (parts > 1) f.for(part, 0, parts, 1, multiplyPart);
      else multiplyPart();
      restore(sums);
    };
    const storeWhole = () => {
      if (storeAll) {
        f.do(call(storeAll, { ...sumArgs(sums), y, bias, gate }));
        return;
      }
      for (const [i, vector] of tile.entries()) {
        storeInline(f, math, sums[i], { y, bias, gate, ...vector }, options);
      }
    };

    if (prefetch) next.set(prefetch.next.get);
    f.while(rows.gtS(0), () => {
      f.for(column, 0, PANEL_COLUMNS, columns, () => {
        multiplyTile();
        const isWhole = left.geS(columns).and(rows.geS(height));
        f.if(
          isWhole,
          storeWhole,
          () => storeParts(f, store, tile, sums, { y, bias, gate, left, rows }),
        );
        // Next columns.
        x.advance(-height * pitchOf(K));
        w.advance(columns * line / PANEL_COLUMNS - parts * apart);
        for (const at of [y, bias, gate]) at.advance(4 * columns);
        left.advance(-columns);
        if (prefetch) next.advance(prefetch.tileBytes);
      });
      // Next rows.
      x.advance(height * pitchOf(K));
      w.advance(-line);
      bias.advance(-LINE);
      for (const at of [y, gate]) at.advance(4 * height * width - LINE);
      left.advance(PANEL_COLUMNS);
      rows.advance(-height);
    });
    if (prefetch) {
      f.do(prefetch.next.set(next));
      // Trick: keeps the loads alive; without a use the compiler drops them.
      f.do(prefetch.kept.set(seen));
    }
  });
}
