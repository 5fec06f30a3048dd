/**
 * Decode loop against the sum of its kernels, on the same weights, in interleaved rounds.
 *
 * @module
 */
import type { Backend, Plan, Recorder } from "../kernels/backend.ts";
import { openBackend } from "../kernels/mod.ts";
import { type Architecture, readArchitecture } from "../engine/architecture/mod.ts";
import { openCheckpoint } from "../engine/checkpoint/checkpoint.ts";
import { makeLogits, makeState, project } from "../engine/decoder.ts";
import { checkGenerate, type GeneratedToken, generateTokens } from "../engine/generate.ts";
import { SYSTEM_HOST } from "../engine/host/system.ts";
import { estimateMemory } from "../engine/memory.ts";
import { Runner } from "../engine/runner.ts";
import {
  checkpointWeights,
  randomWeights,
  uploadWeights,
  type WeightSource,
} from "../engine/weights/mod.ts";
import { median, type Share } from "./measuring.ts";

/** config.json of the smallest GPT-2. */
export const GPT2 = {
  model_type: "gpt2",
  vocab_size: 50257,
  n_positions: 1024,
  n_layer: 12,
  n_head: 12,
  n_embd: 768,
};

/** GPT-2's shape in a family whose weights are stored NK. */
export const GPT2_NK = {
  model_type: "nanogpt",
  vocab_size: 50257,
  block_size: 1024,
  n_layer: 12,
  n_head: 12,
  n_embd: 768,
  bias: true,
};

/** Folder of the bundled checkpoint. */
export const DEMO = new URL("./demo", import.meta.url).pathname;

/** Tokens before the first timed one, so that attention has keys. */
const PROMPT = 32;

/** A decode loop up to the end of its context, and its kernels. */
export interface DecodeLoop extends AsyncDisposable {
  /** Generates one token. */
  next(): Promise<void>;
  /** Milliseconds per token of each kind of kernel, run alone. */
  kernels(): Promise<Record<string, number>>;
}

/** Opens the loop of the demo. */
export async function openDemoLoop(): Promise<DecodeLoop> {
  const config = JSON.parse(await Deno.readTextFile(`${DEMO}/config.json`));
  const a = readArchitecture(config, "demo");
  using checkpoint = await openCheckpoint(DEMO);
  return await openLoop("demo", a, await checkpointWeights(checkpoint, a, "auto"));
}

/** Opens the loop of GPT-2's shape, with random F32 weights. */
export async function openGpt2Loop(): Promise<DecodeLoop> {
  const a = readArchitecture(GPT2, "GPT-2");
  return await openLoop("GPT-2", a, randomWeights(a, 1, "F32"));
}

async function openLoop(
  id: string,
  a: Architecture,
  source: WeightSource,
): Promise<DecodeLoop> {
  const backend = await openBackend("cpu", { host: SYSTEM_HOST.compute });
  const weights = await uploadWeights(backend, a, source, a.blockSize + 1, () => {});
  const { chunk } = estimateMemory(a, source, { contextLength: a.blockSize, backend });
  const runner = await Runner.create(backend, a, weights, { id, slots: a.blockSize, chunk });
  const model = { runner, tokenizer: null, eosIds: [], checkAlive: () => {} };
  const prompt = Array.from({ length: PROMPT }, (_, i) => i % a.vocabSize);
  const settings = checkGenerate({ maxNewTokens: 1e9, seed: 1, ignoreEos: true });
  const start = () => generateTokens(model, prompt, settings);
  let tokens: AsyncGenerator<GeneratedToken> = start();
  let length = 0;
  const next = async () => {
    if (length === 0 || length >= a.blockSize) {
      await tokens.return(undefined);
      tokens = start();
      length = PROMPT;
    }
    await tokens.next();
    length++;
  };
  await next(); // prefill
  const kinds = await recordKernels(backend, a, runner);
  const kernels = async () => {
    const step = { rows: 1, position: length - 1, slot: length - 1, length };
    const times: Record<string, number> = {};
    for (const { name, plan, settle } of kinds) {
      await settle();
      const start = performance.now();
      plan.run(step);
      await settle();
      times[name] = performance.now() - start;
    }
    return times;
  };
  return { next, kernels, [Symbol.asyncDispose]: () => backend[Symbol.asyncDispose]() };
}

interface Kind {
  readonly name: string;
  readonly plan: Plan;
  /** Waits for queued steps. */
  readonly settle: () => Promise<unknown>;
}

/**
 * Plans of the kinds of kernel, each with all calls of its kind in one token. Every call reads its
 * layer's weights, which have left the caches by then, as in the loop.
 */
async function recordKernels(backend: Backend, a: Architecture, runner: Runner): Promise<Kind[]> {
  const { weights: w, buffers: { decode: { cache } } } = runner;
  // Separate operands: the loop's must stay intact. The next slot of the cache is rewritten before
  // it is read.
  const s = { ...makeState(backend, a, 1, cache), logits: makeLogits(backend, a, 1) };
  const sampling = {
    settings: backend.tensor([4], "F32", "activations"),
    counter: backend.tensor([3], "U32", "activations"),
    seen: backend.tensor([a.vocabSize], "U32", "activations"),
    drawn: backend.tensor([1], "I32", "activations"),
  };
  backend.write(sampling.settings, new Float32Array([0.9, 40, 1, 1]));
  const each = (call: (k: Recorder, layer: number) => void) => (k: Recorder) =>
    w.h.forEach((_, layer) => call(k, layer));
  const { wpe } = w;
  const builds: Record<string, (k: Recorder) => void> = {
    embed: (k) => k.embed(s.x, w.wte, s.ids),
    ...(wpe ? { addPosition: (k) => k.addPosition(s.x, wpe) } : {}),
    norm: (k) => {
      const norms = [...w.h.flatMap(({ ln1, ln2 }) => [ln1, ln2]), w.lnF];
      for (const norm of norms) if (norm) k.norm(s.n, s.x, norm);
    },
    "matmul cAttn": each((k, i) => project(k, s.qkv, s.n, w.h[i].attn.cAttn)),
    writeKv: each((k, i) => k.writeKv(s.q, cache[i], s.qkv, w.h[i].attn.rope)),
    attention: each((k, i) => k.attention(s.y, s.q, cache[i], { scale: w.h[i].attn.scale })),
    "matmul attn.cProj": each((k, i) => {
      const { weight, bias } = w.h[i].attn.cProj;
      k.matmul(s.x, s.y, weight, { bias, residual: true });
    }),
    "matmul cFc": each((k, i) => {
      const { cFc: { weight, bias }, activation } = w.h[i].mlp;
      k.matmul(s.f, s.n, weight, { bias, activation });
    }),
    "matmul mlp.cProj": each((k, i) => {
      const { weight, bias } = w.h[i].mlp.cProj;
      k.matmul(s.x, s.f, weight, { bias, residual: true });
    }),
    "matmul head": (k) => k.matmul(s.logits, s.n, w.lmHead),
    sample: (k) => k.sample(s.ids, s.logits, sampling),
  };
  const kinds: Kind[] = [];
  for (const [name, build] of Object.entries(builds)) {
    const plan = await backend.record(build);
    kinds.push({ name, plan, settle: () => backend.read(s.x, 0, 1) });
  }
  return kinds;
}

/** Times of a loop and its kernels. */
export interface DecodeFigures {
  /** Milliseconds per token in the loop. */
  readonly loopMs: number;
  /** Sum of its kernels' milliseconds per token. */
  readonly kernelsMs: number;
  /**
   * Kernels' time divided by the loop's, median over rounds; 1 means that the loop adds nothing.
   */
  readonly ratio: number;
  /** Milliseconds per token of each kind of kernel. */
  readonly parts: Readonly<Record<string, number>>;
}

/** Rounds, minimum tokens and minimum milliseconds of each. */
const [ROUNDS, LEAST_TOKENS, ROUND_MS] = [15, 4, 100];

/** Times a loop and its kernels in interleaved rounds. */
export async function measureDecode(loop: DecodeLoop): Promise<DecodeFigures> {
  let perToken = 0;
  for (let i = 0; i < 12; i++) { // warms up the compiler
    const start = performance.now();
    await loop.next();
    await loop.kernels();
    perToken = (performance.now() - start) / 2;
  }
  const tokens = Math.max(LEAST_TOKENS, Math.ceil(ROUND_MS / perToken));
  const loops: number[] = [];
  const sums: number[] = [];
  const parts: Record<string, number[]> = {};
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now();
    for (let i = 0; i < tokens; i++) await loop.next();
    loops.push((performance.now() - start) / tokens);
    let sum = 0;
    for (let i = 0; i < tokens; i++) {
      for (const [name, ms] of Object.entries(await loop.kernels())) {
        sum += ms / tokens;
        (parts[name] ??= []).push(ms);
      }
    }
    sums.push(sum);
  }
  return {
    loopMs: median(loops),
    kernelsMs: median(sums),
    ratio: median(sums.map((ms, i) => ms / loops[i])),
    parts: Object.fromEntries(Object.entries(parts).map(([name, ms]) => [name, median(ms)])),
  };
}

/** A loop's row of a table. */
export function decodeShare(what: string, { loopMs, ratio }: DecodeFigures): Share {
  return { what, ms: loopMs, limitMs: ratio * loopMs, limit: "sum of its kernels" };
}
