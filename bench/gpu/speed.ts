/**
 * Stages `kernels` and `models`: times of products and attention, and of whole models, with weights
 * made on the device.
 *
 * @module
 */
import { readArchitecture } from "../../engine/architecture/mod.ts";
import { forward } from "../../engine/decoder.ts";
import { forwardAndSample, Runner } from "../../engine/runner.ts";
import { randomWeights, uploadWeights } from "../../engine/weights/mod.ts";
import type { Backend, Plan, Recorder } from "../../kernels/backend.ts";
import { storedBytes, type Weight, type WeightDtype } from "../../kernels/formats/mod.ts";
import type { Tensor } from "../../kernels/tensor.ts";
import { decodeDemands, type MeasuredGpu, measuredGpu, predict } from "../gpu_model.ts";
import { median } from "../measuring.ts";
import { openWithWeights } from "./device.ts";
import { type Shape, SHAPES, TINY } from "./shapes.ts";
import type { Stage, StageContext } from "./stage.ts";

/** Bytes of weights that a product rotates over: four times the cache of the largest GPU. */
const BEYOND_CACHE = 200e6;

const stepAt = (rows: number, length: number) => ({
  rows,
  position: length - rows,
  slot: length - rows,
  length,
});

/** Median milliseconds of a plan, and of the host's part of it. */
async function timeOf(
  backend: Backend,
  plan: Plan,
  out: Tensor,
  { rows, length, steps = 1, rounds = 5 }: {
    rows: number;
    length: number;
    steps?: number;
    rounds?: number;
  },
) {
  const [totals, hosts]: number[][] = [[], []];
  for (let round = 0; round <= rounds; round++) {
    const start = performance.now();
    for (let i = 0; i < steps; i++) plan.run(stepAt(rows, length + (rows === 1 ? i : 0)));
    const host = performance.now() - start;
    await backend.read(out, 0, 1);
    if (round === 0) continue; // the first run warms up
    totals.push((performance.now() - start) / steps);
    hosts.push(host / steps);
  }
  return { ms: median(totals), hostMs: median(hosts), samples: totals };
}

/** Products of one row and of many, over weights that no cache holds. */
async function productTimes(
  { tiny, before }: StageContext,
  [N, K]: readonly [number, number],
  dtype: WeightDtype,
  T: number,
) {
  await using backend = await openWithWeights({ tune: true });
  const bytes = storedBytes(dtype, N * K);
  const count = tiny ? 2 : Math.min(64, Math.max(2, Math.ceil(BEYOND_CACHE / bytes)));
  const weights: Weight[] = [];
  for (let i = 0; i < count; i++) {
    weights.push(await backend.weight([N, K], dtype, () => {}, { stored: "NK" }));
  }
  const x = backend.tensor([T, K], "F32", "activations");
  const y = backend.tensor([T, N], "F32", "activations");
  using plan = await backend.record((k: Recorder) => {
    for (const weight of weights) k.matmul(y, x, weight);
  });
  const { ms, samples } = await timeOf(backend, plan, y, { rows: T, length: T });
  const us = 1000 * ms / count;
  const [gbs, gigaFmas] = [bytes / us / 1e3, N * K * T / us / 1e3];
  const known = before.limits as
    | { readGBs: number; gigaMultiplyAdds: { fma: number } }
    | undefined;
  const share = known && Math.max(gbs / known.readGBs, gigaFmas / known.gigaMultiplyAdds.fma);
  return { what: `matmul ${N}x${K} ${dtype}`, rows: T, us, gbs, gigaFmas, share, samples };
}

async function attentionTimes({ tiny }: StageContext, H: number, G: number, D: number, T: number) {
  await using backend = await openWithWeights();
  const S = tiny ? 256 : 8192;
  const f32 = (...shape: number[]) => backend.tensor(shape, "F32", "activations");
  const cache = { k: f32(G, S, D), v: f32(G, S, D) };
  const [q, y] = [f32(T, H * D), f32(T, H * D)];
  const layers = tiny ? 2 : 16;
  using plan = await backend.record((k: Recorder) => {
    for (let i = 0; i < layers; i++) k.attention(y, q, cache);
  });
  const times = [];
  for (const length of tiny ? [T + 8] : [T + 64, T + 512, T + 2048, 8000]) {
    const { ms, samples } = await timeOf(backend, plan, y, { rows: T, length });
    times.push({ length, us: 1000 * ms / layers, samples });
  }
  return { what: `attention ${H} heads of ${D}, ${G} keys`, rows: T, times };
}

/** Times of the hot kernels. */
export const kernels: Stage = async (context) => {
  const { tiny, left, save } = context;
  const products: [number, number][] = tiny ? [[64, 64]] : [
    [2304, 768],
    [768, 3072],
    [50257, 768],
    [3072, 2048],
    [2048, 2048],
    [16384, 2048],
    [2048, 8192],
    [4096, 4096],
    [28672, 4096],
    [4096, 14336],
  ];
  const results = [];
  for (const T of tiny ? [1, 8] : [1, 512]) {
    for (const [H, G, D] of tiny ? [[4, 2, 16]] : [[12, 12, 64], [32, 8, 64], [32, 8, 128]]) {
      if (left() > 0) results.push(await attentionTimes(context, H, G, D, T));
      save({ results });
    }
    for (const dtype of tiny ? ["BF16"] as const : ["BF16", "F32", "F16"] as const) {
      for (const shape of products) {
        if (left() > 0) results.push(await productTimes(context, shape, dtype, T));
        save({ results });
      }
    }
  }
  return { results, complete: left() > 0 };
};

/** Predicted decode steps, from what the stages before have measured; none if they have not. */
async function predictions({ before }: StageContext, shape: Shape, lengths: readonly number[]) {
  const { facts, limits } = before as Partial<MeasuredGpu>;
  if (!facts?.hostUs || !limits?.readGBs) return [];
  const gpu = measuredGpu("this GPU", { facts, limits });
  return (await decodeDemands(shape, lengths)).map((demands) => predict(demands, gpu));
}

/** A model's decode and prefill. */
async function modelTimes(context: StageContext, shape: Shape) {
  const { tiny, left } = context;
  const a = readArchitecture(shape.config, "a shape");
  const slots = tiny ? 128 : 4096;
  const rows = tiny ? 16 : 512;
  const lengths = tiny ? [8, 64] : [8, 512, 2048];
  // Replaces `navigator.gpu` meanwhile.
  const predicted = await predictions(context, shape, lengths);
  await using backend = await openWithWeights();
  const source = { ...randomWeights(a, 1, shape.dtype) };
  const started = performance.now();
  const weights = await uploadWeights(backend, a, source, slots + 1, () => {});
  const runner = await Runner.create(backend, a, weights, { id: "", slots, chunk: rows });
  const { plans, buffers: { decode, sampling, prefill } } = runner;
  await backend.read(decode.logits, 0, 1);
  const loadMs = performance.now() - started;
  const steps = tiny ? 4 : 32;
  const decodes = [];
  for (const [draw, temperature] of [["sampled", 0.9], ["greedy", 0]] as const) {
    for (const [i, length] of lengths.entries()) {
      if (left() < 0) break;
      runner.startSampling({ temperature, topK: 40, topP: 1, repetitionPenalty: 1 }, 1);
      const time = await timeOf(backend, plans.draw, sampling.drawn, { rows: 1, length, steps });
      // The model knows sampling by settings alone.
      const prediction = draw === "sampled" ? predicted[i] : undefined;
      decodes.push({ draw, length, tokensPerSec: 1000 / time.ms, prediction, ...time });
    }
  }
  const prefills = [];
  for (const length of tiny ? [16, 64] : [128, 512, 2048]) {
    if (left() < 0) break;
    const chunk = Math.min(rows, length);
    const time = await timeOf(backend, plans.prefill, prefill.x, { rows: chunk, length });
    prefills.push({ rows: chunk, length, tokensPerSec: 1000 * chunk / time.ms, ...time });
  }
  const profiles = [];
  const passes: [string, number, (k: Recorder) => void][] = [
    ["decode", 1, (k) => forwardAndSample(k, weights, runner.buffers)],
    ["prefill", rows, (k) => forward(k, weights, prefill)],
  ];
  for (const [pass, count, build] of passes) {
    if (left() < 0) break;
    const length = lengths[1];
    profiles.push({ pass, length, kernels: await backend.profile(build, stepAt(count, length)) });
  }
  return { what: `${shape.name} ${shape.dtype}`, loadMs, decodes, prefills, profiles };
}

/** Times of whole models. */
export const models: Stage = async (context) => {
  const shapes = context.tiny
    ? [TINY]
    : SHAPES.flatMap((shape) =>
      shape.name === "8B" || shape.name === "demo"
        ? [shape]
        : [shape, { ...shape, dtype: shape.dtype === "F32" ? "BF16" as const : "F16" as const }]
    );
  const results = [];
  for (const shape of shapes) {
    if (context.left() < 0) break;
    try {
      results.push(await modelTimes(context, shape));
    } catch (error) {
      results.push({ what: `${shape.name} ${shape.dtype}`, error: String(error).slice(0, 500) });
    }
    context.save({ results });
  }
  return { results, complete: context.left() > 0 };
};
