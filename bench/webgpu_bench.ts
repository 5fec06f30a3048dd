/**
 * Benches of each WGSL kernel at the shapes of GPT-2 and the demo, against the adapter's limits
 * measured in the same run. On a software adapter only the ratios mean something.
 *
 * @module
 */
import type { Backend, Plan, Recorder, Segment } from "../kernels/backend.ts";
import { matmulJs, matmulScratch } from "../kernels/ops/matmul/mod.ts";
import type { WeightDtype } from "../kernels/formats/mod.ts";
import type { Tensor } from "../kernels/tensor.ts";
import { openWebGpuBackend } from "../kernels/webgpu/backend.ts";
import { openGpu } from "../kernels/webgpu/device.ts";
import { LIMIT_FLOPS, multiplyCall, readCall } from "../kernels/webgpu/limits.ts";
import { Compiler, type ShaderCall } from "../kernels/webgpu/pipeline.ts";
import { StepQueue } from "../kernels/webgpu/queue.ts";
import { fillFrom, randomNumbers } from "../tests/testing.ts";
import { median, type Share, sharesAfter, stored } from "./measuring.ts";

interface Shape {
  readonly name: string;
  readonly C: number;
  readonly H: number;
  readonly F: number;
  readonly V: number;
  readonly S: number;
}

const DTYPES: readonly WeightDtype[] = ["F32", "F16", "BF16"];

const SHAPES: readonly Shape[] = [
  { name: "GPT-2", C: 768, H: 12, F: 3072, V: 50257, S: 1024 },
  { name: "demo", C: 256, H: 8, F: 1024, V: 65, S: 512 },
];

/** Rows of a prefill. */
const ROWS = 128;

/** Bytes read by the limits: within a cache, and beyond it. */
const [NEAR_BYTES, FAR_BYTES] = [4 << 20, 64 << 20];

/** Rounds of each work, and minimum milliseconds of each. */
const [ROUNDS, TURN_MS] = [7, 20];

interface Case {
  readonly name: string;
  readonly step: Segment;
  readonly out: Tensor;
  readonly build: (k: Recorder) => void;
  readonly bytes?: number;
  readonly flops?: number;
}

async function casesOf(backend: Backend, shape: Shape, dtype: WeightDtype, T: number) {
  const { C, H, F, V, S } = shape;
  const D = C / H;
  const f32 = (...extents: number[]) => backend.tensor(extents, "F32", "activations");
  const weight = (N: number, K: number) =>
    backend.weight([N, K], dtype, () => {}, { stored: "NK" });
  const [x, n, qkv, q, y, f] = [C, C, 3 * C, C, C, F].map((width) => f32(T, width));
  const cache = { k: f32(H, S, D), v: f32(H, S, D) };
  const ids = backend.tensor([T], "I32", "activations");
  const norm = { kind: "layer" as const, weight: f32(C), bias: f32(C), eps: 1e-5 };
  const step = { rows: T, position: S - T, slot: S - T, length: S };
  const cases: Case[] = [];
  const add = (
    name: string,
    out: Tensor,
    build: Case["build"],
    work: Pick<Case, "bytes" | "flops"> = {},
  ) => cases.push({ name: `${shape.name} ${name}, ${T} rows`, step, out, build, ...work });
  const product = (N: number, K: number) => ({
    bytes: N * K * (dtype === "F32" ? 4 : 2) + 4 * T * (N + K),
    flops: 2 * N * K * T,
  });
  const [qkvW, projW, fcW, downW] = [
    await weight(3 * C, C),
    await weight(C, C),
    await weight(F, C),
    await weight(C, F),
  ];
  const [wte, wpe] = [await weight(V, C), await weight(S, C)];
  add("embed", x, (k) => {
    k.embed(x, wte, ids);
    k.addPosition(x, wpe);
  }, { bytes: 12 * T * C });
  add("norm", n, (k) => k.norm(n, x, norm), { bytes: 8 * T * C });
  add(`matmul ${3 * C}×${C} ${dtype}`, qkv, (k) => k.matmul(qkv, n, qkvW), product(3 * C, C));
  add("writeKv", q, (k) => k.writeKv(q, cache, qkv), { bytes: 24 * T * C });
  add(`attention over ${S}`, y, (k) => k.attention(y, q, cache), {
    bytes: 8 * S * C,
    flops: 4 * C * T * (S - T / 2),
  });
  add(`matmul ${C}×${C} ${dtype}`, x, (k) => k.matmul(x, y, projW), product(C, C));
  add(
    `matmul ${F}×${C} ${dtype} gelu`,
    f,
    (k) => k.matmul(f, n, fcW, { activation: "geluTanh" }),
    product(F, C),
  );
  add(`matmul ${C}×${F} ${dtype}`, x, (k) => k.matmul(x, f, downW), product(C, F));
  if (T > 1) return cases;
  const logits = f32(1, V);
  add(`matmul ${V}×${C} ${dtype}`, logits, (k) => k.matmul(logits, n, wte), product(V, C));
  for (
    const [what, settings] of Object.entries({ greedy: [0, 0, 1, 1], "top-k": [0.9, 40, 1, 1] })
  ) {
    const sampling = {
      settings: backend.tensor([4], "F32", "activations"),
      counter: backend.tensor([3], "U32", "activations"),
      seen: backend.tensor([V], "U32", "activations"),
      drawn: backend.tensor([1], "I32", "activations"),
    };
    backend.write(sampling.settings, Float32Array.from(settings));
    add(`sample ${what}`, ids, (k) => k.sample(ids, logits, sampling), { bytes: 8 * V });
  }
  return cases;
}

/** Runs `count` times and waits for the result; returns milliseconds per run. */
type Work = (count: number) => Promise<number>;

function planWork(backend: Backend, plan: Plan, { step, out }: Case): Work {
  return async (count) => {
    const start = performance.now();
    for (let i = 0; i < count; i++) plan.run(step);
    await backend.read(out, 0, 1);
    return (performance.now() - start) / count;
  };
}

/** The two limits, on their own device. */
async function openLimits() {
  const gpu = await openGpu();
  const queue = new StepQueue(gpu);
  const compiler = new Compiler(gpu, queue);
  const out = gpu.storage(4, "staging");
  const [near, far] = [NEAR_BYTES, FAR_BYTES].map((bytes) => gpu.storage(bytes, "staging"));
  const work = async (call: ShaderCall): Promise<Work> => {
    const dispatch = await compiler.prepare(call);
    return async (count) => {
      const start = performance.now();
      const step = { rows: 1, position: 0, slot: 0, length: 1 };
      for (let i = 0; i < count; i++) queue.run(step, [dispatch]);
      await queue.read(out, 0, 4);
      return (performance.now() - start) / count;
    };
  };
  return {
    near: await work(readCall(near, out)),
    far: await work(readCall(far, out)),
    multiply: await work(multiplyCall(out)),
    async close() {
      gpu.close();
      await queue.settle();
    },
  };
}

/** Median milliseconds of each work, in interleaved rounds. */
async function interleave(works: readonly Work[]): Promise<number[]> {
  const measured = [];
  for (const work of works) {
    await work(1); // compiles
    const once = await work(1);
    const count = Math.min(64, Math.max(1, Math.round(TURN_MS / once)));
    measured.push({ work, count, times: [] as number[] });
  }
  for (let round = 0; round < ROUNDS; round++) {
    for (const { work, count, times } of measured) times.push(await work(count));
  }
  return measured.map(({ times }) => median(times));
}

async function measure(shape: Shape, dtype: WeightDtype, T: number): Promise<Share[]> {
  await using backend = await openWebGpuBackend();
  const limits = await openLimits();
  const cases = await casesOf(backend, shape, dtype, T);
  const works: Work[] = [];
  for (const one of cases) {
    works.push(planWork(backend, await backend.record(one.build), one));
  }
  const [nearMs, farMs, multiplyMs, ...times] = await interleave([
    limits.near,
    limits.far,
    limits.multiply,
    ...works,
  ]);
  await limits.close();
  return cases.map(({ name, bytes = 0, flops = 0 }, i) => {
    // A weight that fits in a cache is read from there when its product is repeated.
    const isNear = bytes <= 4 * NEAR_BYTES;
    const reading = bytes * (isNear ? nearMs / NEAR_BYTES : farMs / FAR_BYTES);
    const multiplying = flops / LIMIT_FLOPS * multiplyMs;
    const limit = multiplying > reading
      ? "multiply-adds"
      : isNear
      ? "reading, from a cache"
      : "reading, from memory";
    return { what: name, ms: times[i], limitMs: Math.max(reading, multiplying), limit };
  });
}

/** Matmul speed-up of this adapter over single-threaded typed arrays, at GPT-2's shapes. */
async function printAgainstTypedArrays(): Promise<void> {
  const [{ C, F, V }] = SHAPES;
  const products = [[1, 3 * C, C], [1, C, C], [1, F, C], [1, C, F], [1, V, C], [ROWS, F, C]];
  const lines = [];
  for (const dtype of DTYPES) {
    for (const [T, N, K] of products) {
      const { data } = stored(N * K, dtype);
      const [xs, ys] = [randomNumbers(T * K, 4), new Float32Array(T * N)];
      const scratch = matmulScratch(dtype, K);
      const js: Work = (count) => {
        const start = performance.now();
        for (let i = 0; i < count; i++) {
          matmulJs(ys, xs, { data, dtype, shape: [N, K] }, {}, T, { scratch });
        }
        return Promise.resolve((performance.now() - start) / count);
      };
      await using backend = await openWebGpuBackend();
      const x = backend.tensor([T, K], "F32", "activations");
      const out = backend.tensor([T, N], "F32", "activations");
      backend.write(x, xs);
      const weight = await backend.weight([N, K], dtype, fillFrom(data), { stored: "NK" });
      const build = (k: Recorder) => k.matmul(out, x, weight);
      const step = { rows: T, position: 0, slot: 0, length: T };
      const webgpu = planWork(backend, await backend.record(build), { name: "", step, out, build });
      const [jsMs, ms] = await interleave([js, webgpu]);
      lines.push({
        what: `${T} × ${K} → ${N} ${dtype}`,
        "typed arrays' ms": Number(jsMs.toPrecision(3)),
        ms: Number(ms.toPrecision(3)),
        "times faster": Number((jsMs / ms).toFixed(2)),
      });
    }
  }
  console.log("\nwebgpu: speed-up over typed arrays on one thread, medians of rounds");
  console.table(lines);
}

if (await navigator.gpu?.requestAdapter()) {
  const backend = await openWebGpuBackend();
  for (const shape of SHAPES) {
    for (const T of [1, ROWS]) {
      for (const one of await casesOf(backend, shape, "F32", T)) {
        const work = planWork(backend, await backend.record(one.build), one);
        Deno.bench({ name: `${one.name} webgpu`, fn: async () => void await work(1) });
      }
    }
  }
  sharesAfter("webgpu", async () => {
    console.log(backend.description);
    await printAgainstTypedArrays();
    const shares: Share[] = [];
    for (const shape of SHAPES) {
      for (const dtype of DTYPES) {
        shares.push(...await measure(shape, dtype, 1));
      }
      shares.push(...await measure(shape, "F32", ROWS));
    }
    return shares;
  });
} else console.warn("webgpu_bench.ts: SKIPPED, no WebGPU adapter");
