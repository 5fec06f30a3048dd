/**
 * What a call of the recorder has to move and to calculate at the least, from its shapes: the yardstick that a profile holds times
 * against.
 *
 * Bytes are those of operands, each read or written once; of a table and of the cache only what a step looks at. Padding, scratch and
 * what is read twice are a kernel's own doing and do not count. A multiply-add is two operations; of exp, cos and the like, and of the
 * integers that noise is made of, there is no count.
 *
 * @module
 */
import type { Recorder } from "./backend.ts";
import type { Norm } from "./ops/norm.ts";
import type { Segment } from "./step.ts";
import { BYTES, type Weight } from "./formats/mod.ts";
import type { Tensor } from "./tensor.ts";

/** What one call takes in one step. */
export interface Cost {
  /** The kind of kernel: calls of one name are added up. */
  readonly name: string;
  readonly bytes: number;
  /** Multiplications and additions. */
  readonly flops: number;
}

/** A cost for each call of the recorder, of the same arguments. */
export type Costs = {
  readonly [Op in keyof Recorder]: (...args: Parameters<Recorder[Op]>) => Cost;
};

/** A call with the number of entries, or of dispatches, that a backend makes of it. */
export interface Part extends Cost {
  readonly entries: number;
}

const F32 = BYTES.F32;

/** What calls take in a step of one segment. */
export function costsFor({ rows, length }: Segment): Costs {
  return {
    embed(y, table, _ids, { scale = 1 } = {}) {
      const C = y.shape[1];
      const bytes = rows * C * (F32 + BYTES[table.dtype]);
      return { name: "embed", bytes, flops: scale === 1 ? 0 : rows * C };
    },
    addPosition(x, table) {
      const C = x.shape[1];
      const bytes = rows * C * (2 * F32 + BYTES[table.dtype]);
      return { name: "addPosition", bytes, flops: rows * C };
    },
    norm(_y, x, options) {
      const C = x.shape[1];
      const bytes = rows * C * F32 * (options.residual ? 3 : 2) + parametersOf(options);
      return { name: "norm", bytes, flops: rows * C * normFlops(options) };
    },
    matmul(_y, _x, weight, { bias, gate, residual } = {}) {
      const [N, K] = weight.shape;
      const perRow = K + N * (1 + (gate ? 1 : 0) + (residual ? 1 : 0));
      const bytes = N * K * BYTES[weight.dtype] + F32 * (rows * perRow + (bias ? N : 0));
      return { name: productName(weight), bytes, flops: 2 * rows * N * K };
    },
    writeKv(q, cache, qkv, { table, rotaryDim, qNorm, kNorm } = {}) {
      const [G, , D] = cache.k.shape;
      const heads = q.shape[1] / D + G;
      const rotary = table ? rotaryDim ?? table.shape[1] : 0;
      const norms = [qNorm, kNorm].filter((norm) => norm !== undefined);
      const normed = (qNorm ? q.shape[1] * normFlops(qNorm) : 0) +
        (kNorm ? G * D * normFlops(kNorm) : 0);
      const moved = rows * (2 * qkv.shape[1] + rotary);
      return {
        name: "writeKv",
        bytes: F32 * moved + norms.reduce((sum, norm) => sum + parametersOf(norm), 0),
        flops: rows * (3 * heads * rotary + normed), // of a pair of numbers, four products and two sums
      };
    },
    attention(y, _q, cache, { window = Infinity } = {}) {
      const [G, , D] = cache.k.shape;
      const HD = y.shape[1];
      let seen = 0; // by all rows together
      for (let row = 0; row < rows; row++) seen += Math.min(length - row, window);
      const keys = Math.min(length, window + rows - 1);
      const bytes = F32 * (2 * G * D * keys + 2 * rows * HD);
      return { name: "attention", bytes, flops: 4 * HD * seen };
    },
    sample(_ids, logits) {
      const V = logits.shape[1];
      return { name: "sample", bytes: V * (F32 + BYTES.U32), flops: 4 * V }; // scaled, penalised, noised, compared
    },
  };
}

/** Several costs as that of one kernel, which does not move `saved` bytes that its parts would hand on. */
export function mergeCosts(costs: readonly Cost[], saved: number): Cost {
  const sum = (key: "bytes" | "flops") => costs.reduce((total, cost) => total + cost[key], 0);
  const name = costs.map((cost) => cost.name).join(" + ");
  return { name, bytes: sum("bytes") - saved, flops: sum("flops") };
}

/** A recorder that hands on to `k` and notes what each call takes; `made` counts what `k` has made so far. */
export function noteCosts(
  k: Recorder,
  step: Segment,
  made: () => number,
): { readonly recorder: Recorder; readonly parts: Part[] } {
  const costs = costsFor(step);
  const parts: Part[] = [];
  const noted = <Args extends unknown[]>(
    call: (...args: Args) => void,
    cost: (...args: Args) => Cost,
  ) =>
  (...args: Args): void => {
    const before = made();
    call(...args);
    parts.push({ ...cost(...args), entries: made() - before });
  };
  return {
    parts,
    recorder: {
      embed: noted(k.embed, costs.embed),
      addPosition: noted(k.addPosition, costs.addPosition),
      norm: noted(k.norm, costs.norm),
      matmul: noted(k.matmul, costs.matmul),
      writeKv: noted(k.writeKv, costs.writeKv),
      attention: noted(k.attention, costs.attention),
      sample: noted(k.sample, costs.sample),
    },
  };
}

function productName({ shape: [N, K] }: Weight): string {
  return `matmul ${K}→${N}`;
}

/** Of each number: mean, deviation, its square, their sum, and two products; without the mean, square, sum and products. */
function normFlops({ kind, bias }: Norm): number {
  return (kind === "layer" ? 7 : 4) + (bias ? 1 : 0);
}

/** Bytes of a norm's weight and bias. */
function parametersOf({ weight, bias }: Norm): number {
  const bytes = (t?: Tensor) => t ? F32 * t.shape[0] : 0;
  return bytes(weight) + bytes(bias);
}
