/**
 * Table of the command line's flags: values and help, for the parser and `--help`.
 *
 * @module
 */
import { OPERATIONS } from "../kernels/calls.ts";
import { KV_DTYPES } from "../kernels/formats/kv.ts";
import { ALIASES, DTYPES } from "../kernels/formats/mod.ts";
import { DEFAULTS, numbers, type Range, RANGES, wholeNumbers } from "../engine/defaults.ts";

/** Bad usage: the message is for the user; exit status 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** Combinations of a sweep that need no `--yes`. */
export const MOST_COMBINATIONS = 200;

/** A flag that takes a value of type T. */
export interface ValueFlag<T> {
  /** Name of the value in the help. */
  readonly value: string;
  readonly about: string;
  /** @throws {UsageError} With the values expected. */
  readonly parse: (text: string) => T;
}

/** A flag without a value. */
export interface Switch {
  readonly about: string;
  /** Whether `--no-<name>` turns it off. */
  readonly negatable: boolean;
}

function text(value: string, about: string): ValueFlag<string> {
  return {
    value,
    about,
    parse: (text) => {
      if (text === "") throw new UsageError(`${value}, got an empty text`);
      return text;
    },
  };
}

function anyText(value: string, about: string): ValueFlag<string> {
  return { value, about, parse: (text) => text };
}

function number(value: string, about: string, range: Range): ValueFlag<number> {
  return {
    value,
    about,
    parse: (text) => {
      // Number() alone accepts "", " 5 " and "0x10".
      const n = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : NaN;
      if (!range.has(n)) throw new UsageError(`${range.name}, got "${text}"`);
      return n;
    },
  };
}

function whole(about: string, least: number): ValueFlag<number> {
  return number("N", about, wholeNumbers(least));
}

function choice<const T extends string>(about: string, ...choices: T[]): ValueFlag<T> {
  return {
    value: choices.join("|"),
    about,
    parse: (text) => {
      const found = choices.find((c) => c.toLowerCase() === text.toLowerCase());
      if (found === undefined) throw new UsageError(`one of ${choices.join(" ")}, got "${text}"`);
      return found;
    },
  };
}

/** An adapter's path and scale: a number after the last "=" is the scale. */
function parseAdapter(text: string): { path: string; scale: number } {
  const [, path, scale] = /^(.+)=([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)$/i.exec(text) ?? [];
  const adapter = path === undefined ? { path: text, scale: 1 } : { path, scale: Number(scale) };
  if (adapter.path === "") throw new UsageError("a folder, got an empty text");
  return adapter;
}

function parseIds(text: string): number[] {
  const ids = text.split(",").map((part) => /^\s*\d+\s*$/.test(part) ? Number(part) : NaN);
  if (!ids.every(Number.isSafeInteger)) {
    throw new UsageError(`ids separated by commas, got "${text.slice(0, 200)}"`);
  }
  return ids;
}

const on = (about: string): Switch => ({ about, negatable: false });
const onOff = (about: string): Switch => ({ about, negatable: true });

const onOrOff = (value: boolean) => value ? "on" : "off";

/** The flags that take a value; a default is in brackets. */
export const VALUE_FLAGS = {
  source: choice(`load from this machine or from the hub [${DEFAULTS.source}]`, "local", "hf"),
  checkpoint: text("PATH", "load this folder, .safetensors or PyTorch .pt"),
  meta: text("PATH", "use this meta.json, meta.pkl or tokenizer.json"),
  "repo-id": text("OWNER/NAME", "load this model of the hub"),
  "repo-revision": text("REV", `use this branch, tag or commit [${DEFAULTS.revision}]`),
  tokenizer: choice("use this tokenizer [detected from the model]", "char", "bpe", "hf"),
  config: text("FILE.toml", "read settings of [generation] from this file"),
  prompt: anyText(
    "TEXT",
    `continue this text [${JSON.stringify(DEFAULTS.prompt)}; generate: demo only]`,
  ),
  "prompt-tokens": whole(
    `continue N random ids [${DEFAULTS.promptTokens} without a tokenizer]`,
    1,
  ),
  "warmup-tokens": whole(`generate N tokens before measuring [${DEFAULTS.warmupTokens}]`, 0),
  "gen-tokens": whole(`generate N tokens in each iteration [${DEFAULTS.genTokens}]`, 1),
  iters: whole(`measure N iterations [${DEFAULTS.iters}]`, 1),
  device: choice(
    `run on this; cuda is webgpu on a GPU [${DEFAULTS.device}: GPU, else CPU]`,
    "auto",
    "webgpu",
    "cuda",
    "cpu",
    "wasm",
    "js",
  ),
  dtype: choice(
    `keep weights as this type [${DEFAULTS.dtype}: as stored]`,
    "auto",
    ...DTYPES,
    ...Object.keys(ALIASES) as (keyof typeof ALIASES)[],
  ),
  activations: choice(
    "int8: multiply quantised weights by 8 bits, not 16",
    "exact",
    "int8",
  ),
  "kv-dtype": choice(`keep keys and values as this type [${DEFAULTS.kvDtype}]`, ...KV_DTYPES),
  threads: number(
    "N",
    "use N threads of the CPU [measured, 8 at most]",
    numbers("a whole number from 1 to 64", (n) => Number.isInteger(n) && n >= 1 && n <= 64),
  ),
  context: whole(
    `limit the context to N tokens [the model's, at most ${DEFAULTS.contextLength}]`,
    1,
  ),
  seed: number("N", "draw with this seed, iteration i with seed + i [random]", RANGES.seed),
  output: choice(
    `print the result as this; -o is short [${DEFAULTS.output}]`,
    "md",
    "json",
    "jsonl",
    "csv",
    "sql",
  ),
  append: text("FILE", "add the result to this .jsonl or .sqlite; make its folders"),
  "json-out": text("FILE", "write the report as JSON; make its folders"),
  "md-out": text("FILE", "write the Markdown table; make its folders"),
  "html-out": text("FILE.html", "write the page; make its folders"),
  "fail-below": number(
    "R",
    "exit 3 if tokens per second are below R of the base",
    numbers("a number above 0", (n) => n > 0),
  ),
  "max-tokens": whole(`generate at most N tokens [${DEFAULTS.maxNewTokens}]`, 1),
  temperature: number(
    "X",
    `sharpen below 1; 0 takes the likeliest [${DEFAULTS.temperature}]`,
    RANGES.temperature,
  ),
  "top-k": number("N", `draw from the N likeliest; 0 is off [${DEFAULTS.topK}]`, RANGES.topK),
  "top-p": number(
    "X",
    `draw from the likeliest that make up X; 1 is off [${DEFAULTS.topP}]`,
    RANGES.topP,
  ),
  "repetition-penalty": number(
    "X",
    `weaken repeated tokens; 1 is off [${DEFAULTS.repetitionPenalty}]`,
    RANGES.repetitionPenalty,
  ),
  stop: anyText("TEXT", "end before this text; may be repeated"),
  lora: {
    value: "PATH[=SCALE]",
    about: "merge PEFT's LoRA adapter; may be repeated [=1]",
    parse: parseAdapter,
  } satisfies ValueFlag<{ path: string; scale: number }>,
  ids: {
    value: "1,2,3",
    about: "continue these ids in place of a text",
    parse: parseIds,
  } satisfies ValueFlag<number[]>,
  system: anyText("TEXT", "set the system message of --chat"),
  stride: whole("move the window by N tokens [half the context]", 1),
  against: text("MODEL", "compare with the predictions of this model"),
  "against-dtype": choice("load the model to compare with as this type [as stored]", ...DTYPES),
  "against-device": choice(
    "run the model to compare with on this [--device]",
    "webgpu",
    "cpu",
    "wasm",
    "js",
  ),
  op: choice("show this operation only [all]", ...OPERATIONS, "program"),
  dump: text("DIR", "write each kernel to a file in this folder"),
} as const;

/** The flags without a value. */
export const SWITCHES = {
  "use-kv-cache": onOff(`keep keys and values of earlier tokens [${onOrOff(DEFAULTS.useKvCache)}]`),
  stream: onOff(`accept this flag; timing never streams [${onOrOff(DEFAULTS.stream)}]`),
  "random-weights": on("use random weights; --config has the shape"),
  offline: on("make no network requests"),
  strict: on("fail if --device is missing, without using the CPU"),
  profile: on("show the time of each operation"),
  yes: on(`run more than ${MOST_COMBINATIONS} combinations`),
  "no-tune": on("do not measure which kernel is fastest"),
  chat: on("use the chat template; without --prompt, converse"),
  force: on("compare reports of different work all the same"),
  verbose: on("say more; show stack traces of errors"),
  help: on("show this text"),
  version: on("show the version"),
} as const;

export type ValueName = keyof typeof VALUE_FLAGS;
/** Flags whose values add up, in order. */
export const REPEATED = ["stop", "lora"] as const;
type RepeatedName = typeof REPEATED[number];
/** Flags that take a list in `bench`: each combination of their values is measured. */
export const LISTED = [
  "device",
  "dtype",
  "kv-dtype",
  "threads",
  "context",
  "prompt-tokens",
  "gen-tokens",
] as const;
export type ListedName = typeof LISTED[number];
/** Short spellings. */
export const SHORT: Readonly<Record<string, string>> = { "-h": "--help", "-o": "--output" };
export type SwitchName = keyof typeof SWITCHES;
export type FlagName = ValueName | SwitchName;

/** The flags given; the last of a flag given twice, but every `--stop` and `--lora`. */
export type Given =
  & { [K in Exclude<ValueName, RepeatedName>]?: ReturnType<(typeof VALUE_FLAGS)[K]["parse"]> }
  & { [K in SwitchName]?: boolean }
  & { stop?: string[]; lora?: ReturnType<(typeof VALUE_FLAGS)["lora"]["parse"]>[] };

/** The values of flags that were given a list of two or more. */
export type Lists = {
  readonly [K in ListedName]?: readonly ReturnType<(typeof VALUE_FLAGS)[K]["parse"]>[];
};

export type Command =
  | "bench"
  | "generate"
  | "inspect"
  | "kernels"
  | "devices"
  | "append"
  | "compare"
  | "perplexity"
  | "report";

/** Flags of a command under the headings of its help, in order. */
export type FlagGroups = Readonly<Record<string, readonly FlagName[]>>;

const MODEL = [
  "checkpoint",
  "lora",
  "meta",
  "tokenizer",
  "source",
  "repo-id",
  "repo-revision",
  "offline",
] as const;
const MACHINE = [
  "device",
  "dtype",
  "activations",
  "kv-dtype",
  "threads",
  "context",
  "strict",
  "no-tune",
] as const;
const OTHER = ["verbose", "help", "version"] as const;

/** The flags of each command. */
export const COMMANDS: Readonly<Record<Command, FlagGroups>> = {
  bench: {
    "Model (default: the bundled demo)": [...MODEL, "random-weights"],
    "Benchmark": [
      "prompt",
      "prompt-tokens",
      "warmup-tokens",
      "gen-tokens",
      "iters",
      "use-kv-cache",
      "stream",
      "seed",
      "config",
    ],
    "Device": [...MACHINE, "profile"],
    "Output": ["output", "json-out", "md-out", "append"],
    "Other": ["yes", ...OTHER],
  },
  generate: {
    "Model (default: the bundled demo)": [...MODEL, "random-weights"],
    "Prompt and text": ["prompt", "ids", "chat", "system", "max-tokens", "stop"],
    "Sampling": [
      "temperature",
      "top-k",
      "top-p",
      "repetition-penalty",
      "seed",
      "use-kv-cache",
      "config",
    ],
    "Device": MACHINE,
    "Other": OTHER,
  },
  inspect: {
    "Model (default: the bundled demo)": MODEL.filter((flag) =>
      flag !== "meta" && flag !== "tokenizer"
    ),
    "Run": ["context", "dtype", "kv-dtype"],
    "Output": ["json-out"],
    "Other": OTHER,
  },
  kernels: {
    "Model (default: the bundled demo)": [...MODEL, "random-weights", "config"],
    "Kernels": ["op", "dump"],
    "Device": MACHINE,
    "Other": OTHER,
  },
  perplexity: {
    "Model (default: the bundled demo)": MODEL,
    "Text": ["stride"],
    "Comparison": ["against", "against-dtype", "against-device"],
    "Device": MACHINE,
    "Output": ["json-out"],
    "Other": OTHER,
  },
  devices: { "Other": OTHER },
  append: { "Other": OTHER },
  compare: { "Comparison": ["fail-below", "force"], "Output": ["json-out"], "Other": OTHER },
  report: { "Output": ["html-out"], "Other": OTHER },
};
