/**
 * Matmul in WASM: dispatch by the number of rows. `mod.ts` has the formula and the shapes.
 *
 * The weight is in panels of 16 outputs, drawn in `formats/panels.ts`; an item is a panel.
 *
 *     rows    bound by         kernel
 *     1       memory           one row, two panels at a time           `wasm_row.ts`
 *     2, 3                     one row after another, one panel        `wasm_row.ts`
 *     ≥ 4     multiply-adds    register tiles; a panel is read once    `wasm_rows.ts`
 *     ≥ 2     the same, of blocks with x in 8 bits, which an entry
 *             before it quantises, its rows shared by all threads      `wasm_block_rows.ts`
 *
 * @module
 */
import { call, i32, ints } from "../../asm/assembler.ts";
import type {
  Func,
  FunctionBuilder,
  Int,
  Ints,
  Local,
  ModuleBuilder,
  Value,
} from "../../asm/assembler.ts";
import { defineKernel, type Items, type Kernel } from "../../asm/kernel.ts";
import type { VectorMath } from "../../asm/math.ts";
import type { BlockForm } from "../../formats/format.ts";
import { wasmOf } from "../../formats/mod.ts";
import { PANEL_COLUMNS } from "../../formats/panels.ts";
import { type Operand, readOnly, type WasmEntry, type WasmTarget } from "../contract.ts";
import { columnsOf, type MatmulCall, matmulOperands } from "./mod.ts";
import { type MatmulWasm, type Store, storeWasm } from "./wasm_epilogue.ts";
import { blockRowsWasm } from "./wasm_block_rows.ts";
import { quantisedBytes, quantiseWasm } from "./wasm_quantise.ts";
import { matmulRowWasm, panelsWasm, rowItems } from "./wasm_row.ts";
import { TILE_ROWS, tiledBytes, tileWasm, unpackedBytes, unpackWasm } from "./wasm_units.ts";
import { MIN_TILE_ROWS, packWasm, rowsScratch, rowsWasm } from "./wasm_rows.ts";

/** Bytes of a panel's line of outputs, in F32. */
const LINE = 4 * PANEL_COLUMNS;

/** Items of `matmulWasm`: panels, or pairs of panels if T = 1. */
function matmulItems({ T, N }: Pick<MatmulWasm, "T" | "N">): Items {
  return { count: T === 1 ? rowItems(N) : Math.ceil(N / PANEL_COLUMNS), perRow: false };
}

type Scratched = Pick<MatmulWasm, "T" | "K" | "dtype" | "activations" | "relaxed" | "simd">;

/** Rows that are multiplied side by side by a panel of blocks; three spill too many registers. */
const ROWS = 2;

/** Whether panels of blocks are unpacked for tiles of integer products. */
function isUnpacked({ T, dtype, activations }: Scratched): boolean {
  return T > 1 && activations === "int8" && !!wasmOf(dtype).blocks;
}

/** Bytes of quantised rows per thread. */
function rowsBytes(shape: Scratched): number {
  const { blocks } = wasmOf(shape.dtype);
  return blocks ? Math.min(shape.T, MIN_TILE_ROWS - 1) * quantisedBytes(shape, blocks) : 0;
}

/** Bytes of scratch per thread. */
function matmulScratch(shape: Scratched): number {
  const { T, K, dtype } = shape;
  if (isUnpacked(shape)) return unpackedBytes(K, wasmOf(dtype).blocks!, shape);
  return T < MIN_TILE_ROWS ? rowsBytes(shape) : Math.max(rowsScratch(shape), rowsBytes(shape));
}

/** Lowers the call to WASM kernels over panels. */
export function matmulEntries(call: MatmulCall, target: WasmTarget): WasmEntry[] {
  const { module, math } = target;
  const { y, x, weight, bias, gate } = matmulOperands(call);
  const { shape: [N, K], dtype } = call.weight;
  const options = { ...call.options, bias: !!bias, gate: !!gate };
  const { relaxed, simd } = math;
  const { activations } = target;
  const columns = columnsOf(call);
  const precision = { relaxed, simd, activations };
  const shape = { T: call.x.shape[0], N, K, dtype, ...precision, options, columns };
  const kernel = target.once("matmul", shape, (shape) => matmulWasm(module, math, shape));
  const scratch = target.threadScratch(matmulScratch(shape));
  const items = matmulItems(shape);
  const multiply = (x: Operand) => ({
    kernel,
    operands: [y, x, weight, bias, gate, scratch],
    items,
  });
  if (!isUnpacked(shape)) return [multiply(x)];
  const { T } = shape;
  const quantised = target.once("quantised rows", { T, K, dtype, ...precision }, (shape) => {
    const blocks = wasmOf(dtype).blocks!;
    return {
      kernel: quantiseTilesWasm(module, shape, blocks),
      to: target.scratch(tiledBytes(shape, blocks)),
    };
  });
  const { to } = quantised;
  const tiles = { count: Math.ceil(T / TILE_ROWS), perRow: false };
  return [
    { kernel: quantised.kernel, operands: [to, x], items: tiles },
    multiply(readOnly(to)),
  ];
}

/** Operands of the kernels: y [T, N], x [T, K], w, bias [N], gate [T, N]. */
const OPERANDS = ["y", "x", "w", "bias", "gate", "scratch"] as const;

/** The WASM form. */
function matmulWasm(m: ModuleBuilder, math: VectorMath, shape: MatmulWasm): Kernel {
  const { T, N, K, dtype, columns } = shape;
  const store = storeWasm(m, math, shape);
  if (T === 1) return matmulRowWasm(m, math, store, shape);
  const { blocks } = wasmOf(dtype);
  if (blocks && isUnpacked(shape)) return unpackedRowsWasm(m, math, store, shape, blocks);
  const quantise = blocks && quantiseWasm(m, shape, blocks);
  const rowByPanel = panelsWasm(m, math, store, shape, [0]);
  const rowPair = blocks && panelsWasm(m, math, store, shape, [0], ROWS);
  const tiled = T < MIN_TILE_ROWS
    ? null
    : { pack: packWasm(m, K), rowsByPanel: rowsWasm(m, math, store, shape) };
  return defineKernel(m, OPERANDS, (f, params) => {
    const { y, x, w, bias, gate, scratch, rows } = params;
    const { n, t, yt, xt, gt } = f.locals(ints("n", "t", "yt", "xt", "gt"));
    const ofPanel = { w, bias, left: f.int(N).minus(n) };
    const multiply = (product: typeof rowByPanel, count: number) => {
      f.do(call(product, { y: yt, x: xt, gate: gt, ...ofPanel }));
      yt.advance(count * columns.width * 4);
      xt.advance(count * (blocks ? quantisedBytes(shape, blocks) : K * 4));
      gt.advance(count * columns.width * 4);
    };
    const eachRow = () => {
      yt.set(y);
      xt.set(quantise ? scratch : x);
      gt.set(gate);
      t.set(0);
      if (rowPair) f.for(t, 0, rows.and(-ROWS), ROWS, () => multiply(rowPair, ROWS));
      f.for(t, t, rows, 1, () => multiply(rowByPanel, 1));
    };
    const eachPanel = panelLoop(f, m, params, shape, n);
    // Pack or quantise x, once per thread.
    const prepare = (isMine: Value<Int>, func: Func<Ints<"to" | "x" | "rows">>) =>
      f.if(m.unprepared.get.and(isMine), () => {
        f.do(call(func, { to: scratch, x, rows }));
        f.do(m.unprepared.set(0));
      });
    if (tiled) prepare(rows.ge(MIN_TILE_ROWS), tiled.pack);
    if (quantise) prepare(tiled ? rows.lt(MIN_TILE_ROWS) : i32.const(1), quantise);
    eachPanel(() => {
      if (tiled) {
        const { rowsByPanel } = tiled;
        const allRows = () => f.do(call(rowsByPanel, { y, x: scratch, gate, rows, ...ofPanel }));
        f.if(rows.ge(MIN_TILE_ROWS), allRows, eachRow);
      } else {
        eachRow();
      }
    });
  });
}

/** Addresses and work items of a kernel over panels. */
type PanelParams = Readonly<
  Record<"y" | "w" | "bias" | "gate" | "scratch" | "begin" | "end", Local<Int>>
>;

/**
 * Moves the addresses to the thread's scratch and the first panel; returns an emitter of the loop
 * over the items' panels, whose first output is `n`.
 */
function panelLoop(
  f: FunctionBuilder,
  m: ModuleBuilder,
  { y, w, bias, gate, scratch, begin, end }: PanelParams,
  shape: MatmulWasm,
  n: Local<Int>,
): (body: () => void) => void {
  const { N, K, dtype, columns } = shape;
  const { pitch } = wasmOf(dtype).layout([N, K]);
  if (columns.first) y.advance(4 * columns.first);
  w.advance(begin.times(pitch));
  for (const at of [y, bias, gate]) at.advance(begin.times(LINE));
  scratch.advance(m.thread.get.times(matmulScratch(shape)));
  return (body) =>
    f.for(n, begin.times(PANEL_COLUMNS), end.times(PANEL_COLUMNS), PANEL_COLUMNS, () => {
      body();
      w.advance(pitch);
      for (const at of [y, bias, gate]) at.advance(LINE);
    });
}

/** The form of blocks with x in 8 bits: panels are unpacked for tiles of integer products. */
function unpackedRowsWasm(
  m: ModuleBuilder,
  math: VectorMath,
  store: Store,
  shape: MatmulWasm,
  blocks: BlockForm,
): Kernel {
  const unpack = unpackWasm(m, shape, blocks);
  const product = blockRowsWasm(m, math, store, shape, blocks);
  return defineKernel(m, OPERANDS, (f, params) => {
    const { y, x, w, bias, gate, scratch: panel, rows } = params;
    const n = f.local("int", "n");
    const eachPanel = panelLoop(f, m, params, shape, n);
    eachPanel(() => {
      f.do(call(unpack, { to: panel, from: w }));
      const left = f.int(shape.N).minus(n);
      f.do(call(product, { y, x, w: panel, bias, gate, left, rows }));
    });
  });
}

/** Quantises x for `unpackedRowsWasm`; an item is a tile of rows, beyond the last row nothing. */
function quantiseTilesWasm(
  m: ModuleBuilder,
  shape: Pick<MatmulWasm, "K" | "relaxed" | "activations">,
  blocks: BlockForm,
): Kernel {
  const tile = tileWasm(m, shape, blocks);
  const tileBytes = tiledBytes({ ...shape, T: TILE_ROWS }, blocks);
  return defineKernel(m, ["to", "x"], (f, { to, x, rows, begin, end }) => {
    end.set(end.times(TILE_ROWS).min(rows));
    f.if(begin.times(TILE_ROWS).lt(end), () => {
      to.advance(begin.times(tileBytes));
      x.advance(begin.times(TILE_ROWS * 4 * shape.K));
      f.do(call(tile, { to, x, rows: end.minus(begin.times(TILE_ROWS)) }));
    });
  });
}
