/**
 * Comparison with other engines on the same weights, in interleaved rounds of one run.
 *
 * `deno run -A bench/compare.ts [--smollm2 FOLDER] [--gpt2 FOLDER] [--llama-bench PROGRAM --gguf
 * FOLDER] [--python PROGRAM] [--turns ROUNDS] [--write docs/measurements.md]`
 *
 * `docs/measurements.md` says where to get the other engines. Engines and models not given are
 * skipped with a message. Prints Markdown; `--write` also replaces the section between the markers
 * of a file.
 *
 * @module
 */
import os from "node:os";
import { parseArgs } from "node:util";
import { readArchitecture } from "../engine/architecture/mod.ts";
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
} from "./compare/sides.ts";
import { median, percent } from "./measuring.ts";

/** Passes over memory per round. */
const READS = 5;

const MARKERS = ["<!-- measured -->", "<!-- /measured -->"] as const;

/** A row of the first table: an engine, a model and a dtype. */
interface Row {
  readonly model: string;
  readonly side: Side;
  readonly dtype: WeightDtype;
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

/** Rows of a model: every engine with each of its dtypes. */
async function rowsOf(
  model: string,
  name: "smollm2" | "gpt2",
  dtypes: Readonly<Record<"wgslm" | "llama" | "torch", readonly WeightDtype[]>>,
  sides: { wgslm: Wgslm; llama?: LlamaCpp; torch?: Torch },
): Promise<Row[]> {
  const folder = given[name];
  if (folder === undefined) {
    say(`skipped ${model}: --${name} is missing`);
    return [];
  }
  const config = JSON.parse(await Deno.readTextFile(`${folder}/config.json`));
  // A token reads only one row of the learned positions.
  const read = weightSpecs(specTree(readArchitecture(config, folder))).filter(({ names }) =>
    !names[0].includes("wpe")
  );
  const numbers = read.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  const row = (side: Side, dtype: WeightDtype, source: string): Row => ({
    model,
    side,
    dtype,
    measure: () => side.model(source, dtype),
    bytes: storedBytes(dtype, numbers),
    rates: [],
    reading: [],
  });
  const { wgslm, llama, torch } = sides;
  return [
    ...dtypes.wgslm.map((dtype) => row(wgslm, dtype, folder)),
    ...(llama ? dtypes.llama.map((dtype) => row(llama, dtype, llama.path(name, dtype))) : []),
    ...(torch ? dtypes.torch.map((dtype) => row(torch, dtype, folder)) : []),
  ];
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
        `round ${round} of ${rounds}: ${row.model}, ${rates.engine}, ${row.dtype}: decode ${
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

function markdown(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [head, head.map((_, i) => i < 3 ? "---" : "---:"), ...rows].map(line).join("\n");
}

const decodes = ({ rates }: Row) => rates.map(({ decode }) => decode);

const ratesOf = (rates: readonly DemoRate[]) => rates.map(({ rate }) => rate);

/** Weight bytes read per second as a share of the bandwidth in the same round. */
const shares = (row: Row) => decodes(row).map((decode, i) => decode * row.bytes / row.reading[i]);

/** Median ratio over rounds, as text. */
function times(ours: readonly number[], others: readonly number[]): string {
  return `${median(ours.map((rate, i) => rate / others[i])).toFixed(2)}×`;
}

/** Goals of this project and their results, if the rows contain them. */
function goals(rows: readonly Row[], demo: readonly DemoRow[]): string[] {
  const find = (
    model: string,
    side: typeof Wgslm | typeof LlamaCpp | typeof Torch,
    dtype: string,
  ) => rows.find((row) => row.model === model && row.side instanceof side && row.dtype === dtype);
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
      lines.push(`… at ${times(decodes(ours), decodes(llama))} llama.cpp in F16 (goal 0.9×)`);
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

const SMOLLM2 = "SmolLM2-135M-Instruct";
const GPT2 = "GPT-2's shape";

async function main(): Promise<void> {
  const started = performance.now();
  const rounds = Number(given.turns);
  if (!Number.isInteger(rounds) || rounds < 1 || rounds % 2 === 0) {
    fail(`Cannot compare: expected --turns to be an odd number of rounds, got "${given.turns}"`, 2);
  }
  const place = given.write === undefined ? undefined : await findPlace(given.write);
  const wgslm = new Wgslm();
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
  const demo: DemoRow[] = [{ side: wgslm, weights: "F16", on: [], off: [] }];
  if (torch) demo.push({ side: torch, weights: "F32", on: [], off: [] });
  await measureDemo(demo, rounds);
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
  const models = markdown(
    ["model", "engine", "weights", "decode, tok/s", "of memory", "prefill, tok/s"],
    rows.map((row) => [
      row.model,
      row.rates[0].engine,
      row.dtype,
      median(decodes(row)).toFixed(1),
      percent(median(shares(row))),
      median(row.rates.map(({ prefill }) => prefill)).toFixed(0),
    ]),
  );
  const demos = markdown(
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
    demos,
    ...(list.length ? [list.join("\n")] : []),
  ].join("\n\n");
}

/**
 * Finds the section to replace, before minutes of measuring; returns the function that replaces it.
 */
async function findPlace(path: string): Promise<(text: string) => Promise<void>> {
  const old = await Deno.readTextFile(path);
  const [begin, end] = MARKERS.map((marker) => old.indexOf(marker));
  if (begin < 0 || end < begin) {
    throw new Error(
      `Cannot write "${path}": expected markers ${MARKERS[0]} and ${MARKERS[1]}, got none`,
    );
  }
  const head = old.slice(0, begin + MARKERS[0].length);
  return async (text) => {
    await Deno.writeTextFile(path, `${head}\n\n${text}\n\n${old.slice(end)}`);
    await new Deno.Command(Deno.execPath(), { args: ["fmt", "--quiet", path] }).output();
  };
}

await main().catch((error) => fail(error, 1));
