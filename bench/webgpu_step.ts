/**
 * Step of GPT-2's shape on WebGPU against the sum of its kernels, with the host's and the matmuls'
 * shares.
 *
 * `deno run -A bench/webgpu_step.ts [rows] [length]`; 1 row, with the head and sampling, is a
 * decode step.
 *
 * @module
 */
import type { Recorder } from "../kernels/backend.ts";
import { openWebGpuBackend } from "../kernels/webgpu/backend.ts";
import { bytesOf } from "../kernels/tensor.ts";
import { randomNumbers } from "../tests/testing.ts";
import { median, percent } from "./measuring.ts";

const [rows, length] = [Number(Deno.args[0] ?? 1), Number(Deno.args[1] ?? 128)];
const [C, H, D, F, S, V, LAYERS] = [768, 12, 64, 3072, 1024, 50257, 12];
const ROUNDS = 9;

await using backend = await openWebGpuBackend();
const f32 = (...shape: number[]) => backend.tensor(shape, "F32", "activations");
const page = bytesOf(randomNumbers(1 << 18, 1));
const weight = (N: number, K: number) =>
  backend.weight([N, K], "F32", (_row, _count, into) => {
    for (let at = 0; at < into.length; at += page.length) {
      into.set(page.subarray(0, Math.min(page.length, into.length - at)), at);
    }
  }, { stored: "NK" });

const [x, n, qkv, q, y, f] = [C, C, 3 * C, C, C, F].map((width) => f32(rows, width));
const logits = f32(1, V);
const ids = backend.tensor([rows], "I32", "activations");
const norm = { kind: "layer" as const, weight: f32(C), bias: f32(C), eps: 1e-5 };
const [wte, wpe] = [await weight(V, C), await weight(S, C)];
const makeBlock = async () => ({
  cAttn: await weight(3 * C, C),
  cProj: await weight(C, C),
  cFc: await weight(F, C),
  down: await weight(C, F),
  cache: { k: f32(H, S, D), v: f32(H, S, D) },
});
const blocks: Awaited<ReturnType<typeof makeBlock>>[] = [];
for (let i = 0; i < LAYERS; i++) blocks.push(await makeBlock());
const sampling = {
  settings: f32(4),
  counter: backend.tensor([3], "U32", "activations"),
  seen: backend.tensor([V], "U32", "activations"),
  drawn: backend.tensor([64], "I32", "activations"),
};
backend.write(sampling.settings, new Float32Array([0.9, 40, 1, 1]));

type Part = (k: Recorder, block: typeof blocks[number]) => void;
/** Calls of a block, one entry per kernel; a norm is fused into the product that reads it. */
const inBlock: Readonly<Record<string, Part>> = {
  "norm, cAttn": (k, { cAttn }) => {
    k.norm(n, x, norm);
    k.matmul(qkv, n, cAttn);
  },
  "writeKv": (k, { cache }) => k.writeKv(q, cache, qkv),
  "attention": (k, { cache }) => k.attention(y, q, cache),
  "cProj": (k, { cProj }) => k.matmul(x, y, cProj, { residual: true }),
  "norm, cFc": (k, { cFc }) => {
    k.norm(n, x, norm);
    k.matmul(f, n, cFc, { activation: "geluTanh" });
  },
  "down": (k, { down }) => k.matmul(x, f, down, { residual: true }),
};
const embed = (k: Recorder) => {
  k.embed(x, wte, ids);
  k.addPosition(x, wpe);
};
const head = (k: Recorder) => {
  k.norm(n, x, norm);
  k.matmul(logits, n, wte);
};
const sample = (k: Recorder) => k.sample(ids, logits, sampling);

const builds: Record<string, (k: Recorder) => void> = {
  whole: (k) => {
    embed(k);
    for (const block of blocks) for (const part of Object.values(inBlock)) part(k, block);
    k.discard(n, qkv);
    if (rows > 1) return;
    head(k);
    sample(k);
  },
  embed,
};
for (const [name, part] of Object.entries(inBlock)) {
  builds[name] = (k) => {
    for (const block of blocks) part(k, block);
    // The last norm is only fused if a later one overwrites its output.
    if (name.startsWith("norm")) k.norm(n, x, norm);
  };
}
if (rows === 1) Object.assign(builds, { head, sample });
// The products without their fused norms: the reference for the whole step.
builds.products = (k) => {
  for (const { cAttn, cProj, cFc, down } of blocks) {
    k.matmul(qkv, n, cAttn);
    k.matmul(x, y, cProj, { residual: true });
    k.matmul(f, n, cFc, { activation: "geluTanh" });
    k.matmul(x, f, down, { residual: true });
  }
  if (rows === 1) k.matmul(logits, n, wte);
};

const step = { rows, position: length - rows, slot: length - rows, length };
const works = [];
for (const [name, build] of Object.entries(builds)) {
  const plan = await backend.record(build);
  plan.run(step);
  await backend.read(x, 0, 1);
  works.push({ name, plan, times: [] as number[], host: [] as number[] });
}
for (let round = 0; round < ROUNDS; round++) {
  for (const { plan, times, host } of works) {
    const start = performance.now();
    plan.run(step);
    host.push(performance.now() - start);
    await backend.read(x, 0, 1);
    times.push(performance.now() - start);
  }
}
const ms = Object.fromEntries(works.map(({ name, times }) => [name, median(times)]));
const sumOf = (names: readonly string[]) => names.reduce((sum, name) => sum + (ms[name] ?? 0), 0);
const parts = Object.keys(ms).filter((name) => name !== "whole" && name !== "products");
console.log(backend.description);
console.table(Object.fromEntries(Object.entries(ms).map(([name, v]) => [name, v.toFixed(2)])));
console.log(`whole / sum of its kernels: ${(ms.whole / sumOf(parts)).toFixed(2)}`);
console.log(`host's share of the whole: ${(100 * median(works[0].host) / ms.whole).toFixed(2)} %`);
console.log(
  `the step's rate as a share of that of its products: ${percent(ms.products / ms.whole)}`,
);
