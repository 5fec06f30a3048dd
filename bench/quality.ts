/**
 * Quality of quantised weights: perplexity, and divergence from BF16, on SmolLM2, of wgslm and of
 * llama.cpp on the same windows of a text.
 *
 * `deno run -A bench/quality.ts --smollm2 FOLDER --text FILE [--llama-cpp FOLDER --gguf FOLDER]
 * [--tokens COUNT] [--write docs/quantisation.md]`
 *
 * `docs/quantisation.md` says where to get each. Ctrl-C ends the run after the current window and
 * reports the windows so far. Prints Markdown; `--write` also replaces the section between the
 * markers of a file.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { messageOf } from "../engine/errors.ts";
import { loadModel } from "../engine/load.ts";
import type { LoadOptions } from "../engine/load_options.ts";
import { logSumExp, topOf } from "../engine/measure/perplexity.ts";
import { LlamaCppModel } from "./compare/llama_oracle.ts";
import { findPlace, markdownTable } from "./markdown.ts";

const THREADS = 2;

/** Tokens per window; windows do not overlap. */
const CONTEXT = 512;

/** A set of weights in one engine. */
interface Scorer extends AsyncDisposable {
  /** Logits [ids.length, V]. */
  logits(ids: readonly number[]): Promise<Float32Array>;
}

/** First columns of a row. */
interface Name {
  readonly weights: string;
  readonly engine: string;
}

/** A row of the table. */
interface Row extends Name {
  readonly open: () => Promise<Scorer>;
}

/** Sums over the scored tokens. */
interface Sums {
  nll: number;
  kl: number;
  sameTop: number;
}

/** Reference distributions of a window. */
interface Expected {
  /** Logarithms of the probabilities [T, V], and the probabilities. */
  readonly logP: Float32Array;
  readonly p: Float32Array;
  /** Most probable id of each row. */
  readonly top: readonly number[];
}

const REFERENCE: Name = { weights: "BF16", engine: "wgslm" };
const DTYPES = ["Q8_0", "Q6_K", "Q5_K", "Q4_1", "Q4_K", "Q4_0"] as const;
const GGUFS = ["q8_0", "q6_k", "q5_k_m", "q4_1", "q4_k_m", "q4_0"] as const;

const say = (text: string) => console.error(text);

const { smollm2, text, "llama-cpp": llama, gguf, tokens, write } = parseArgs({
  options: {
    smollm2: { type: "string" },
    text: { type: "string" },
    "llama-cpp": { type: "string" },
    gguf: { type: "string" },
    tokens: { type: "string", default: "20480" },
    write: { type: "string" },
  },
}).values;

function rowsOf(folder: string): Row[] {
  const ours = (
    weights: string,
    how: string,
    options: LoadOptions,
    path = folder,
  ): Row => ({
    weights,
    engine: `wgslm${how}`,
    open: () => loadModel(path, { ...SHARED, ...options }),
  });
  const rows = [
    ours("BF16", ", cache in F16", { kvDtype: "F16" }),
    ours("BF16", ", cache in Q8_0", { kvDtype: "Q8_0" }),
    ...DTYPES.map((dtype) => ours(dtype, ", at load", { dtype })),
    ours("Q8_0", ", at load, int8", { dtype: "Q8_0", activations: "int8" }),
  ];
  if (llama === undefined || gguf === undefined) {
    say("skipped llama.cpp: --llama-cpp or --gguf is missing");
    return rows;
  }
  const path = (type: string) => `${gguf}/smollm2-${type}.gguf`;
  const name = (type: string) => `${type.toUpperCase()} file`;
  const theirs = (type: string): Row => ({
    weights: name(type),
    engine: "llama.cpp",
    open: () => LlamaCppModel.open(llama, path(type), { context: CONTEXT, threads: THREADS }),
  });
  return [
    ...rows,
    // Other files of llama.cpp have the bytes of ours, or other types for some tensors.
    ours(name("q4_k_m"), "", {}, path("q4_k_m")),
    ...GGUFS.map(theirs),
  ];
}

const SHARED = { device: "wasm", threads: THREADS, contextLength: CONTEXT } as const;

/** The reference's distributions of rows of logits. */
function expectedOf(logits: Float32Array, V: number): Expected {
  const logP = new Float32Array(logits.length);
  const top = [];
  for (let at = 0; at < logits.length; at += V) {
    const row = logits.subarray(at, at + V);
    const total = logSumExp(row);
    for (let i = 0; i < V; i++) logP[at + i] = row[i] - total;
    top.push(topOf(row));
  }
  return { logP, p: logP.map(Math.exp), top };
}

/** Adds the scores of a window. */
function add(
  sums: Sums,
  logits: Float32Array,
  { logP, p, top }: Expected,
  targets: readonly number[],
): void {
  const V = logits.length / top.length;
  for (const [t, target] of targets.entries()) {
    const row = logits.subarray(t * V, t * V + V);
    const total = logSumExp(row);
    sums.nll += total - row[target];
    for (let i = 0, at = t * V; i < V; i++, at++) {
      sums.kl += p[at] * (logP[at] - (row[i] - total));
    }
    sums.sameTop += Number(topOf(row) === top[t]);
  }
}

function report(rows: readonly Row[], sums: readonly Sums[], count: number): string {
  const perplexity = (sum: Sums) => Math.exp(sum.nll / count);
  const table = markdownTable(
    ["weights", "engine", "perplexity", "by BF16's", "KL, nats", "same top token"],
    [REFERENCE, ...rows].map(({ weights, engine }, i) => [
      weights,
      engine,
      perplexity(sums[i]).toFixed(3),
      (perplexity(sums[i]) / perplexity(sums[0])).toFixed(4),
      i === 0 ? "–" : Math.max(0, sums[i].kl / count).toExponential(1),
      i === 0 ? "–" : `${(100 * sums[i].sameTop / count).toFixed(1)} %`,
    ]),
    2,
  );
  return `${count} scored tokens, in windows of ${CONTEXT}.\n\n${table}`;
}

async function main(): Promise<void> {
  if (smollm2 === undefined || text === undefined) {
    throw new Error("Cannot measure: expected --smollm2 and --text, got one of them or none");
  }
  const place = write === undefined ? undefined : await findPlace(write);
  const rows = rowsOf(smollm2);
  await using open = new AsyncDisposableStack();
  const scorers: Scorer[] = [];
  for (const row of rows) {
    scorers.push(open.use(await row.open()));
    say(`loaded ${row.weights}, ${row.engine}`);
  }
  await using reference = await loadModel(smollm2, SHARED);
  const ids = reference.tokenizer.encode(await Deno.readTextFile(text)).slice(0, Number(tokens));
  const sums = [REFERENCE, ...rows].map((): Sums => ({ nll: 0, kl: 0, sameTop: 0 }));
  let [count, isEnded] = [0, false];
  Deno.addSignalListener("SIGINT", () => isEnded = true);
  for (let begin = 0; begin + 1 < ids.length && !isEnded; begin += CONTEXT) {
    const window = ids.slice(begin, begin + CONTEXT);
    const [inputs, targets] = [window.slice(0, -1), window.slice(1)];
    const logits = await reference.logits(inputs);
    const expected = expectedOf(logits, reference.config.vocabSize);
    add(sums[0], logits, expected, targets);
    for (const [i, scorer] of scorers.entries()) {
      add(sums[i + 1], await scorer.logits(inputs), expected, targets);
    }
    count += targets.length;
    const soFar = sums.map(({ nll }) => Math.exp(nll / count).toFixed(2)).join(" ");
    say(`${count} of ${ids.length} tokens: ${soFar}`);
  }
  const result = report(rows, sums, count);
  console.log(result);
  await place?.(result);
}

await main().catch((error) => {
  say(messageOf(error));
  Deno.exit(1);
});
