/**
 * Figures of the WebAssembly backend on two threads, each beside its goal.
 *
 * `deno run -A bench/wasm_figures.ts [barrier] [model] [addresses] [demo] [attention] [memory]
 * [load]`, all by default. Each is a ratio of two interleaved measurements, or a share of a limit
 * measured in the same run by the same threads. Machines differ and are noisy, so no figure fails
 * the run.
 *
 * @module
 */
import { type Architecture, readArchitecture } from "../engine/architecture/mod.ts";
import { openCheckpoint } from "../engine/checkpoint/checkpoint.ts";
import { SYSTEM_HOST } from "../engine/host/system.ts";
import { estimateMemory } from "../engine/memory.ts";
import { Runner } from "../engine/runner.ts";
import {
  checkpointWeights,
  countLayerParameters,
  countParameters,
  randomWeights,
  specTree,
  uploadWeights,
  weightSpecs,
} from "../engine/weights/mod.ts";
import { narrow, storedBytes, type WeightDtype } from "../kernels/formats/mod.ts";
import { bytesOf, sizeOf, type StoredOrder } from "../kernels/tensor.ts";
import { openWasmBackend } from "../kernels/wasm/backend.ts";
import { Limits } from "../kernels/wasm/limits.ts";
import { randomNumbers } from "../tests/testing.ts";
import { DEMO, GPT2, GPT2_NK } from "./decode.ts";
import { child, median, percent, rest, timed, timeToRead } from "./measuring.ts";
import { planEntries } from "./wasm_limits.ts";

const THREADS = 2;
const MIB = 2 ** 20;
const DTYPES = ["F32", "F16", "BF16"] as const;

/** Rounds of the work and its limit. */
const ROUNDS = 15;

/** Tokens in the cache when decoding is measured. */
const DEPTH = 128;

function architectureOf(order: StoredOrder): Architecture {
  return readArchitecture(order === "KN" ? GPT2 : GPT2_NK, "GPT-2");
}

/** Milliseconds of a limit, with threads awake. */
async function timedAlone(run: () => void): Promise<number> {
  await rest();
  run();
  return timed(run);
}

/** Time per entry that two threads take beyond half of one thread's, and of a run without work. */
async function barrier(): Promise<void> {
  console.log("\nbarrier: time of an entry beyond its evenly shared work; goal ≤ 2 µs");
  const [ENTRIES, ITEMS] = [200, 64];
  await using limits = await Limits.open(THREADS);
  const work = await planEntries(limits, ENTRIES, ITEMS, 2000);
  const empty = await planEntries(limits, 1, 1, 1);
  const [alone, together, handOver]: number[][] = [[], [], []];
  for (let round = 0; round < 4 * ROUNDS; round++) {
    limits.pool.limit(1);
    alone.push(timed(work));
    limits.pool.limit(THREADS);
    together.push(timed(work));
    handOver.push(timed(empty, 100));
  }
  const us = (ms: number) => `${(1000 * ms).toFixed(2)} µs`;
  const costs = together.map((ms, i) => (ms - alone[i] / THREADS) / ENTRIES);
  console.log(
    `  ${us(median(costs))} (least ${us(Math.min(...costs))}) of ${
      us(median(together) / ENTRIES)
    }, which one thread does in ${us(median(alone) / ENTRIES)}`,
  );
  console.log(`  a run without work ${us(median(handOver))}`);
}

/** Decode and prefill of GPT-2's shape. */
async function model(): Promise<void> {
  console.log(
    "\nGPT-2's shape as a share of the limits of two threads; goals: decode ≥ 75 % (F32), " +
      "≥ 65 % (16 bits); prefill ≥ 85 % (F32), ≥ 80 % (16 bits)",
  );
  await using limits = await Limits.open(THREADS);
  const reading = await limits.reading();
  const multiplying = await limits.multiplying(true);
  const a = architectureOf("KN");
  const parameters = countParameters(specTree(a));
  const positions = a.blockSize * a.nEmbd;
  for (const dtype of DTYPES) {
    await using backend = await openWasmBackend({ threads: THREADS, host: SYSTEM_HOST.compute });
    const source = randomWeights(a, 1, dtype);
    const weights = await uploadWeights(backend, a, source, a.blockSize + 1, () => {});
    const { chunk } = estimateMemory(a, source, { contextLength: a.blockSize, backend });
    const runner = await Runner.create(backend, a, weights, { id: dtype, slots: 1024, chunk });
    const prompt = Array.from({ length: DEPTH + 1 }, (_, i) => i);
    const settings = { temperature: 0.8, topK: 40, topP: 1, repetitionPenalty: 1 };
    runner.startSampling(settings, 1);
    const [reads, products, prefills, decodes]: number[][] = [[], [], [], []];
    for (let round = 0; round < ROUNDS; round++) {
      products.push(await timedAlone(multiplying.run));
      await rest();
      const start = performance.now();
      await runner.prefill(prompt);
      prefills.push(performance.now() - start);
      reads.push(await timedAlone(reading.run));
      await rest();
      const tokens = 8;
      const begin = performance.now();
      for (let i = 0; i < tokens; i++) await runner.draw(1);
      decodes.push((performance.now() - begin) / tokens);
    }
    const cacheBytes = 2 * 4 * a.nLayer * a.nKvHead * a.headDim * DEPTH;
    const bytes = storedBytes(dtype, parameters - positions) + cacheBytes;
    const operations = operationsOf(a, DEPTH);
    const decodeShare = decodes.map((ms, i) => bytes / ms / (reading.bytes / reads[i]));
    const prefillShare = prefills.map((ms, i) =>
      operations / ms / (multiplying.operations / products[i])
    );
    console.log(
      `  ${dtype.padEnd(5)} decode ${percent(median(decodeShare))} of ${
        rate(reading.bytes, median(reads))
      } GB/s: ${median(decodes).toFixed(2)} ms a token   prefill ${
        percent(median(prefillShare))
      } of ${rate(multiplying.operations, median(products))} GF/s: ${
        (DEPTH / median(prefills) * 1000).toFixed(0)
      } tokens/s`,
    );
  }
}

/** Decode and prefill of GPT-2's shape in a memory of 64-bit addresses, by one of 32-bit ones. */
async function addresses(): Promise<void> {
  console.log("\n64-bit addresses by 32-bit ones, GPT-2's shape: tokens/s; goal ≥ 97 %");
  const a = architectureOf("KN");
  for (const dtype of ["F32", "BF16"] as const) {
    await using stack = new AsyncDisposableStack();
    const runners: Runner[] = [];
    for (const address of ["i32", "i64"] as const) {
      const options = { threads: THREADS, address, host: SYSTEM_HOST.compute };
      const backend = stack.use(await openWasmBackend(options));
      const source = randomWeights(a, 1, dtype);
      const weights = await uploadWeights(backend, a, source, a.blockSize + 1, () => {});
      const { chunk } = estimateMemory(a, source, { contextLength: a.blockSize, backend });
      const runner = await Runner.create(backend, a, weights, { id: dtype, slots: 1024, chunk });
      runner.startSampling({ temperature: 0.8, topK: 40, topP: 1, repetitionPenalty: 1 }, 1);
      runners.push(runner);
    }
    const prompt = Array.from({ length: DEPTH + 1 }, (_, i) => i);
    const [prefills, decodes]: number[][] = [[], []];
    for (let round = 0; round < ROUNDS; round++) {
      const [prefill, decode]: number[][] = [[], []];
      // Trick: the order alternates, so that a machine that slows down slows both.
      for (const which of round % 2 ? [1, 0] : [0, 1]) {
        await rest();
        const start = performance.now();
        await runners[which].prefill(prompt);
        const middle = performance.now();
        for (let i = 0; i < 8; i++) await runners[which].draw(1);
        prefill[which] = middle - start;
        decode[which] = performance.now() - middle;
      }
      prefills.push(prefill[0] / prefill[1]);
      decodes.push(decode[0] / decode[1]);
    }
    console.log(
      `  ${dtype.padEnd(5)} decode ${percent(median(decodes))}   prefill ${
        percent(median(prefills))
      }`,
    );
  }
}

/** FLOPs of `tokens` tokens: layers, and attention of each token to those before it. */
function operationsOf(a: Architecture, tokens: number): number {
  const pairs = tokens * (tokens + 1) / 2;
  return 2 * tokens * countLayerParameters(specTree(a)) +
    4 * pairs * a.nHead * a.headDim * a.nLayer;
}

/** A step of the demo without the cache: its whole context passes through the layers. */
async function demo(): Promise<void> {
  console.log(
    "\nthe demo's whole context without a cache, as a share of peak multiply-adds; goal ≥ 75 %",
  );
  await using limits = await Limits.open(THREADS);
  const multiplying = await limits.multiplying(true);
  const a = readArchitecture(JSON.parse(await Deno.readTextFile(`${DEMO}/config.json`)), "demo");
  await using backend = await openWasmBackend({ threads: THREADS, host: SYSTEM_HOST.compute });
  const slots = a.blockSize;
  const source = randomWeights(a, 1, "F32");
  const weights = await uploadWeights(backend, a, source, slots + 1, () => {});
  const { chunk } = estimateMemory(a, source, { contextLength: slots, backend });
  const runner = await Runner.create(backend, a, weights, { id: "demo", slots, chunk });
  const ids = Array.from({ length: slots + 1 }, (_, i) => i % a.vocabSize);
  const operations = operationsOf(a, slots);
  const shares: number[] = [];
  for (let round = 0; round < 2 * ROUNDS; round++) {
    const limit = multiplying.operations / await timedAlone(multiplying.run);
    await rest();
    const start = performance.now();
    await runner.prefill(ids);
    shares.push(operations / (performance.now() - start) / limit);
  }
  console.log(`  ${slots} tokens at ${percent(median(shares))}`);
}

function rate(count: number, ms: number): string {
  return (count / ms / 1e6).toFixed(1);
}

/** Attention of one row over one layer's cache. */
async function attention(): Promise<void> {
  console.log(
    "\nattention of one row as a share of reading the same K and V; goal ≥ 60 % at 8192",
  );
  await using limits = await Limits.open(THREADS);
  const reading = await limits.reading();
  const [H, D, LAYERS, S] = [12, 64, 12, 8192];
  await using backend = await openWasmBackend({ threads: THREADS, host: SYSTEM_HOST.compute });
  const q = backend.tensor([1, H * D], "F32", "activations");
  const y = backend.tensor([1, H * D], "F32", "activations");
  const numbers = randomNumbers(S * D, 1);
  const cache = Array.from({ length: LAYERS }, () => {
    const [k, v] = [0, 1].map(() => backend.tensor([H, S, D], "F32", "kvCache"));
    for (let h = 0; h < H; h++) for (const t of [k, v]) backend.write(t, numbers, h * S * D);
    return { k, v };
  });
  backend.write(q, randomNumbers(H * D, 2));
  using plan = await backend.record((r) => {
    for (const each of cache) r.attention(y, q, each, { scale: 1 / Math.sqrt(D) });
  });
  for (const length of [1024, 2048, 4096, 8192]) {
    const step = { rows: 1, position: length - 1, slot: length - 1, length };
    const [reads, times]: number[][] = [[], []];
    for (let round = 0; round < ROUNDS; round++) {
      reads.push(await timedAlone(reading.run));
      await rest();
      times.push(timed(() => plan.run(step)));
    }
    const bytes = LAYERS * 2 * 4 * length * H * D;
    const share = median(times.map((ms, i) => bytes / ms / (reading.bytes / reads[i])));
    const us = 1000 * median(times) / LAYERS;
    console.log(
      `  ${String(length).padEnd(5)} ${percent(share).padStart(5)}   ${us.toFixed(0)} µs a layer, ${
        (1000 * us / length).toFixed(0)
      } ns a key`,
    );
  }
}

/** Resident memory above a process that only imported the library. */
async function memory(): Promise<void> {
  console.log(
    "\nresident memory above idle, GPT-2's shape from a file; goal ≤ weights + cache + 40 MiB",
  );
  const idle = await inChild<Resident>("resident");
  await withFile(async (path) => {
    for (const dtype of DTYPES) {
      await writeCheckpoint(path, "KN", dtype);
      const { rss, kept } = await inChild<Resident>("resident", path);
      const mib = (bytes: number) => `${(bytes / MIB).toFixed(0)} MiB`;
      console.log(
        `  ${dtype.padEnd(5)} ${mib(rss - idle.rss)}: weights + cache (${mib(kept)}) + ${
          mib(rss - idle.rss - kept)
        }`,
      );
    }
  });
}

async function withFile(work: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempFile({ suffix: ".safetensors" });
  try {
    await work(path);
  } finally {
    await Deno.remove(path);
  }
}

interface Resident {
  readonly rss: number;
  /** Tracked bytes of weights and cache. */
  readonly kept: number;
}

/** Resident memory of this process after running a file's model, or nothing. */
async function resident(path?: string): Promise<Resident> {
  await import("../mod.ts");
  if (!path) return { rss: Deno.memoryUsage().rss, kept: 0 };
  const a = architectureOf("KN");
  await using backend = await openWasmBackend({ threads: THREADS, host: SYSTEM_HOST.compute });
  using checkpoint = await openCheckpoint(path);
  const source = await checkpointWeights(checkpoint, a, "auto");
  const weights = await uploadWeights(backend, a, source, DEPTH + 1, () => {});
  const { chunk } = estimateMemory(a, source, { contextLength: DEPTH, backend });
  const runner = await Runner.create(backend, a, weights, { id: path, slots: DEPTH, chunk });
  // All of the cache is written: untouched pages are not resident.
  runner.startSampling({ temperature: 0.8, topK: 40, topP: 1, repetitionPenalty: 1 }, 1);
  await runner.prefill(Array.from({ length: DEPTH - 8 }, (_, i) => i));
  while (!runner.sequence.full) await runner.draw(1);
  const { weights: { current: learned }, kvCache } = backend.memory.classes;
  return { rss: Deno.memoryUsage().rss, kept: learned + kvCache.current };
}

/** Loading a checkpoint of GPT-2's shape, against reading its bytes. */
async function load(): Promise<void> {
  console.log(
    "\nload time of GPT-2's shape relative to readSync of the same bytes; goal ≤ 1.3",
  );
  await withFile(async (path) => {
    for (const order of ["KN", "NK"] as const) {
      for (const dtype of DTYPES) {
        await writeCheckpoint(path, order, dtype);
        const [reads, loads, opens]: number[][] = [[], [], []];
        for (let round = 0; round < 7; round++) {
          reads.push((await inChild<Loaded>("load", path, order, "read")).ms);
          const { ms, openMs } = await inChild<Loaded>("load", path, order, "wasm");
          loads.push(ms);
          opens.push(openMs);
        }
        const ratio = median(loads.map((ms, i) => ms / reads[i]));
        const best = Math.min(...loads) / Math.min(...reads);
        console.log(
          `  ${order} ${dtype.padEnd(5)} ${ratio.toFixed(2)} (the best of each ${
            best.toFixed(2)
          })   load ${median(loads).toFixed(0)} ms, read ${
            median(reads).toFixed(0)
          } ms; before it the backend opens in ${median(opens).toFixed(0)} ms`,
        );
      }
    }
  });
}

interface Loaded {
  readonly ms: number;
  /** Milliseconds of opening the backend. */
  readonly openMs: number;
}

/** One cold load in this process. */
async function loadOnce(path: string, order: StoredOrder, how: string): Promise<Loaded> {
  if (how === "read") return { ms: timeToRead(path), openMs: 0 };
  const begin = performance.now();
  await using backend = await openWasmBackend({ threads: THREADS, host: SYSTEM_HOST.compute });
  const start = performance.now();
  using checkpoint = await openCheckpoint(path);
  const a = architectureOf(order);
  await uploadWeights(backend, a, await checkpointWeights(checkpoint, a, "auto"), 1025, () => {});
  return { ms: performance.now() - start, openMs: start - begin };
}

/** Writes a checkpoint of GPT-2's shape. */
async function writeCheckpoint(
  path: string,
  order: StoredOrder,
  dtype: WeightDtype,
): Promise<void> {
  const header: Record<string, unknown> = {};
  let end = 0;
  for (const { names: [name], shape, stored } of weightSpecs(specTree(architectureOf(order)))) {
    const begin = end;
    end += storedBytes(dtype, sizeOf(shape));
    header[name] = {
      dtype,
      shape: stored === "KN" ? shape.toReversed() : shape,
      data_offsets: [begin, end],
    };
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(text.length), true);
  const page = bytesOf(narrow(randomNumbers(1 << 18, 10), dtype));
  using file = await Deno.open(path, { write: true, truncate: true });
  const write = (bytes: Uint8Array) => {
    for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
  };
  write(length);
  write(text);
  for (let at = 0; at < end; at += page.length) {
    write(page.subarray(0, Math.min(page.length, end - at)));
  }
}

/** Runs this script in a process by itself with these arguments. */
function inChild<T>(...args: string[]): Promise<T> {
  return child<T>(import.meta.url, ["child", ...args]);
}

const FIGURES: Readonly<Record<string, () => Promise<void>>> = {
  barrier,
  model,
  addresses,
  demo,
  attention,
  memory,
  load,
};

if (import.meta.main) {
  const [first, what, ...rest] = Deno.args;
  if (first === "child") {
    const [path, order, how] = rest;
    const figures = what === "load"
      ? await loadOnce(path, order as StoredOrder, how)
      : await resident(path);
    console.log(JSON.stringify(figures));
  } else {
    for (const name of Deno.args.length ? Deno.args : Object.keys(FIGURES)) {
      if (!Object.hasOwn(FIGURES, name)) {
        console.error(`Cannot measure "${name}": expected ${Object.keys(FIGURES).join(", ")}`);
        Deno.exit(2);
      }
      await FIGURES[name]();
    }
  }
}
