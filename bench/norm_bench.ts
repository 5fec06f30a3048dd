import { normJs } from "../kernels/ops/norm.ts";
import { randomNumbers } from "../tests/testing.ts";
import { againstReading, type Share, sharesAfter } from "./measuring.ts";

/** T and C of GPT-2 and the demo: one token, and a chunk. */
const SHAPES: readonly [T: number, C: number][] = [[1, 768], [64, 768], [1, 256], [64, 256]];

const cases = SHAPES.flatMap(([T, C]) =>
  (["layer", "rms"] as const).map((kind) => {
    const [x, y] = [randomNumbers(T * C, 6), new Float32Array(T * C)];
    const options = { kind, weight: randomNumbers(C, 7), bias: randomNumbers(C, 8), eps: 1e-5 };
    return {
      name: `${kind} norm, ${T} rows of ${C}`,
      run: () => normJs(y, x, options, T),
      // Each kind reads x at least twice: for the mean or the squares, and for the result.
      arrays: [x, x],
    };
  })
);

for (const { name, run } of cases) Deno.bench(`${name} js`, run);

sharesAfter("norm", async () => {
  const shares: Share[] = [];
  for (const { name, run, arrays } of cases) {
    const { kernelMs, limitMs } = await againstReading(run, arrays);
    shares.push({ what: name, ms: kernelMs, limitMs, limit: "fastest two sums over x" });
  }
  return shares;
});
