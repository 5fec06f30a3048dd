/**
 * Benches of each WASM kernel against the machine's limit on as many threads, in interleaved
 * rounds.
 *
 * `THREADS=1 deno bench -A bench/wasm_bench.ts`, two threads by default.
 *
 * @module
 */
import { SYSTEM_HOST } from "../engine/host/system.ts";
import type { Backend, Plan, Recorder } from "../kernels/backend.ts";
import { narrow, storedBytes, type Weight, type WeightDtype } from "../kernels/formats/mod.ts";
import { bytesOf, type Tensor } from "../kernels/tensor.ts";
import { openWasmBackend } from "../kernels/wasm/backend.ts";
import { Limits } from "../kernels/wasm/limits.ts";
import { randomNumbers } from "../tests/testing.ts";
import { interleave, percent } from "./measuring.ts";

const threads = Number(Deno.env.get("THREADS") ?? 2);
const DTYPES: readonly WeightDtype[] = [
  "F32",
  "F16",
  "BF16",
  "Q8_0",
  "Q4_0",
  "Q4_1",
  "Q4_K",
  "Q6_K",
];

/** Bytes read before any is read again: more than a core's private caches. */
const ROUND_BYTES = 200e6;

/** A measured plan, and the bytes or FLOPs of one run. */
interface Work {
  readonly what: string;
  readonly plan: Plan;
  readonly rows: number;
  readonly length: number;
  /** Calls in the plan. */
  readonly calls: number;
  /** Bytes or FLOPs of a run; with neither, only the time is reported. */
  readonly bytes?: number;
  readonly operations?: number;
}

function filled(backend: Backend, shape: readonly number[], seed: number): Tensor {
  const t = backend.tensor(shape, "F32", "activations");
  const count = shape.reduce((a, b) => a * b);
  const page = randomNumbers(Math.min(count, 1 << 16), seed);
  for (let at = 0; at < count; at += page.length) {
    backend.write(t, page.subarray(0, Math.min(page.length, count - at)), at);
  }
  return t;
}

/** A weight of typical numbers; some are below F16's smallest normal one. */
function weight(backend: Backend, N: number, K: number, dtype: WeightDtype) {
  const small = bytesOf(narrow(randomNumbers(1 << 16, 3).map((v) => 0.04 * v), dtype));
  return backend.weight([N, K], dtype, (_row, _count, into) => {
    for (let at = 0; at < into.length; at += small.length) {
      into.set(small.subarray(0, Math.min(small.length, into.length - at)), at);
    }
  }, { stored: "NK" });
}

async function recorded(
  backend: Backend,
  work: Omit<Work, "plan">,
  call: (k: Recorder, i: number) => void,
): Promise<Work> {
  const plan = await backend.record((k) => {
    for (let i = 0; i < work.calls; i++) call(k, i);
  });
  return { ...work, plan };
}

/** [N, K] of the layers and heads of GPT-2 and the demo. */
const LAYERS = [[2304, 768], [768, 768], [3072, 768], [768, 3072], [768, 256], [256, 1024]];

async function matmulWork(backend: Backend, T: number, N: number, K: number, dtype: WeightDtype) {
  const bytes = storedBytes(dtype, N * K);
  const calls = T === 1 ? Math.ceil(ROUND_BYTES / bytes) : 1;
  const weights: Weight[] = [];
  for (let i = 0; i < calls; i++) weights.push(await weight(backend, N, K, dtype));
  const [x, y] = [filled(backend, [T, K], 1), filled(backend, [T, N], 2)];
  const figures = T === 1 ? { bytes: calls * bytes } : { operations: 2 * T * N * K };
  const what = `matmul ${N}×${K} ${dtype}, ${T === 1 ? "1 row" : `${T} rows`}`;
  return await recorded(
    backend,
    { what, rows: T, length: T, calls, ...figures },
    (k, i) => k.matmul(y, x, weights[i]),
  );
}

/** Heads, head size, rows and keys: GPT-2's, and one with four query heads per key/value head. */
const ATTENTION = [
  [12, 12, 64, 1, 1024],
  [12, 12, 64, 1, 8192],
  [32, 8, 128, 1, 8192],
  [12, 12, 64, 128, 128],
  [12, 12, 64, 1024, 1024],
  [32, 8, 128, 512, 512],
];

async function attentionWork(
  backend: Backend,
  [H, G, D, T, length]: readonly number[],
): Promise<Work> {
  const bytes = 2 * G * length * D * 4;
  const calls = T === 1 ? Math.ceil(ROUND_BYTES / bytes) : 1;
  const caches = Array.from({ length: calls }, () => ({
    k: filled(backend, [G, length, D], 1),
    v: filled(backend, [G, length, D], 2),
  }));
  const [q, y] = [filled(backend, [T, H * D], 3), filled(backend, [T, H * D], 4)];
  const pairs = T * (length - T) + T * (T + 1) / 2;
  const figures = T === 1 ? { bytes: calls * bytes } : { operations: 4 * pairs * H * D };
  const heads = G === H ? `${H} heads` : `${H} heads of ${G}`;
  const what = `attention, ${heads}, size ${D}, ${T === 1 ? "1 row" : `${T} rows`}, ${length} keys`;
  return await recorded(
    backend,
    { what, rows: T, length, calls, ...figures },
    (k, i) => k.attention(y, q, caches[i]),
  );
}

/** Operations between the products; 128 rows of GPT-2's width. */
async function smallWorks(backend: Backend): Promise<Work[]> {
  const [T, C, H, D] = [128, 768, 12, 64];
  const [x, y, qkv] = [[T, C], [T, C], [T, 3 * C]].map((shape, i) => filled(backend, shape, i));
  const [gain, bias] = [filled(backend, [C], 3), filled(backend, [C], 4)];
  const cache = { k: filled(backend, [H, T, D], 5), v: filled(backend, [H, T, D], 6) };
  const table = filled(backend, [T, D], 7);
  const ids = backend.tensor([T], "I32", "activations");
  const words = await weight(backend, 50257, C, "F32");
  const run = { rows: T, length: T, calls: 8 };
  const layer = { kind: "layer", weight: gain, bias, eps: 1e-5 } as const;
  return [
    await recorded(backend, { ...run, what: "norm" }, (k) => k.norm(y, x, layer)),
    await recorded(backend, { ...run, what: "embed F32" }, (k) => k.embed(y, words, ids)),
    await recorded(
      backend,
      { ...run, what: "addPosition F32" },
      (k) => k.addPosition(y, words),
    ),
    await recorded(backend, { ...run, what: "writeKv" }, (k) => k.writeKv(y, cache, qkv)),
    await recorded(
      backend,
      { ...run, what: "writeKv, rotated" },
      (k) => k.writeKv(y, cache, qkv, { table }),
    ),
  ];
}

async function sampleWork(backend: Backend, what: string, settings: number[]): Promise<Work> {
  const V = 50257;
  const logits = backend.tensor([1, V], "F32", "activations");
  backend.write(logits, randomNumbers(V, 1).map((v) => 8 * v));
  const sampling = {
    settings: backend.tensor([4], "F32", "activations"),
    counter: backend.tensor([3], "U32", "activations"),
    seen: backend.tensor([V], "U32", "activations"),
    drawn: backend.tensor([64], "I32", "activations"),
  };
  backend.write(sampling.settings, new Float32Array(settings));
  const ids = backend.tensor([1], "I32", "activations");
  const name = `sample of ${V}, ${what}`;
  return await recorded(
    backend,
    { what: name, rows: 1, length: 1, calls: 1 },
    (k) => k.sample(ids, logits, sampling),
  );
}

/** Makes one work at a time, each on its own backend: together they would not fit in memory. */
const MAKERS: ((backend: Backend) => Promise<Work | Work[]>)[] = [
  ...DTYPES.flatMap((dtype) => [
    ...[...LAYERS, [50257, 768]].map(([N, K]) => (b: Backend) => matmulWork(b, 1, N, K, dtype)),
    ...LAYERS.map(([N, K]) => (b: Backend) => matmulWork(b, 128, N, K, dtype)),
  ]),
  ...ATTENTION.map((shape) => (b: Backend) => attentionWork(b, shape)),
  smallWorks,
  (b) => sampleWork(b, "greedy", [0, 0, 1, 1]),
  (b) => sampleWork(b, "all of them", [1, 0, 1, 1]),
  (b) => sampleWork(b, "top-k 200", [1, 200, 1, 1]),
  (b) => sampleWork(b, "top-p 0.9", [1, 0, 0.9, 1]),
  (b) => sampleWork(b, "top-k 200, top-p 0.95, penalty", [0.8, 200, 0.95, 1.1]),
];

async function measure(): Promise<void> {
  await using limits = await Limits.open(threads);
  const [reading, multiplying] = [await limits.reading(), await limits.multiplying(true)];
  const rows: Record<string, string>[] = [];
  for (const make of MAKERS) {
    await using backend = await openWasmBackend({ threads, host: SYSTEM_HOST.compute });
    for (const work of [await make(backend)].flat()) {
      const step = { position: work.length - work.rows, slot: 0, length: work.length };
      const kernel = () => work.plan.run({ rows: work.rows, ...step });
      const run = work.operations ? multiplying.run : work.bytes ? reading.run : undefined;
      const ms = run
        ? await interleave({ kernel, limit: run })
        : { ...await interleave({ kernel }), limit: 0 };
      rows.push(lineOf(work, ms, reading.bytes, multiplying.operations));
    }
  }
  console.log(`\nWASM kernels on ${threads} thread(s): share of a limit measured in this run`);
  console.table(rows);
}

function lineOf(
  { what, calls, bytes, operations }: Work,
  { kernel, limit }: { kernel: number; limit: number },
  readBytes: number,
  limitOperations: number,
): Record<string, string> {
  const us = `${(1000 * kernel / calls).toPrecision(3)}`;
  const amount = bytes ?? operations;
  if (!amount) return { what, "µs per call": us, rate: "", limit: "", share: "" };
  const unit = bytes ? "GB/s" : "GF/s";
  const rate = amount / kernel / 1e6;
  const most = (bytes ? readBytes : limitOperations) / limit / 1e6;
  return {
    what,
    "µs per call": us,
    rate: `${rate.toFixed(1)} ${unit}`,
    limit: `${most.toFixed(1)} ${unit}`,
    share: percent(rate / most),
  };
}

let reported = false;
Deno.bench({
  name: "wasm: shares",
  n: 1,
  warmup: 0,
  async fn() {
    if (reported) return; // the harness may call once more than asked
    reported = true;
    await measure();
  },
});
