/**
 * Embedding lookup: rows of a table of tokens or of learned positions.
 *
 *     embed:        y[t] = scale · table[ids[t]]           (zeros for an id outside the table)
 *     addPosition:  x[t] += table[position + t]
 *
 * y, x [T, C]; table [V, C] or [P, C]; ids [T] I32. As torch.nn.Embedding.
 *
 * @module
 */
import { expectTensor } from "../errors.ts";
import type { Step } from "../step.ts";
import {
  type Closure,
  type Cost,
  EACH_ROW,
  f32Of,
  type GpuDispatch,
  type GpuTarget,
  i32Of,
  mergeCosts,
  type Operand,
  reads,
  updates,
  type WasmEntry,
  type WasmTarget,
  writes,
} from "./contract.ts";
import type { Rows } from "./matmul/mod.ts";
import { weightWgsl } from "../formats/wgsl.ts";
import {
  BYTES,
  FORMATS,
  storedBytes,
  wasmOf,
  type Weight,
  type WeightDtype,
  wgslOf,
} from "../formats/mod.ts";
import type { Tensor } from "../tensor.ts";
import { f32x4, i32, ints, v128 } from "../asm/assembler.ts";
import type { ModuleBuilder } from "../asm/assembler.ts";
import { defineKernel, type Kernel } from "../asm/kernel.ts";
import { eachFour, storeLanes } from "../asm/lanes.ts";
import { mainWgsl, type Shader } from "../wgsl/shader.ts";

/** Options of `embed`. */
export interface EmbedOptions {
  /** Factor of every row; default 1, Gemma's is sqrt(C). */
  readonly scale?: number;
}

/** A checked call of `embed`. */
export interface EmbedCall {
  readonly op: "embed";
  readonly y: Tensor;
  readonly table: Weight;
  readonly ids: Tensor;
  readonly scale: number;
  /** Table [P, C] of an `addPosition` that was fused into the call. */
  readonly positions?: Weight;
}

/** A checked call of `addPosition`. */
export interface AddPositionCall {
  readonly op: "addPosition";
  readonly x: Tensor;
  readonly table: Weight;
}

/** @throws {RangeError} If the shapes do not fit each other. */
export function embedCall(
  y: Tensor,
  table: Weight,
  ids: Tensor,
  { scale = 1 }: EmbedOptions = {},
): EmbedCall {
  expectTensor("embed", "y", y, [y.shape[0], table.shape[1]]);
  expectTensor("embed", "ids", ids, [y.shape[0]], "I32");
  return { op: "embed", y, table, ids, scale };
}

/** @throws {RangeError} If the shapes do not fit each other. */
export function addPositionCall(x: Tensor, table: Weight): AddPositionCall {
  expectTensor("addPosition", "x", x, [x.shape[0], table.shape[1]]);
  return { op: "addPosition", x, table };
}

/** Operands and their access. */
export function embedOperands({ y, table, ids, positions }: EmbedCall) {
  return { y: writes(y), table: reads(table), ids: reads(ids), positions: reads(positions) };
}

/** Operands and their access. */
export function addPositionOperands({ x, table }: AddPositionCall) {
  return { x: updates(x), table: reads(table) };
}

/** Reads rows of the table, writes y. */
export function embedCost(call: EmbedCall, step: Pick<Step, "rows">): Cost {
  const { y, table, scale, positions } = call;
  const numbers = step.rows * y.shape[1];
  const bytes = numbers * BYTES.F32 + storedBytes(table.dtype, numbers);
  const embed = { name: "embed", bytes, flops: scale === 1 ? 0 : numbers };
  if (!positions) return embed;
  const added = addPositionCost({ x: y, table: positions }, step);
  return mergeCosts([embed, added], 2 * BYTES.F32 * numbers);
}

/** Reads rows of the table, reads and writes x. */
export function addPositionCost(
  { x, table }: Omit<AddPositionCall, "op">,
  { rows }: Pick<Step, "rows">,
): Cost {
  const numbers = rows * x.shape[1];
  const bytes = numbers * 2 * BYTES.F32 + storedBytes(table.dtype, numbers);
  return { name: "addPosition", bytes, flops: numbers };
}

/** Binds the call to typed arrays. */
export function bindEmbed(call: EmbedCall): Closure {
  const [y, ids, table] = [f32Of(call.y), i32Of(call.ids), call.table as Rows];
  return ({ rows }) => embedJs(y, table, ids, call, rows);
}

/** Binds the call to typed arrays. */
export function bindAddPosition(call: AddPositionCall): Closure {
  const [x, table] = [f32Of(call.x), call.table as Rows];
  const row = new Float32Array(table.shape[1]);
  return ({ rows, position }) => addPositionJs(x, table, position, rows, row);
}

/** The plain form, and oracle of the others. */
export function embedJs(
  y: Float32Array,
  { data, dtype, shape: [V, C] }: Rows,
  ids: Int32Array,
  { scale = 1 }: EmbedOptions,
  T: number,
): void {
  const { decode } = FORMATS[dtype];
  const rowBytes = storedBytes(dtype, C);
  for (let t = 0; t < T; t++) {
    const row = y.subarray(t * C, t * C + C);
    // Steps queued behind a failed sample read its sentinel id; the host drops their results.
    if (ids[t] < 0 || ids[t] >= V) row.fill(0);
    else decode(row, data.subarray(ids[t] * rowBytes, (ids[t] + 1) * rowBytes));
    if (scale !== 1) { for (let c = 0; c < C; c++) row[c] *= scale; }
  }
}

/** The plain form, and oracle of the others. `row` is scratch [C]. */
export function addPositionJs(
  x: Float32Array,
  { data, dtype, shape: [, C] }: Rows,
  position: number,
  T: number,
  row: Float32Array = new Float32Array(C),
): void {
  const { decode } = FORMATS[dtype];
  const rowBytes = storedBytes(dtype, C);
  for (let t = 0; t < T; t++) {
    const at = (position + t) * rowBytes;
    decode(row, data.subarray(at, at + rowBytes));
    for (let c = 0; c < C; c++) x[t * C + c] += row[c];
  }
}

/** A table, or the part of it in one buffer. */
interface TableWgsl {
  readonly dtype: WeightDtype;
  /** Rows first … first + count, if the table exceeds one binding. */
  readonly first: number;
  readonly count: number;
}

/** Constants of the shader of `embed` and `addPosition`. */
export interface EmbedWgsl {
  readonly V: number;
  readonly C: number;
  /** Lanes of a workgroup. */
  readonly lanes: number;
  /** "ids": row ids[t] overwrites y[t]; "position": row position + t is added to it. */
  readonly table: TableWgsl;
  readonly by: "ids" | "position";
  readonly scale: number;
  /** Dtype of the fused `addPosition`'s table, which fits one binding. */
  readonly positions?: WeightDtype;
}

/** Workgroups of a step: a lane per group of four numbers. */
function embedGroups({ C, lanes }: EmbedWgsl, rows: number): number {
  return Math.ceil(rows * Math.ceil(C / 4) / lanes);
}

/**
 * The WGSL form: a lane computes four numbers of a row. Bindings: 0 y, 1 ids, 2 table, 3 positions;
 * tables are in panels (`formats/wgsl.ts`). `run` and `index_of` come from `PRELUDE`.
 */
export function embedWgsl({ V, C, lanes, table, by, scale, positions }: EmbedWgsl): Shader {
  const { dtype, first, count } = table;
  const assign = by === "ids" ? "=" : "+=";
  // The first part writes the zeros of ids outside the table.
  const mine = first === 0 ? `inside || id < 0 || id >= ${V}` : "inside";
  const declare = (name: string, binding: number, dtype: WeightDtype) =>
    weightWgsl(wgslOf(dtype), { name, binding, K: C });
  const tables = positions ? [dtype, positions] : [dtype];
  const formats = new Set(tables.map((dtype) => wgslOf(dtype).declare)); // once if they share it
  const wgsl = /* wgsl */ `
@group(1) @binding(0) var<storage, read_write> y: array<f32>;
${by === "ids" ? "@group(1) @binding(1) var<storage, read> ids: array<i32>;" : ""}
${[...formats].join("\n")}
${declare("table", 2, dtype)}
${positions ? declare("positions", 3, positions) : ""}

const C = ${C}u;
const GROUPS = ${Math.ceil(C / 4)}u;

${mainWgsl(lanes)} {
  let i = index_of(group, grid) * ${lanes}u + lane;
  let t = i / GROUPS;
  let k = i % GROUPS;
  if (t >= run.rows) { return; }
  let id = ${by === "ids" ? "ids[t]" : "i32(run.position + t)"};
  let inside = id >= ${first} && id < ${first + count};
  if (!(${mine})) { return; }
  var v = vec4f(0.0);
  if (inside) { v = table_four(u32(id) - ${first}u, k) * f32(${scale}); }
  ${positions ? "v += positions_four(run.position + t, k);" : ""}
  let at = t * C + 4u * k;
  y[at] ${assign} v.x;
  if (4u * k + 1u < C) { y[at + 1u] ${assign} v.y; }
  if (4u * k + 2u < C) { y[at + 2u] ${assign} v.z; }
  if (4u * k + 3u < C) { y[at + 3u] ${assign} v.w; }
}
`;
  return { wgsl, workgroupBytes: 0 };
}

/** Lowers the call to a dispatch for each part of the table. */
export function embedDispatches(call: EmbedCall, target: GpuTarget): GpuDispatch[] {
  const { y, table, ids, positions } = embedOperands(call);
  const added = positions && target.parts(positions);
  if (call.positions && added && added.length > 1) {
    // A table of positions in several parts is not fused: it takes dispatches of its own.
    const add: AddPositionCall = { op: "addPosition", x: call.y, table: call.positions };
    const embed = embedDispatches({ ...call, positions: undefined }, target);
    return [...embed, ...addPositionDispatches(add, target)];
  }
  const constants = { by: "ids", scale: call.scale, positions: call.positions?.dtype } as const;
  const operands = (part: Operand) => [y, ids, part, added?.[0].operand];
  return tableDispatches("embed", table, constants, operands, target);
}

/** Lowers the call to a dispatch for each part of the table. */
export function addPositionDispatches(call: AddPositionCall, target: GpuTarget): GpuDispatch[] {
  const { x, table } = addPositionOperands(call);
  const operands = (part: Operand) => [x, undefined, part];
  return tableDispatches("addPosition", table, { by: "position", scale: 1 }, operands, target);
}

/** Dispatches for each part of a table; `operands` gives the bindings around the part. */
function tableDispatches(
  op: string,
  table: Operand,
  of: Pick<EmbedWgsl, "by" | "scale" | "positions">,
  operands: (part: Operand) => readonly (Operand | undefined)[],
  target: GpuTarget,
): GpuDispatch[] {
  const { shape: [V, C], dtype } = table.of as Weight;
  const lanes = target.software ? 32 : 64;
  return target.parts(table).map(({ first, count, operand }) => {
    const constants: EmbedWgsl = { V, C, lanes, table: { dtype, first, count }, ...of };
    return {
      op,
      ...embedWgsl(constants),
      operands: operands(operand),
      groups: (rows) => embedGroups(constants, rows),
    };
  });
}

/** Lowers the call to a WASM kernel over rows. */
export function embedEntries(call: EmbedCall, target: WasmTarget): WasmEntry[] {
  const { y, table, ids } = embedOperands(call);
  const constants = { table: tableShape(call.table), scale: call.scale };
  const kernel = target.once(
    "embed",
    constants,
    ({ table, scale }) => embedWasm(target.module, table, scale),
  );
  return [{ kernel, operands: [y, table, ids], items: EACH_ROW }];
}

/** Lowers the call to a WASM kernel over rows. */
export function addPositionEntries(call: AddPositionCall, target: WasmTarget): WasmEntry[] {
  const { x, table } = addPositionOperands(call);
  const kernel = target.once(
    "addPosition",
    tableShape(call.table),
    (table) => addPositionWasm(target.module, table),
  );
  return [{ kernel, operands: [x, table], items: EACH_ROW }];
}

function tableShape({ shape: [V, C], dtype }: Weight): TableWasm {
  return { V, C, dtype };
}

/** Constants of the WASM forms. */
interface TableWasm {
  readonly V: number;
  readonly C: number;
  readonly dtype: WeightDtype;
}

/** WASM form of `embed`: an item is a row. */
function embedWasm(m: ModuleBuilder, { V, C, dtype }: TableWasm, scale: number): Kernel {
  return defineKernel(m, ["y", "table", "ids"], (f, { y, table, ids, begin, end }) => {
    const { t, id, to } = f.locals(ints("t", "id", "to"));
    f.for(t, begin, end, 1, () => {
      id.set(i32.load(ids.plus(t.shl(2))));
      to.set(y.plus(t.times(4 * C)));
      f.if(id.lt(V), () => {
        wasmOf(dtype).eachOfRow(f, table, id, [V, C], (v, at, lanes) => {
          const scaled = scale === 1 ? v : v.times(scale);
          storeLanes(f, to.plus(at), scaled, lanes);
        });
      }, () => {
        const at = f.local("int", "at");
        eachFour(f, at, C, (lanes) => storeLanes(f, to.plus(at), f32x4.splat(0), lanes));
      });
    });
  });
}

/** WASM form of `addPosition`: an item is a row. */
function addPositionWasm(m: ModuleBuilder, { V, C, dtype }: TableWasm): Kernel {
  return defineKernel(m, ["x", "table"], (f, { x, table, position, begin, end }) => {
    const { t, row, to } = f.locals(ints("t", "row", "to"));
    f.for(t, begin, end, 1, () => {
      row.set(position.plus(t));
      to.set(x.plus(t.times(4 * C)));
      wasmOf(dtype).eachOfRow(f, table, row, [V, C], (v, at, lanes) => {
        storeLanes(f, to.plus(at), v128.load(to.plus(at)).plus(v), lanes);
      });
    });
  });
}
