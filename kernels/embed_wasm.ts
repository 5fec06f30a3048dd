/**
 * The WASM forms of `embed` and `addPosition`; `embed.ts` has the formulas and the shapes.
 *
 * A row of a table lies across its panel: its numbers are picked up one by one, four of them a vector.
 *
 * @module
 */
import { BYTES, type WeightDtype } from "./tensor.ts";
import { f32x4, i32, i32x4, type ModuleBuilder, v128 } from "./wasm/assembler.ts";
import type { FunctionBuilder, Local, Value } from "./wasm/assembler.ts";
import { defineKernel, type Kernel } from "./wasm/kernel.ts";
import { eachFour, storeLanes, VECTOR_BYTES } from "./wasm/lanes.ts";
import { PANEL_COLUMNS, panelLayout } from "./wasm/panels.ts";
import { widenHigh } from "./wasm/widen.ts";

/** The constants that the WASM forms are specialised on. */
export interface TableWasm {
  readonly V: number;
  readonly C: number;
  readonly dtype: WeightDtype;
}

/** Addresses of y, table, ids; an item is a row. */
export function embedWasm(m: ModuleBuilder, shape: TableWasm, scale: number): Kernel {
  const { V, C } = shape;
  return defineKernel(m, 3, (f, [y, table, ids], { begin, end }) => {
    const [t, id, to] = [0, 1, 2].map(() => f.local("i32"));
    f.for(t, begin, end, 1, () => {
      f.set(id, i32.load(i32.add(ids, i32.shl(t, 2))));
      f.set(to, i32.add(y, i32.mul(t, 4 * C)));
      f.if(i32.ltU(id, V), () => {
        eachOfRow(f, table, id, shape, (v, at, lanes) => {
          const scaled = scale === 1 ? v : f32x4.mul(v, f32x4.splat(scale));
          storeLanes(f, i32.add(to, at), scaled, lanes);
        });
      }, () => {
        const at = f.local("i32");
        eachFour(f, at, C, (lanes) => storeLanes(f, i32.add(to, at), f32x4.splat(0), lanes));
      });
    });
  });
}

/** Addresses of x, table; an item is a row. */
export function addPositionWasm(m: ModuleBuilder, shape: TableWasm): Kernel {
  return defineKernel(m, 2, (f, [x, table], { position, begin, end }) => {
    const [t, row, to] = [0, 1, 2].map(() => f.local("i32"));
    f.for(t, begin, end, 1, () => {
      f.set(row, i32.add(position, t));
      f.set(to, i32.add(x, i32.mul(t, 4 * shape.C)));
      eachOfRow(f, table, row, shape, (v, at, lanes) => {
        storeLanes(f, i32.add(to, at), f32x4.add(v128.load(i32.add(to, at)), v), lanes);
      });
    });
  });
}

/** Walks the numbers of a row by fours, wide; `at` is their place in a row of F32, in bytes. */
function eachOfRow(
  f: FunctionBuilder,
  table: Local<"i32">,
  row: Local<"i32">,
  { V, C, dtype }: TableWasm,
  body: (v: Local<"v128">, at: Local<"i32">, lanes: number) => void,
): void {
  const [from, at] = [f.local("i32"), f.local("i32")];
  const v = f.local("v128");
  const line = PANEL_COLUMNS * BYTES[dtype];
  const { parts, inputs, pitch, apart } = panelLayout([V, C], dtype);
  const panel = i32.mul(i32.shrU(row, 4), pitch);
  f.set(from, i32.add(i32.add(table, panel), placeOf(row, dtype)));
  eachFour(f, at, C, (lanes) => {
    f.set(v, i32x4.splat(0));
    for (let lane = 0; lane < lanes; lane++) {
      // A 16-bit number goes to the upper half of its lane.
      const loaded = dtype === "F32"
        ? v128.load32Lane(from, v, lane, lane * line)
        : v128.load16Lane(from, v, 2 * lane + 1, lane * line);
      f.set(v, loaded);
    }
    if (dtype !== "F32") f.set(v, widenHigh(v, dtype));
    body(v, at, lanes);
    f.set(from, i32.add(from, 4 * line));
    if (parts > 1) {
      const partEnds = i32.eqz(i32.remU(i32.add(at, VECTOR_BYTES), inputs * BYTES.F32));
      f.if(partEnds, () => f.set(from, i32.add(from, apart - pitch)));
    }
  });
}

/** Byte of a column within its line of a panel; `panels.ts` has the order. */
function placeOf(row: Local<"i32">, dtype: WeightDtype): Value<"i32"> {
  if (dtype === "F32") return i32.shl(i32.and(row, 15), 2);
  // Columns i and i + 4 of eight are one word.
  const word = i32.or(i32.shl(i32.and(row, 3), 2), i32.shl(i32.and(row, 8), 1));
  return i32.or(word, i32.shrU(i32.and(row, 4), 1));
}
