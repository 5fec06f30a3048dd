/**
 * Products of a prefill on WebGPU against those of another checkout, in turns in one process, so
 * that both meet the same load.
 *
 *     deno run -A bench/webgpu_products.ts --against FOLDER [--rows 64] [--pairs 30]
 *
 * Each product of GPT-2's shape runs once per layer of four. Prints the median and the quartiles of
 * the ratios of neighbours, this checkout by the other, and the least milliseconds of both.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { pathToFileURL } from "node:url";
import type { Recorder } from "../kernels/backend.ts";
import { fillFrom, randomNumbers } from "../tests/testing.ts";

const { values: flags } = parseArgs({
  options: {
    against: { type: "string" },
    rows: { type: "string", default: "64" },
    pairs: { type: "string", default: "30" },
  },
});
if (flags.against === undefined) {
  console.error('Cannot compare: expected --against and a checkout, got no "--against"');
  Deno.exit(2);
}
const [rows, pairs] = [Number(flags.rows), Number(flags.pairs)];
const [C, F, LAYERS] = [768, 3072, 4];
const STEP = { rows, position: 0, slot: 0, length: rows };

type Timer = () => Promise<number>;

/** The products of one checkout, by name. */
async function productsOf(folder: URL): Promise<Map<string, Timer>> {
  const { openWebGpuBackend }: typeof import("../kernels/webgpu/backend.ts") = await import(
    new URL("kernels/webgpu/backend.ts", folder).href
  );
  const backend = await openWebGpuBackend();
  const f32 = (width: number) => backend.tensor([rows, width], "F32", "activations");
  const [x, f, qkv] = [C, F, 3 * C].map(f32);
  const weights = async (N: number, K: number) => {
    const data = fillFrom(randomNumbers(N * K, 1));
    return await Promise.all(
      Array.from({ length: LAYERS }, () => backend.weight([N, K], "F32", data, { stored: "NK" })),
    );
  };
  const timer = async (build: (k: Recorder) => void): Promise<Timer> => {
    const plan = await backend.record(build);
    return async () => {
      const start = performance.now();
      plan.run(STEP);
      await backend.read(x, 0, 1);
      return performance.now() - start;
    };
  };
  const [cAttn, cFc, down] = [await weights(3 * C, C), await weights(F, C), await weights(C, F)];
  return new Map([
    ["cAttn", await timer((k) => cAttn.forEach((w) => k.matmul(qkv, x, w)))],
    ["cFc", await timer((k) => cFc.forEach((w) => k.matmul(f, x, w, { activation: "geluTanh" })))],
    ["down", await timer((k) => down.forEach((w) => k.matmul(x, f, w, { residual: true })))],
  ]);
}

const here = await productsOf(new URL("../", import.meta.url));
const there = await productsOf(pathToFileURL(`${flags.against}/`));
for (const [name, run] of here) {
  const other = there.get(name)!;
  for (const warmUp of [run, other]) await warmUp();
  const times: [number, number][] = [];
  for (let pair = 0; pair < pairs; pair++) {
    // The first of a pair finds other caches than the second.
    const first = pair % 2 ? null : await other();
    const ms = await run();
    times.push([ms, first ?? await other()]);
  }
  const ratios = times.map(([ms, other]) => ms / other).sort((a, b) => a - b);
  const [low, middle, high] = [1, 2, 3].map((n) => ratios[Math.floor(n * pairs / 4)].toFixed(2));
  const least = [0, 1].map((i) => Math.min(...times.map((pair) => pair[i])).toFixed(1));
  console.log(`${name.padEnd(6)} ${middle} (${low} to ${high}), least ms ${least.join(" and ")}`);
}
Deno.exit(0);
