/**
 * Product of one row with quantised weights on WebGPU, relative to F32, at GPT-2's shapes.
 *
 * `deno run -A bench/webgpu_quantised.ts [Q8_0] [Q4_0] …`; medians of interleaved rounds. Each
 * weight is a layer's of several, in turn, so that caches hold none of them.
 *
 * @module
 */
import { isWeightDtype, type WeightDtype } from "../kernels/formats/mod.ts";
import { openWebGpuBackend } from "../kernels/webgpu/backend.ts";
import { fillFrom, randomNumbers } from "../tests/testing.ts";
import { randomBlocks } from "../tests/kernels/twins_blocks.ts";
import { median } from "./measuring.ts";

const ROUNDS = 9;

/** Bytes of a weight in F32 and all its copies. */
const COPIES_BYTES = 64 << 20;

const SHAPES = [[2304, 768], [768, 768], [3072, 768], [768, 3072]];

const STEP = { rows: 1, position: 0, slot: 0, length: 1 };

const names = Deno.args.length ? Deno.args : ["Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K"];
const dtypes = names.filter(isWeightDtype);
const unknown = names.find((name) => !isWeightDtype(name));
if (unknown !== undefined) {
  console.error(`Cannot measure "${unknown}": expected dtypes of weights, such as Q8_0`);
  Deno.exit(2);
}

await using backend = await openWebGpuBackend();
console.log(backend.description);

/** A run of the products of all copies: milliseconds of one product. */
async function product(dtype: WeightDtype, N: number, K: number): Promise<() => Promise<number>> {
  const copies = Math.ceil(COPIES_BYTES / (4 * N * K));
  const data = dtype === "F32" ? randomNumbers(N * K, 1) : randomBlocks(dtype, N * K, 1);
  const weights = await Promise.all(
    Array.from(
      { length: copies },
      () => backend.weight([N, K], dtype, fillFrom(data), { stored: "NK" }),
    ),
  );
  const x = backend.tensor([1, K], "F32", "activations");
  const y = backend.tensor([1, N], "F32", "activations");
  backend.write(x, randomNumbers(K, 2));
  const plan = await backend.record((k) => weights.forEach((weight) => k.matmul(y, x, weight)));
  return async () => {
    const start = performance.now();
    plan.run(STEP);
    await backend.read(y, 0, 1);
    return (performance.now() - start) / copies;
  };
}

const lines = [];
for (const [N, K] of SHAPES) {
  const works = new Map<WeightDtype, () => Promise<number>>();
  for (const dtype of ["F32", ...dtypes] as const) works.set(dtype, await product(dtype, N, K));
  const times = new Map([...works.keys()].map((dtype) => [dtype, [] as number[]]));
  for (const run of works.values()) await run(); // compiles
  for (let round = 0; round < ROUNDS; round++) {
    for (const [dtype, run] of works) times.get(dtype)!.push(await run());
  }
  const plain = median(times.get("F32")!);
  for (const dtype of dtypes) {
    const ms = median(times.get(dtype)!);
    lines.push({
      what: `1 × ${K} → ${N} ${dtype}`,
      "F32's ms": Number(plain.toPrecision(3)),
      ms: Number(ms.toPrecision(3)),
      "times faster": Number((plain / ms).toFixed(2)),
    });
  }
}
console.table(lines);
