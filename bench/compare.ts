/**
 * Comparison with other engines on the same weights, in interleaved rounds of one run.
 *
 * `deno run -A bench/compare.ts [--smollm2 FOLDER] [--gpt2 FOLDER] [--llama-bench PROGRAM --gguf
 * FOLDER] [--python PROGRAM] [--weights NAME,…] [--v8-flags FLAGS] [--turns ROUNDS]
 * [--write docs/measurements.md]`
 *
 * `docs/measurements.md` says where to get the other engines. Engines and models not given are
 * skipped with a message; `--weights` measures only some rows of the models, and no demo;
 * `--v8-flags` are for wgslm's processes. Prints Markdown; `--write` also replaces the section
 * between the markers of a file.
 *
 * @module
 */
import os from "node:os";
import { parseArgs } from "node:util";
import { readArchitecture } from "../engine/architecture/mod.ts";
import { openCheckpoint } from "../engine/checkpoint/checkpoint.ts";
import { bytesOfNumbers } from "../engine/checkpoint/dtypes.ts";
import { messageOf } from "../engine/errors.ts";
import { specTree, weightSpecs } from "../engine/weights/mod.ts";
import { Limits } from "../kernels/wasm/limits.ts";
import { storedBytes, type WeightDtype } from "../kernels/formats/mod.ts";
import { sizeOf } from "../kernels/tensor.ts";
import {
  type DemoRate,
  type DemoSide,
  LlamaCpp,
  type Rates,
  type Side,
  THREADS,
  Torch,
  Wgslm,
  type Work,
} from "./compare/sides.ts";
import { findPlace, markdownTable } from "./markdown.ts";
import { median, percent } from "./measuring.ts";

/** Passes over memory per round. */
const READS = 5;

/** Blocked weights of GGUF files, which wgslm and llama.cpp read. */
const FILES = ["Q8_0", "Q4_K_M", "Q4_1", "Q4_0"] as const;

/** A row of the first table: an engine, a model and its weights. */
interface Row {
  readonly model: string;
  readonly side: Side;
  /** Dtype, or type of a GGUF file; and the activations, where they are not exact. */
  readonly weights: string;
  readonly measure: () => Promise<Rates>;
  /** Bytes of the weights that one token reads. */
  readonly bytes: number;
  /** One per round. */
  readonly rates: Rates[];
  /** Bytes per second read from memory, one per round. */
  readonly reading: number[];
}

/** A row of the second table: an engine with and without the KV cache, one rate per round. */
interface DemoRow {
  readonly side: DemoSide;
  readonly weights: WeightDtype;
  readonly on: DemoRate[];
  readonly off: DemoRate[];
}

const say = (text: string) => console.error(text);

const given = readFlags();

function readFlags() {
  try {
    return parseArgs({
      options: {
        smollm2: { type: "string" },
        gpt2: { type: "string" },
        "llama-bench": { type: "string" },
        gguf: { type: "string" },
        python: { type: "string" },
        weights: { type: "string" },
        "v8-flags": { type: "string" },
        turns: { type: "string", default: "3" },
        write: { type: "string" },
      },
    }).values;
  } catch (error) {
    return fail(error, 2);
  }
}

function fail(error: unknown, code: number): never {
  say(messageOf(error));
  Deno.exit(code);
}

/** Rows of a model: every engine with each of its weights. */
async function rowsOf(
  model: string,
  name: "smollm2" | "gpt2",
  dtypes: Readonly<Record<"wgslm" | "llama" | "torch", readonly WeightDtype[]>>,
  { wgslm, llama, torch }: { wgslm: Wgslm; llama?: LlamaCpp; torch?: Torch },
): Promise<Row[]> {
  const folder = given[name];
  if (folder === undefined) {
    say(`skipped ${model}: --${name} is missing`);
    return [];
  }
  const numbers = await numbersOf(folder);
  const row = (side: Side, weights: string, bytes: number, work: Work): Row => ({
    model,
    side,
    weights,
    measure: () => side.model(work),
    bytes,
    rates: [],
    reading: [],
  });
  const float = (side: Side, dtype: WeightDtype, path = folder) =>
    row(side, dtype, storedBytes(dtype, numbers), { path, dtype });
  const rows = [
    ...dtypes.wgslm.map((dtype) => float(wgslm, dtype)),
    ...(llama ? dtypes.llama.map((dtype) => float(llama, dtype, llama.path(name, dtype))) : []),
    ...(torch ? dtypes.torch.map((dtype) => float(torch, dtype)) : []),
  ];
  for (const type of llama ? FILES : []) {
    const path = llama!.path(name, type);
    const bytes = await tensorBytes(path);
    rows.push(
      row(wgslm, type, bytes, { path }),
      row(wgslm, `${type} ${INT8}`, bytes, { path, activations: "int8" }),
      row(llama!, type, bytes, { path }),
    );
  }
  const wanted = given.weights?.split(",");
  return rows.filter(({ weights }) => wanted?.includes(weights.split(" ")[0]) ?? true);
}

/** Numbers of a model's weights that one token reads. */
async function numbersOf(folder: string): Promise<number> {
  const config = JSON.parse(await Deno.readTextFile(`${folder}/config.json`));
  return weightSpecs(specTree(readArchitecture(config, folder)))
    .filter(({ names }) => !isPositions(names[0]))
    .reduce((sum, { shape }) => sum + sizeOf(shape), 0);
}

/** A token reads only one row of the learned positions. */
const isPositions = (name: string) => name.includes("wpe") || name.includes("position_embd");

/** Bytes of a GGUF file's tensors that one token reads; the embedding is the head too. */
async function tensorBytes(path: string): Promise<number> {
  using file = await openCheckpoint(path);
  return file.tensors().filter(({ name }) => !isPositions(name)).reduce(
    (sum, { dtype, shape }) => sum + bytesOfNumbers(dtype, sizeOf(shape)),
    0,
  );
}

/** Measures every row once per round, and memory bandwidth in the same round. */
async function measureModels(rows: readonly Row[], rounds: number): Promise<void> {
  if (!rows.length) return;
  await using limits = await Limits.open(THREADS);
  const reading = await limits.reading();
  for (let i = 0; i < READS; i++) reading.run(); // the first passes are slower
  for (let round = 1; round <= rounds; round++) {
    for (const row of rows) {
      const passes = Array.from({ length: READS }, () => {
        const start = performance.now();
        reading.run();
        return 1000 * reading.bytes / (performance.now() - start);
      });
      row.reading.push(median(passes));
      const rates = await row.measure();
      row.rates.push(rates);
      say(
        `round ${round} of ${rounds}: ${row.model}, ${rates.engine}, ${row.weights}: decode ${
          rates.decode.toFixed(1)
        }, prefill ${rates.prefill.toFixed(0)} tok/s; memory ${
          (median(passes) / 1e9).toFixed(1)
        } GB/s`,
      );
    }
  }
}

async function measureDemo(rows: readonly DemoRow[], rounds: number): Promise<void> {
  for (let round = 1; round <= rounds; round++) {
    for (const { side, on, off } of rows) {
      on.push(await side.demo(true));
      off.push(await side.demo(false));
      say(
        `round ${round} of ${rounds}: demo, ${on[round - 1].engine}: with the cache ${
          on[round - 1].rate.toFixed(0)
        }, without ${off[round - 1].rate.toFixed(0)} tok/s`,
      );
    }
  }
}

const decodes = ({ rates }: Row) => rates.map(({ decode }) => decode);

const prefills = ({ rates }: Row) => rates.map(({ prefill }) => prefill);

const ratesOf = (rates: readonly DemoRate[]) => rates.map(({ rate }) => rate);

/** Weight bytes read per second as a share of the bandwidth in the same round. */
const shares = (row: Row) => decodes(row).map((decode, i) => decode * row.bytes / row.reading[i]);

/** Median ratio over rounds, as text. */
function times(ours: readonly number[], others: readonly number[]): string {
  return `${median(ours.map((rate, i) => rate / others[i])).toFixed(2)}×`;
}

type Find = (
  model: string,
  side: typeof Wgslm | typeof LlamaCpp | typeof Torch,
  weights: string,
) => Row | undefined;

/** Goals of this project and their results, if the rows contain them. */
function goals(rows: readonly Row[], demo: readonly DemoRow[]): string[] {
  const find: Find = (model, side, weights) =>
    rows.find((row) => row.model === model && row.side instanceof side && row.weights === weights);
  const lines = [...floatGoals(find), ...fileGoals(find)];
  const [wgslm, torch] = demo;
  if (torch) {
    lines.push(
      `the demo with the cache runs at ${
        times(ratesOf(wgslm.on), ratesOf(torch.on))
      } PyTorch (goal 3×), without it at ${times(ratesOf(wgslm.off), ratesOf(torch.off))}`,
    );
  }
  return lines;
}

function floatGoals(find: Find): string[] {
  const lines: string[] = [];
  const ours = find(SMOLLM2, Wgslm, "BF16");
  if (ours) {
    lines.push(
      `${SMOLLM2} in BF16 decodes at ${
        percent(median(shares(ours)))
      } of what memory gives (goal 70 %)`,
    );
    const llama = find(SMOLLM2, LlamaCpp, "F16");
    if (llama) {
      lines.push(
        `… at ${times(decodes(ours), decodes(llama))} llama.cpp in F16 (goal 0.9×); prefill at ${
          times(prefills(ours), prefills(llama))
        }`,
      );
    }
    for (const dtype of ["BF16", "F32"] as const) {
      const torch = find(SMOLLM2, Torch, dtype);
      if (!torch) continue;
      lines.push(
        `… at ${times(decodes(ours), decodes(torch))} transformers in ${dtype} (goal 2.5×)`,
      );
    }
  }
  const gpt2 = find(GPT2, Wgslm, "F32");
  if (gpt2) {
    for (const other of [find(GPT2, LlamaCpp, "F32"), find(GPT2, Torch, "F32")]) {
      if (!other) continue;
      lines.push(
        `${GPT2} in F32 decodes at ${times(decodes(gpt2), decodes(other))} ${
          other.rates[0].engine
        } (goal: ahead)`,
      );
    }
  }
  return lines;
}

/** Blocked weights against llama.cpp on the same file. */
function fileGoals(find: Find): string[] {
  return [SMOLLM2, GPT2].flatMap((model) =>
    FILES.flatMap((type) => [type, `${type} ${INT8}`]).flatMap((weights) => {
      const ours = find(model, Wgslm, weights);
      const llama = find(model, LlamaCpp, weights.split(" ")[0]);
      if (!ours || !llama) return [];
      const decode = times(decodes(ours), decodes(llama));
      const prefill = times(prefills(ours), prefills(llama));
      return [
        `${model} in ${weights} decodes at ${decode} llama.cpp on the same file ` +
        `(goal: ${DECODE_GOALS[weights] ?? "none"}); prefill at ${prefill}`,
      ];
    })
  );
}

const SMOLLM2 = "SmolLM2-135M-Instruct";
const GPT2 = "GPT-2's shape";
const INT8 = "int8";

/** Rates of decoding relative to llama.cpp's on the same file. */
const DECODE_GOALS: Readonly<Record<string, string>> = {
  "Q8_0": "0.9×",
  "Q8_0 int8": "1.2×",
  "Q4_0": "1.2×",
  "Q4_1": "1.2×",
  "Q4_K_M": "1.2×",
};

async function main(): Promise<void> {
  const started = performance.now();
  const rounds = Number(given.turns);
  if (!Number.isInteger(rounds) || rounds < 1 || rounds % 2 === 0) {
    fail(`Cannot compare: expected --turns to be an odd number of rounds, got "${given.turns}"`, 2);
  }
  const place = given.write === undefined ? undefined : await findPlace(given.write);
  const wgslm = new Wgslm(given["v8-flags"]);
  const { "llama-bench": program, gguf, python } = given;
  const llama = program && gguf ? new LlamaCpp(program, gguf) : undefined;
  if (!llama) say("skipped llama.cpp: --llama-bench or --gguf is missing");
  await using torch = python ? new Torch(python) : undefined;
  if (!torch) say("skipped PyTorch: --python is missing");
  const sides = { wgslm, llama, torch };
  const all = ["F32", "F16", "BF16"] as const;
  const rows = [
    ...await rowsOf(
      SMOLLM2,
      "smollm2",
      { wgslm: ["BF16"], llama: all, torch: ["F32", "BF16"] },
      sides,
    ),
    ...await rowsOf(GPT2, "gpt2", { wgslm: all, llama: all, torch: ["F32", "BF16"] }, sides),
  ];
  await measureModels(rows, rounds);
  const demo: DemoRow[] = [];
  if (given.weights === undefined) {
    demo.push({ side: wgslm, weights: "F16", on: [], off: [] });
    if (torch) demo.push({ side: torch, weights: "F32", on: [], off: [] });
    await measureDemo(demo, rounds);
  }
  const text = report(rows, demo, rounds);
  console.log(text);
  say(`took ${((performance.now() - started) / 60_000).toFixed(1)} minutes`);
  await place?.(text);
}

/** The tables, and the results of the goals. */
function report(rows: readonly Row[], demo: readonly DemoRow[], rounds: number): string {
  const gb = rows.flatMap(({ reading }) => reading).map((rate) => (rate / 1e9).toFixed(1))
    .toSorted((a, b) => Number(a) - Number(b));
  const memory = gb.length
    ? `; ${THREADS} threads read memory at ${gb[0]} to ${gb.at(-1)} GB/s`
    : "";
  const models = markdownTable(
    ["model", "engine", "weights", "decode, tok/s", "of memory", "prefill, tok/s"],
    rows.map((row) => [
      row.model,
      row.rates[0].engine,
      row.weights,
      median(decodes(row)).toFixed(1),
      percent(median(shares(row))),
      median(prefills(row)).toFixed(0),
    ]),
  );
  const demos = markdownTable(
    ["model", "engine", "weights", "with the cache, tok/s", "without it, tok/s"],
    demo.map(({ weights, on, off }) => [
      "demo",
      on[0].engine,
      weights,
      median(ratesOf(on)).toFixed(0),
      median(ratesOf(off)).toFixed(0),
    ]),
  );
  const list = goals(rows, demo).map((line) => `- ${line}`);
  return [
    `${os.cpus()[0].model}, ${os.cpus().length} cores; ${THREADS} threads for each engine; ` +
    `medians of ${rounds} rounds${memory}.`,
    ...(rows.length ? [models] : []),
    ...(demo.length ? [demos] : []),
    ...(list.length ? [list.join("\n")] : []),
  ].join("\n\n");
}

await main().catch((error) => fail(error, 1));
