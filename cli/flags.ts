/**
 * Every flag of the command line: what its value may be, and what it is for. The parser and the help read this table.
 *
 * @module
 */

/** Bad usage: the sentence goes to the user, with exit status 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** A flag that takes a value of type T. */
export interface ValueFlag<T> {
  /** What stands for the value in the help. */
  readonly value: string;
  readonly about: string;
  /** @throws {UsageError} saying what was expected. */
  readonly parse: (text: string) => T;
}

/** A flag that stands alone. */
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
      if (text === "") throw new UsageError("something, got an empty text");
      return text;
    },
  };
}

function anyText(value: string, about: string): ValueFlag<string> {
  return { value, about, parse: (text) => text };
}

function number(
  value: string,
  about: string,
  expected: string,
  fits: (n: number) => boolean,
): ValueFlag<number> {
  return {
    value,
    about,
    parse: (text) => {
      // Number() alone would take "", " 5 " and "0x10".
      const n = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : NaN;
      if (!Number.isFinite(n) || !fits(n)) throw new UsageError(`${expected}, got "${text}"`);
      return n;
    },
  };
}

function whole(about: string, least: number): ValueFlag<number> {
  const expected = `a whole number of at least ${least}`;
  return number("N", about, expected, (n) => Number.isSafeInteger(n) && n >= least);
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

const on = (about: string): Switch => ({ about, negatable: false });
const onOff = (about: string): Switch => ({ about, negatable: true });

/** The flags that take a value. */
export const VALUE_FLAGS = {
  source: choice("where the model is: on this machine, or on the hub [local]", "local", "hf"),
  checkpoint: text("PATH", "folder in Hugging Face layout, .safetensors, or PyTorch's .pt"),
  meta: text("PATH", "meta.json with the vocabulary, where it is not beside the model"),
  "repo-id": text("OWNER/NAME", "model on the hub"),
  "repo-revision": text("REV", "branch, tag or commit on the hub [main]"),
  tokenizer: choice("how text becomes ids [detected from the model]", "char", "bpe", "hf"),
  config: text("FILE.toml", "settings of [generation]; flags beat them"),
  prompt: anyText("TEXT", 'text to go on from ["ROMEO:"]'),
  "prompt-tokens": whole("prompt of N random ids instead of text [128 without a tokenizer]", 1),
  "warmup-tokens": whole("tokens to generate before measuring [64]", 0),
  "gen-tokens": whole("tokens to generate in each iteration [256]", 1),
  iters: whole("measured iterations [3]", 1),
  device: choice(
    "what computes; cuda is webgpu [auto: a GPU, else the CPU]",
    "auto",
    "webgpu",
    "cuda",
    "cpu",
    "wasm",
    "js",
  ),
  dtype: choice("how weights are held [auto: as stored]", "auto", "F32", "F16", "BF16", "Q8", "Q4"),
  threads: number(
    "N",
    "threads of the CPU [as many as a probe finds worth having, 8 at most]",
    "a whole number from 1 to 64",
    (n) => Number.isInteger(n) && n >= 1 && n <= 64,
  ),
  context: whole("longest context in tokens [the model's, at most 4096]", 1),
  seed: whole("seed of the draws; iteration i draws with seed + i [drawn]", 0),
  "json-out": text("FILE", "write the report as JSON; folders are made"),
  "md-out": text("FILE", "write the Markdown table; folders are made"),
  "max-tokens": whole("tokens to generate at most [256]", 1),
  temperature: number("X", "0 takes the likeliest token [0.9]", "at least 0", (n) => n >= 0),
  "top-k": whole("draw from the K likeliest; 0 is off [40]", 0),
  "top-p": number(
    "X",
    "draw from the likeliest that make up X; 1 is off [1]",
    "above 0 and up to 1",
    (n) => n > 0 && n <= 1,
  ),
  "repetition-penalty": number("X", "weaken what was said; 1 is off [1]", "above 0", (n) => n > 0),
  stop: anyText("TEXT", "end before this text; may be given more than once"),
  system: anyText("TEXT", "system message for --chat"),
} as const;

/** The flags that stand alone. */
export const SWITCHES = {
  "use-kv-cache": onOff("keep keys and values of earlier tokens [on]"),
  stream: onOff("accepted for the sake of scripts; timing never streams [off]"),
  "random-weights": on("no checkpoint: the shape of --config's [model], random weights"),
  offline: on("never ask the network"),
  strict: on("fail where --device is not there, instead of using the CPU"),
  profile: on("times of each operation"),
  "no-tune": on("do not measure which kernel is fastest"),
  chat: on(
    "the prompt is a user's turn of a chat; without --prompt, every line of the input is one",
  ),
  verbose: on("say more; errors with their stack"),
  help: on("this text"),
  version: on("the version"),
} as const;

export type ValueName = keyof typeof VALUE_FLAGS;
export type SwitchName = keyof typeof SWITCHES;
export type FlagName = ValueName | SwitchName;

/** What was given on the command line; what was not is absent. The last of a flag given twice, but every `--stop`. */
export type Given =
  & { [K in Exclude<ValueName, "stop">]?: ReturnType<(typeof VALUE_FLAGS)[K]["parse"]> }
  & { [K in SwitchName]?: boolean }
  & { stop?: string[] };

export type Command = "bench" | "generate" | "inspect" | "devices";

/** Where a command's flags stand in its help, in order. */
export type FlagGroups = Readonly<Record<string, readonly FlagName[]>>;

const MODEL = [
  "checkpoint",
  "meta",
  "tokenizer",
  "source",
  "repo-id",
  "repo-revision",
  "offline",
] as const;
const MACHINE = ["device", "dtype", "threads", "context", "strict", "no-tune"] as const;
const OTHER = ["verbose", "help", "version"] as const;

/** The flags of each command. */
export const COMMANDS: Readonly<Record<Command, FlagGroups>> = {
  bench: {
    "The model (the bundled demo if none is named)": [...MODEL, "random-weights"],
    "What is measured": [
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
    "The machine": [...MACHINE, "profile"],
    "What comes out": ["json-out", "md-out"],
    "Other": OTHER,
  },
  generate: {
    "The model (the bundled demo if none is named)": [...MODEL, "random-weights"],
    "The text": ["prompt", "chat", "system", "max-tokens", "stop"],
    "How tokens are drawn": [
      "temperature",
      "top-k",
      "top-p",
      "repetition-penalty",
      "seed",
      "use-kv-cache",
      "config",
    ],
    "The machine": MACHINE,
    "Other": OTHER,
  },
  inspect: {
    "The model (the bundled demo if none is named)": MODEL.filter((flag) =>
      flag !== "meta" && flag !== "tokenizer"
    ),
    "The run to estimate": ["context", "dtype"],
    "What comes out": ["json-out"],
    "Other": OTHER,
  },
  devices: { "Other": OTHER },
};
