import { normJs } from "../kernels/norm.ts";
import { randomNumbers } from "../tests/testing.ts";
import { interleave, sharesAfter, sumOf } from "./measuring.ts";

/** Rows and width: GPT-2 and the demo, one token and a chunk. */
const SHAPES: readonly [T: number, C: number][] = [[1, 768], [64, 768], [1, 256], [64, 256]];

const cases = SHAPES.flatMap(([T, C]) =>
  (["layer", "rms"] as const).map((kind) => {
    const [x, y] = [randomNumbers(T * C, 6), new Float32Array(T * C)];
    const options = { kind, weight: randomNumbers(C, 7), bias: randomNumbers(C, 8), eps: 1e-5 };
    return {
      name: `${kind} norm, ${T} rows of ${C}`,
      run: () => normJs(y, x, options, T),
      // Mean, squares and result: each form has to see x at least twice.
      limit: () => {
        sumOf(x);
        sumOf(x);
      },
    };
  })
);

for (const { name, run } of cases) Deno.bench(`${name} js`, run);

sharesAfter("norm", () =>
  cases.map(({ name, run, limit }) => {
    const { kernel, bound } = interleave({ bound: limit, kernel: run });
    return { what: name, ms: kernel, limitMs: bound, limit: "two sums over x" };
  }));
