/**
 * Matmul of one row in WASM (decode): y [1, N] = x [1, K] · Wᵀ, two panels of 16 outputs at a time.
 *
 * Each weight is used once, so memory bandwidth is the limit. Memory serves eight streams faster
 * than four, and long streams faster than short ones: the four streams of two panels are read in
 * parallel, and a number of x is broadcast once for both.
 *
 * @module
 */
import { wasmOf } from "../../formats/mod.ts";
import { call, ints, v128, vectors } from "../../asm/assembler.ts";
import type { Func, Ints, ModuleBuilder, Value } from "../../asm/assembler.ts";
import { defineKernel, type Kernel } from "../../asm/kernel.ts";
import { spread } from "../../asm/lanes.ts";
import type { VectorMath } from "../../asm/math.ts";
import type { WasmFormat } from "../../formats/format.ts";
import { PANEL_COLUMNS } from "../../formats/panels.ts";
import { blockPanelsWasm } from "./wasm_blocks.ts";
import { quantisedBytes, quantiseWasm } from "./wasm_quantise.ts";
import {
  type MatmulWasm,
  type Store,
  storeParts,
  storeTileWasm,
  sumArgs,
} from "./wasm_epilogue.ts";

/** Inputs per iteration of the inner loop and stream: a vector of x. */
const STEP = 4;

/** Vectors of four outputs per panel. */
const VECTORS = PANEL_COLUMNS / 4;

/**
 * Items of `matmulRowWasm`: pairs of panels, one from each half of the weight, so that streams
 * continue from item to item.
 */
export function rowItems(N: number): number {
  return Math.ceil(N / (2 * PANEL_COLUMNS));
}

/** The kernel for T = 1; its scratch holds x, if x is quantised. */
export function matmulRowWasm(
  m: ModuleBuilder,
  math: VectorMath,
  store: Store,
  shape: MatmulWasm,
): Kernel {
  const { N, K, dtype, columns } = shape;
  const { blocks, layout } = wasmOf(dtype);
  const { pitch } = layout([N, K]);
  const quantise = blocks && quantiseWasm(m, shape, blocks);
  const pairs = rowItems(N);
  const pair = panelsWasm(m, math, store, shape, [0, pairs]);
  // If the number of panels is odd, the middle one has no partner.
  const single = Math.ceil(N / PANEL_COLUMNS) < 2 * pairs
    ? panelsWasm(m, math, store, shape, [0])
    : null;
  return defineKernel(m, ["y", "x", "w", "bias", "gate", "scratch"], (f, params) => {
    const { y, x, w, bias, gate, scratch, begin, end } = params;
    const left = f.local("int", "left");
    left.set(f.int(N).minus(begin.times(PANEL_COLUMNS)));
    if (columns.first) y.advance(4 * columns.first);
    w.advance(begin.times(pitch));
    if (blocks && quantise) {
      scratch.advance(m.thread.get.times(quantisedBytes(shape, blocks)));
      f.if(m.unprepared.get, () => {
        f.do(call(quantise, { to: scratch, x, rows: 1 }));
        f.do(m.unprepared.set(0));
      });
      x.set(scratch);
    }
    for (const at of [y, bias, gate]) at.advance(begin.times(4 * PANEL_COLUMNS));
    const item = (panels: typeof pair) => () => f.do(call(panels, { y, x, w, bias, gate, left }));
    f.for(begin, begin, end, 1, () => {
      if (single) f.if(left.gtS(pairs * PANEL_COLUMNS), item(pair), item(single));
      else item(pair)();
      left.set(left.minus(PANEL_COLUMNS));
      w.advance(pitch);
      for (const at of [y, bias, gate]) at.advance(4 * PANEL_COLUMNS);
    });
  });
}

/** Multiplies one row by some panels. */
export type PanelsProduct = Func<Ints<"y" | "x" | "w" | "bias" | "gate" | "left">>;

/**
 * Multiplies one row by several panels; `panels` are offsets from the first. y, w, bias and gate
 * are addresses of the first panel, `left` the number of the row's outputs from there. If the
 * weight is in blocks, x is quantised, and there may be several neighbouring rows.
 */
export function panelsWasm(
  m: ModuleBuilder,
  math: VectorMath,
  store: Store,
  shape: MatmulWasm,
  panels: readonly number[],
  rows = 1,
): PanelsProduct {
  const { blocks, reader } = wasmOf(shape.dtype);
  if (blocks) return blockPanelsWasm(m, math, store, shape, blocks, panels, rows);
  return linePanelsWasm(m, math, store, shape, panels, reader!);
}

/** The same for panels of floats. */
function linePanelsWasm(
  m: ModuleBuilder,
  math: VectorMath,
  store: Store,
  { N, K, dtype, options }: MatmulWasm,
  panels: readonly number[],
  makeReader: NonNullable<WasmFormat["reader"]>,
): PanelsProduct {
  const { pitch } = wasmOf(dtype).layout([N, K]);
  const columns = panels.flatMap((panel) =>
    Array.from({ length: VECTORS }, (_, i) => panel * PANEL_COLUMNS + 4 * i)
  );
  const vectorsOfTile = columns.map((column) => ({ row: 0, column, ofRow: 4 * column }));
  const storeAll = storeTileWasm(m, math, vectorsOfTile, options);
  const params = ints("y", "x", "w", "bias", "gate", "left");
  return m.define(params, "void", (f, { y, x, w, bias, gate, left }) => {
    const end = f.local("int", "end");
    const { input, broadcast } = f.locals(vectors("input", "broadcast"));
    const weights = f.array("v128", "weights", 2);
    const sums = f.array("v128", "sum", columns.length);
    // A base per panel: an engine that checks each access shares the check among equal offsets.
    const bases = panels.map((panel) => panel === 0 ? w : f.local("int", `w${panel}`));
    for (const [i, base] of bases.entries()) base.set(w.plus(panels[i] * pitch));

    const reader = makeReader([N, K], bases);
    const { streams, length } = reader;
    // Loaded weights lack the factor `unit`. x is multiplied by its root, so that no product
    // underflows F32, and the sums are multiplied by the root again.
    const root = Math.sqrt(reader.unit);
    const scaled = (v: Value<"v128">) => root === 1 ? v : v.times(root);

    /** Multiplies an input by its line of each panel, `line` lines after the stream's position. */
    const multiply = (stream: number, line: number, value: Value<"v128">) => {
      broadcast.set(value);
      for (const [i, sum] of sums.entries()) {
        const [panel, j] = [Math.floor(i / VECTORS), i % VECTORS];
        if (j % 2 === 0) reader.load(weights, { panel, stream, line, column: 4 * j });
        sum.set(math.madd(broadcast, weights[j % 2], sum));
      }
    };
    // Multiply, all streams.
    end.set(x.plus(4 * length));
    f.for(x, x, end, 4 * STEP, () => {
      for (let stream = 0; stream < streams; stream++) {
        input.set(scaled(v128.load(x, 4 * stream * length)));
        for (let k = 0; k < STEP; k++) multiply(stream, k, spread(input, k));
      }
      reader.advance(STEP);
    });
    // Multiply, remaining inputs: x and the bases are at the end of stream 0; the rest of K follows
    // the last stream.
    const last = streams - 1;
    for (let k = 0; k < K - streams * length; k++) {
      multiply(last, k, scaled(v128.load32Splat(x, 4 * (last * length + k))));
    }
    for (const sum of sums) sum.set(scaled(sum));
    // Epilogue.
    f.if(
      left.geS(columns[columns.length - 1] + 4),
      () => f.do(call(storeAll, { ...sumArgs(sums), y, bias, gate })),
      () => storeParts(f, store, vectorsOfTile, sums, { y, bias, gate, left }),
    );
  });
}
