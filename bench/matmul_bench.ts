import { matmulJs, matmulScratch, type Rows } from "../kernels/ops/matmul/mod.ts";
import type { WeightDtype } from "../kernels/formats/mod.ts";
import { randomNumbers } from "../tests/testing.ts";
import {
  againstReading,
  interleave,
  MULTIPLY_ADDS,
  multiplyAdds,
  type Share,
  sharesAfter,
  stored,
} from "./measuring.ts";

/** [N, K] of the linear layers of GPT-2 and of the demo, heads last. */
const SHAPES: readonly [N: number, K: number][] = [
  [768, 768],
  [2304, 768],
  [3072, 768],
  [768, 3072],
  [50257, 768],
  [256, 256],
  [768, 256],
  [1024, 256],
  [256, 1024],
  [65, 256],
];
const DTYPES: readonly WeightDtype[] = ["F32", "F16", "BF16"];

/** Rows of x in the compute-bound product. */
const T = 16;

/** Weights are made on first use: all of them would take a gigabyte. */
function product(N: number, K: number, dtype: WeightDtype, T: number) {
  let made: { run: () => void; words: Float32Array } | undefined;
  return () => {
    if (made) return made;
    const { data, words } = stored(N * K, dtype);
    const weight: Rows = { data, dtype, shape: [N, K] };
    const [x, y] = [randomNumbers(T * K, 4), new Float32Array(T * N)];
    const scratch = matmulScratch(dtype, K);
    made = { run: () => matmulJs(y, x, weight, {}, T, { scratch }), words };
    return made;
  };
}

for (const [N, K] of SHAPES) {
  for (const dtype of DTYPES) {
    const matvec = product(N, K, dtype, 1);
    Deno.bench({ name: `matvec ${N}×${K} ${dtype} js`, fn: () => matvec().run() });
    if (N > 4096) continue; // takes seconds per call, without a new result
    const matmul = product(N, K, dtype, T);
    Deno.bench({ name: `matmul ${N}×${K}, ${T} rows, ${dtype} js`, fn: () => matmul().run() });
  }
}

sharesAfter("matmul", async () => {
  const shares: Share[] = [];
  for (const [N, K] of SHAPES) {
    for (const dtype of DTYPES) {
      const { run, words } = product(N, K, dtype, 1)();
      const { kernelMs, limitMs } = await againstReading(run, [words]);
      const what = `matvec ${N}×${K} ${dtype}`;
      shares.push({ what, ms: kernelMs, limitMs, limit: "fastest sum over the same bytes" });
    }
  }
  for (const [N, K] of SHAPES.filter(([N]) => N <= 4096)) {
    for (const dtype of DTYPES) {
      const { run } = product(N, K, dtype, T)();
      const { kernel, limit } = await interleave({ limit: multiplyAdds, kernel: run });
      shares.push({
        what: `matmul ${N}×${K}, ${T} rows, ${dtype}`,
        ms: kernel,
        limitMs: limit * T * N * K / MULTIPLY_ADDS,
        limit: "multiply-adds from cache",
      });
    }
  }
  return shares;
});
