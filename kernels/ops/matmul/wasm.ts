/**
 * The WASM form of the matrix product; `mod.ts` has the formula and the shapes.
 *
 * The weight is in panels of 16 outputs, which `formats/panels.ts` draws. Many rows are bound by
 * multiply-adds: a panel is a work item, and passes through the cache once (`wasm_rows.ts`). A
 * single row is bound by memory (`wasm_row.ts`). Two or three rows go one by one.
 *
 * @module
 */
import { call, i32, ints, type ModuleBuilder } from "../../asm/assembler.ts";
import { defineKernel, type Items, type Kernel } from "../../asm/kernel.ts";
import type { VectorMath } from "../../asm/math.ts";
import { FORMATS } from "../../formats/mod.ts";
import { PANEL_COLUMNS } from "../../formats/panels.ts";
import type { WasmEntry, WasmTarget } from "../contract.ts";
import { type MatmulCall, matmulOperands } from "./mod.ts";
import { type MatmulWasm, storeWasm } from "./wasm_epilogue.ts";
import { matmulRowWasm, panelsWasm, rowItems } from "./wasm_row.ts";
import { MANY, packWasm, rowsScratch, rowsWasm } from "./wasm_rows.ts";

/** Bytes of a panel's line, wide: the outputs of one input. */
const LINE = 4 * PANEL_COLUMNS;

/** Items of `matmulWasm`: panels, or under one row pairs of them. */
function matmulItems({ T, N }: Pick<MatmulWasm, "T" | "N">): Items {
  return { count: T === 1 ? rowItems(N) : Math.ceil(N / PANEL_COLUMNS), perRow: false };
}

/** Bytes of scratch that each thread needs. */
function matmulScratch(shape: Pick<MatmulWasm, "T" | "K" | "dtype">): number {
  return shape.T < MANY ? 0 : rowsScratch(shape);
}

/** The call on the CPU. */
export function matmulEntries(call: MatmulCall, target: WasmTarget): WasmEntry[] {
  const { module, math } = target;
  const { y, x, weight, bias, gate } = matmulOperands(call);
  const { shape: [N, K], dtype } = call.weight;
  const options = { ...call.options, bias: !!bias, gate: !!gate };
  const shape = { T: call.x.shape[0], N, K, dtype, relaxed: math.relaxed, options };
  const kernel = target.once("matmul", shape, (shape) => matmulWasm(module, math, shape));
  const scratch = target.threadScratch(matmulScratch(shape));
  return [{ kernel, operands: [y, x, weight, bias, gate, scratch], items: matmulItems(shape) }];
}

/** The WASM form: y [T, N], x [T, K], bias [N], gate [T, N]. */
function matmulWasm(m: ModuleBuilder, math: VectorMath, shape: MatmulWasm): Kernel {
  const { T, N, K, dtype } = shape;
  const store = storeWasm(m, math, shape);
  if (T === 1) return matmulRowWasm(m, math, store, shape);
  const { pitch } = FORMATS[dtype].wasm.layout([N, K]);
  const one = panelsWasm(m, math, store, shape, [0]);
  const many = T < MANY ? null : { pack: packWasm(m, K), product: rowsWasm(m, math, store, shape) };
  return defineKernel(m, ["y", "x", "w", "bias", "gate", "scratch"], (f, params) => {
    const { y, x, w, bias, gate, scratch, rows, begin, end } = params;
    const { n, t, yt, xt, gt } = f.locals(ints("n", "t", "yt", "xt", "gt"));
    const ofPanel = { w, bias, left: i32.const(N).minus(n) };
    const oneByOne = () => {
      yt.set(y);
      xt.set(x);
      gt.set(gate);
      f.for(t, 0, rows, 1, () => {
        f.do(call(one, { y: yt, x: xt, gate: gt, ...ofPanel }));
        yt.advance(N * 4);
        xt.advance(K * 4);
        gt.advance(N * 4);
      });
    };
    // First panel.
    w.advance(begin.times(pitch));
    for (const at of [y, bias, gate]) at.advance(begin.times(LINE));
    if (many) {
      // Pack x, once a thread.
      scratch.advance(m.thread.get.times(matmulScratch(shape)));
      f.if(m.unprepared.get.and(rows.ge(MANY)), () => {
        f.do(call(many.pack, { to: scratch, x, rows }));
        f.do(m.unprepared.set(0));
      });
    }
    f.for(n, begin.times(PANEL_COLUMNS), end.times(PANEL_COLUMNS), PANEL_COLUMNS, () => {
      if (many) {
        const together = () => f.do(call(many.product, { y, x: scratch, gate, rows, ...ofPanel }));
        f.if(rows.ge(MANY), together, oneByOne);
      } else {
        oneByOne();
      }
      w.advance(pitch);
      for (const at of [y, bias, gate]) at.advance(LINE);
    });
  });
}
