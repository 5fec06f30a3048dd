/**
 * Figures of quantised weights on the WebAssembly backend, two threads, each beside its goal.
 *
 * `deno run -A --v8-flags=--no-liftoff bench/quantised_figures.ts [Q8_0] [Q8_0:int8] …`, all by
 * default. Shapes are SmolLM2-135M's and, for the K types, GPT-2's; weights are random, which
 * changes no time. Rounds are interleaved:
 *
 *     read memory │ decode 32 tokens │ prefill 128 │ prefill 128 of F32 │ read memory │ …
 *
 *     step      bytes of weights and cache by the time of a token, by the rate of reading
 *     products  bytes of all matrices by the time of their products alone, by the same
 *     rest      share of a token's time that is not in products
 *     prefill   time of F32 by that of the row
 *
 * @module
 */
import { type Architecture, readArchitecture } from "../engine/architecture/mod.ts";
import { forward } from "../engine/decoder.ts";
import { SYSTEM_HOST } from "../engine/host/system.ts";
import { Runner } from "../engine/runner.ts";
import {
  chooseDtypes,
  specTree,
  uploadWeights,
  type WeightSource,
  weightSpecs,
} from "../engine/weights/mod.ts";
import type { Activations, Backend } from "../kernels/backend.ts";
import { encoderOf, storedBytes, type WeightDtype } from "../kernels/formats/mod.ts";
import { sizeOf } from "../kernels/tensor.ts";
import { openWasmBackend } from "../kernels/wasm/backend.ts";
import { Limits } from "../kernels/wasm/limits.ts";
import { randomNumbers } from "../tests/testing.ts";
import { GPT2_NK as GPT2 } from "./decode.ts";
import { median, percent, rest, timed } from "./measuring.ts";

const THREADS = 2;

/** Tokens in the cache when decoding is measured, and rows of the prefill. */
const DEPTH = 128;

/** Tokens of a round's decode, and rounds. */
const [TOKENS, ROUNDS] = [32, 9];

/** config.json of SmolLM2-135M. */
const SMOLLM2 = {
  model_type: "llama",
  vocab_size: 49152,
  max_position_embeddings: 1024,
  num_hidden_layers: 30,
  num_attention_heads: 9,
  num_key_value_heads: 3,
  hidden_size: 576,
  intermediate_size: 1536,
  rms_norm_eps: 1e-5,
  rope_theta: 100000,
  tie_word_embeddings: true,
};

/** A row of the table: what is measured, and the goals of decode and prefill. */
interface Row {
  readonly config: Readonly<Record<string, unknown>>;
  readonly dtype: WeightDtype;
  readonly activations: Activations;
  readonly decode?: number;
  readonly prefill?: number;
}

const row = (
  [config, dtype, activations = "exact"]: [Row["config"], WeightDtype, Activations?],
  goals: Pick<Row, "decode" | "prefill">,
): Row => ({ config, dtype, activations, ...goals });

const [EXACT, INT8] = [0.85, 1.5];
const ROWS: readonly Row[] = [
  row([SMOLLM2, "BF16"], {}),
  row([SMOLLM2, "Q8_0"], { decode: 0.55, prefill: EXACT }),
  row([SMOLLM2, "Q8_0", "int8"], { decode: 0.75, prefill: INT8 }),
  row([SMOLLM2, "Q4_0"], { decode: 0.55, prefill: EXACT }),
  row([SMOLLM2, "Q4_0", "int8"], { prefill: INT8 }),
  row([SMOLLM2, "Q4_1"], { decode: 0.55, prefill: EXACT }),
  row([SMOLLM2, "Q4_1", "int8"], { prefill: INT8 }),
  row([GPT2, "Q4_K"], { decode: 0.5, prefill: EXACT }),
  row([GPT2, "Q4_K", "int8"], { prefill: INT8 }),
  row([GPT2, "Q5_K"], {}),
  row([GPT2, "Q6_K"], { decode: 0.5, prefill: EXACT }),
  row([GPT2, "Q6_K", "int8"], { prefill: INT8 }),
];

/** Name of a row, as in the arguments. */
function nameOf({ dtype, activations }: Row): string {
  return activations === "exact" ? dtype : `${dtype}:${activations}`;
}

/** Random weights; every matrix repeats one page, since the K types take long to encode. */
function repeatedWeights(a: Architecture, wanted: WeightDtype): WeightSource {
  const pages = new Map<WeightDtype, Uint8Array>();
  const pageOf = (dtype: WeightDtype): Uint8Array => {
    const made = pages.get(dtype);
    if (made) return made;
    const values = randomNumbers(1 << 14, 3).map((v) => 0.03 * v);
    const page = new Uint8Array(storedBytes(dtype, values.length));
    encoderOf(dtype)(page, values);
    pages.set(dtype, page);
    return page;
  };
  const specs = specTree(a);
  return {
    specs,
    ...chooseDtypes(specs, wanted, () => "F32"),
    fill: ({ shape, initial = 0 }, dtype) => (_row, count, into) => {
      if (shape.length === 1) {
        encoderOf(dtype)(into, new Float32Array(count).fill(initial));
        return;
      }
      const page = pageOf(dtype);
      for (let at = 0; at < into.length; at += page.length) {
        into.set(page.subarray(0, Math.min(page.length, into.length - at)), at);
      }
    },
  };
}

/** A model on a backend of its own. */
interface Opened extends AsyncDisposable {
  readonly backend: Backend;
  readonly runner: Runner;
  /** Bytes of the matrices that a token reads. */
  readonly bytes: number;
}

async function open({ config, dtype, activations }: Row): Promise<Opened> {
  const a = readArchitecture(config, "the shape");
  const backend = await openWasmBackend({
    threads: THREADS,
    activations,
    host: SYSTEM_HOST.compute,
  });
  const source = repeatedWeights(a, dtype);
  const slots = a.blockSize;
  const weights = await uploadWeights(backend, a, source, slots + 1, () => {});
  const runner = await Runner.create(backend, a, weights, { id: dtype, slots, chunk: DEPTH });
  runner.startSampling({ temperature: 0.8, topK: 40, topP: 1, repetitionPenalty: 1 }, 1);
  // A token reads one row of the learned positions.
  const read = weightSpecs(source.specs).filter((spec) =>
    spec.shape.length > 1 && spec !== source.specs.wpe
  );
  const bytes = read.reduce(
    (sum, spec) => sum + storedBytes(source.dtype(spec), sizeOf(spec.shape)),
    0,
  );
  return { backend, runner, bytes, [Symbol.asyncDispose]: () => backend[Symbol.asyncDispose]() };
}

const PROMPT = Array.from({ length: DEPTH + 1 }, (_, i) => i);

/** Milliseconds of a prefill of 128 rows. */
async function prefillMs(runner: Runner): Promise<number> {
  await rest();
  const start = performance.now();
  await runner.prefill(PROMPT);
  return performance.now() - start;
}

/** Milliseconds of a token, after a prefill. */
async function tokenMs(runner: Runner): Promise<number> {
  await rest();
  const start = performance.now();
  for (let drawn = 0; drawn < TOKENS;) drawn += (await runner.draw(TOKENS - drawn)).length;
  return (performance.now() - start) / TOKENS;
}

/** Milliseconds of each kind of kernel in a token. */
async function kernelTimes({ backend, runner }: Opened): Promise<Map<string, number>> {
  const { weights, buffers: { decode } } = runner;
  const step = { rows: 1, position: DEPTH, slot: DEPTH, length: DEPTH + 1 };
  const times = await backend.profile((k) => forward(k, weights, decode), step);
  return new Map(times.map(({ name, ms }) => [name, ms]));
}

async function measure(row: Row, limit: () => number, plain: Opened): Promise<void> {
  await using opened = await open(row);
  const { runner, bytes } = opened;
  const a = runner.architecture;
  const cache = 2 * 4 * a.nLayer * a.nKvHead * a.headDim * DEPTH;
  const [steps, rates, tokens, prefills, ratios]: number[][] = [[], [], [], [], []];
  for (let round = 0; round < ROUNDS; round++) {
    const plainMs = await prefillMs(plain.runner);
    prefills.push(await prefillMs(runner));
    ratios.push(plainMs / prefills[round]);
    await rest();
    rates.push(limit());
    tokens.push(await tokenMs(runner));
    steps.push((bytes + cache) / tokens[round] / rates[round]);
  }
  const times = await kernelTimes(opened);
  const isProduct = (name: string) => name.startsWith("matmul");
  const sum = (of: (name: string) => boolean) =>
    [...times].reduce((total, [name, ms]) => of(name) ? total + ms : total, 0);
  const products = sum(isProduct);
  const goal = (share?: number) => share === undefined ? "" : ` (${percent(share)})`;
  console.log(
    [
      nameOf(row).padEnd(10),
      `step ${percent(median(steps))}${goal(row.decode)}`.padEnd(17),
      `of ${(median(rates) / 1e6).toFixed(1)} GB/s: ${median(tokens).toFixed(2)} ms`,
      `products ${percent(bytes / products / median(rates))}`,
      `rest ${percent(1 - products / median(tokens))}`,
      `prefill ${median(ratios).toFixed(2)}${row.prefill ? ` (${row.prefill})` : ""}`.padEnd(19),
      `${(DEPTH / median(prefills) * 1000).toFixed(0)} tok/s`,
    ].join("  "),
  );
  const parts = [...times].map(([name, ms]) => `${name} ${(1000 * ms).toFixed(0)}`);
  console.log(`           µs: ${parts.join(" · ")}`);
}

if (import.meta.main) {
  const names = Deno.args.length ? Deno.args : ROWS.map(nameOf);
  const unknown = names.find((name) => !ROWS.some((row) => nameOf(row) === name));
  if (unknown !== undefined) {
    console.error(
      `Cannot measure "${unknown}": expected one of ${ROWS.map(nameOf).join(", ")}`,
    );
    Deno.exit(2);
  }
  await using limits = await Limits.open(THREADS);
  const reading = await limits.reading();
  const limit = () => reading.bytes / Math.min(timed(reading.run), timed(reading.run));
  for (const config of [SMOLLM2, GPT2]) {
    const rows = ROWS.filter((row) => row.config === config && names.includes(nameOf(row)));
    if (!rows.length) continue;
    console.log(`\n${config === GPT2 ? "GPT-2" : "SmolLM2-135M"}`);
    await using plain = await open({ config, dtype: "F32", activations: "exact" });
    for (const row of rows) await measure(row, limit, plain);
  }
}
