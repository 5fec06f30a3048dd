/**
 * Time and resident memory of a load, beside the time of reading the same bytes.
 *
 *     deno run -A bench/load_figures.ts MODEL.gguf
 *     deno run -A bench/load_figures.ts FOLDER Q8_0 Q4_0 Q4_1 Q4_K
 *
 * Each measurement is a process by itself, in interleaved rounds after one that warms the disk
 * cache. `read` fills one new buffer with the file by `readSync`, first touch of its pages
 * included. `load` opens the file and packs the weights on two threads; the backend was opened
 * before, and the tokenizer is left out. Resident memory is that of `loadModel` after a few tokens,
 * less weights, cache, and what the process had before. `tokenizer` loads the tokenizer alone.
 *
 * @module
 */
import { loadModel, type LoadOptions, loadTokenizer } from "../mod.ts";
import { openBackend } from "../kernels/mod.ts";
import { isWeightDtype } from "../kernels/formats/mod.ts";
import { readArchitecture, readGguf } from "../engine/architecture/mod.ts";
import { openWeights } from "../engine/checkpoint/checkpoint.ts";
import { estimateMemory } from "../engine/memory.ts";
import { SYSTEM_HOST } from "../engine/host/system.ts";
import { checkpointWeights, uploadWeights } from "../engine/weights/mod.ts";
import { child, median, timeToRead } from "./measuring.ts";

/** Processes of each kind. */
const ROUNDS = 5;

/** Slots of the cache. */
const CONTEXT = 128;

/** One process: milliseconds, and bytes beyond weights and cache. */
interface Measured {
  readonly ms: number;
  readonly over: number;
}

/** Fills one buffer with a file. */
function read(path: string): Measured {
  return { ms: timeToRead(path), over: 0 };
}

/** Opens a file and packs its weights. */
async function load(source: string, dtype: string): Promise<Measured> {
  await using backend = await openBackend("wasm", { threads: 2, host: SYSTEM_HOST.compute });
  const start = performance.now();
  using checkpoint = await openWeights(fileOf(source), true);
  const a = checkpoint.format === "gguf"
    ? await readGguf(checkpoint)
    : readArchitecture(JSON.parse(Deno.readTextFileSync(`${source}/config.json`)), source);
  const kept = isWeightDtype(dtype) ? dtype : "auto";
  const weights = await checkpointWeights(checkpoint, a, kept);
  const memory = estimateMemory(weights.architecture, weights, { contextLength: CONTEXT, backend });
  await backend.reserve?.(source, memory.total, memory.classes.weights);
  await uploadWeights(backend, weights.architecture, weights, CONTEXT + 1, () => {});
  return { ms: performance.now() - start, over: 0 };
}

/** Loads a model, and draws a few tokens. */
async function reside(source: string, dtype: string): Promise<Measured> {
  const idle = Deno.memoryUsage().rss;
  const start = performance.now();
  await using model = await loadModel(source, {
    device: "wasm",
    threads: 2,
    contextLength: CONTEXT,
    dtype: dtype as LoadOptions["dtype"],
  });
  const ms = performance.now() - start;
  const prompt = Array.from({ length: CONTEXT - 16 }, (_, i) => i);
  for await (const _ of model.generate(prompt, { maxNewTokens: 16, ignoreEos: true, seed: 1 }));
  const { weights, kvCache } = model.memory.classes;
  return { ms, over: Deno.memoryUsage().rss - idle - weights.current - kvCache.current };
}

/** Loads the tokenizer. */
async function tokenizer(source: string): Promise<Measured> {
  const idle = Deno.memoryUsage().rss;
  const start = performance.now();
  const opened = await loadTokenizer(source);
  const ms = performance.now() - start;
  opened.encode("a");
  return { ms, over: Deno.memoryUsage().rss - idle };
}

/** The safetensors file of a folder, or the file itself. */
function fileOf(source: string): string {
  return Deno.statSync(source).isDirectory ? `${source}/model.safetensors` : source;
}

async function figures(source: string, dtypes: readonly string[]): Promise<void> {
  const found: Record<string, Measured[]> = {};
  const kinds = [
    ["read"],
    ["tokenizer"],
    ...dtypes.flatMap((dtype) => [["load", dtype], ["reside", dtype]]),
  ];
  for (let round = -1; round < ROUNDS; round++) {
    for (const [how, ...dtype] of kinds) {
      const measured = await child<Measured>(import.meta.url, [
        how,
        how === "read" ? fileOf(source) : source,
        ...dtype,
      ]);
      if (round >= 0) (found[[how, ...dtype].join()] ??= []).push(measured);
    }
  }
  const middle = (kind: string, of: keyof Measured) => median(found[kind].map((m) => m[of]));
  const read = middle("read", "ms");
  const mib = (kind: string) => (middle(kind, "over") / 2 ** 20).toFixed(0);
  console.log(
    `${source}: read ${read.toFixed(0)} ms; tokenizer ${
      middle("tokenizer", "ms").toFixed(0)
    } ms, ` +
      `${mib("tokenizer")} MiB`,
  );
  for (const dtype of dtypes) {
    const ms = middle(`load,${dtype}`, "ms");
    console.log(
      `  ${dtype.padEnd(5)} load ${ms.toFixed(0)} ms, ${(ms / read).toFixed(2)}× the read; ` +
        `loadModel ${middle(`reside,${dtype}`, "ms").toFixed(0)} ms; resident ` +
        `${mib(`reside,${dtype}`)} MiB over weights and cache`,
    );
  }
}

if (import.meta.main) {
  const [first, ...others] = Deno.args;
  const once = { read, load, reside, tokenizer }[first];
  if (once) console.log(JSON.stringify(await once(others[0], others[1])));
  else await figures(first, others.length ? others : ["auto"]);
}
