/**
 * Parser of the command line: command, model, flags; contradictions; suggestions for typing errors.
 *
 * @module
 */
import {
  type Command,
  COMMANDS,
  type FlagName,
  type Given,
  LISTED,
  type Lists,
  REPEATED,
  SHORT,
  SWITCHES,
  UsageError,
  VALUE_FLAGS,
} from "./flags.ts";

/** The parsed arguments. */
export interface Invocation {
  readonly command: Command;
  /** Whether the command was named; if not, `--help` lists the commands. */
  readonly named: boolean;
  /** The model, if it was given without a flag; the first of several. */
  readonly model?: string;
  /** Every argument without a flag. */
  readonly words: readonly string[];
  /** Number of words before `--`, for a command with two lists of files; undefined without it. */
  readonly divider?: number;
  /** Flags; of a list, its first value. */
  readonly given: Given;
  /** Values of flags that were given two or more, separated by commas; in `bench` only. */
  readonly lists: Lists;
}

/** Arguments without a flag, for commands that take another number than one. */
const WORDS: Readonly<Partial<Record<Command, { most: number; noun: string }>>> = {
  append: { most: Infinity, noun: "files" },
  bench: { most: Infinity, noun: "models" },
  compare: { most: Infinity, noun: "files" },
  devices: { most: 0, noun: "no model" },
  perplexity: { most: 2, noun: "a model and a file" },
  report: { most: Infinity, noun: "files" },
};

/**
 * Parses the arguments.
 * @throws {UsageError} If a flag, a value or a combination is not allowed.
 */
export function parseArguments(args: readonly string[]): Invocation {
  const words = args[0] === "help" ? [...args.slice(1), "--help"] : [...args];
  const named = isCommand(words[0]);
  const command: Command = isCommand(words[0]) ? words[0] : "bench";
  const { positionals, ...flags } = readFlags(named ? words.slice(1) : words, command);
  const { given } = flags;
  const { most, noun } = WORDS[command] ?? { most: 1, noun: "one model" };
  if (positionals.length > most) {
    throw new UsageError(
      `${command} takes ${noun}, got ${positionals.map((word) => `"${word}"`).join(" and ")}`,
    );
  }
  if (positionals.includes("")) throw new UsageError("expected a model, got an empty text");
  const [model] = positionals;
  if (!given.help && !given.version) {
    refuseContradictions(given, model);
    for (const other of positionals.slice(1)) refuseContradictions(given, other);
  }
  return { command, named, model, words: positionals, ...flags };
}

/** The command that a mistyped word is nearest to. */
export function nearestCommand(word: string): string | undefined {
  return isCommand(word) ? undefined : nearest(word, Object.keys(COMMANDS));
}

function isCommand(word: string | undefined): word is Command {
  return word !== undefined && Object.hasOwn(COMMANDS, word);
}

interface Flags {
  given: Given;
  lists: Lists;
  positionals: string[];
  divider?: number;
}

function readFlags(words: string[], command: Command): Flags {
  const given: Record<string, unknown> = {};
  const lists: Record<string, readonly unknown[]> = {};
  const positionals: string[] = [];
  let divider: number | undefined;
  for (let i = 0; i < words.length; i++) {
    const word = words[i];
    if (word === "--" && command === "compare") { // flags may follow the new files
      if (divider !== undefined) throw new UsageError("compare takes one --, got two");
      divider = positionals.length;
      continue;
    }
    if (word === "--") {
      positionals.push(...words.slice(i + 1));
      break;
    }
    if (!word.startsWith("-") || word === "-") {
      positionals.push(word);
      continue;
    }
    const [, written, inline] = /^(--?[^=]*)(?:=([^]*))?$/.exec(word)!;
    const { name, negated } = resolve(SHORT[written] ?? written, command);
    if (isValueName(name)) {
      const text = inline ?? words[++i];
      // A flag in place of a value means that the value is missing; `--prompt=--x` allows it.
      if (text === undefined || (inline === undefined && isFlagOf(text, command))) {
        throw new UsageError(`--${name} needs a value (${VALUE_FLAGS[name].value})`);
      }
      const values = valuesOf(name, text, command);
      const before = given[name] as unknown[] | undefined;
      given[name] = isRepeated(name) ? [...before ?? [], ...values] : values[0];
      delete lists[name];
      if (values.length > 1) lists[name] = values;
    } else {
      if (inline !== undefined) throw new UsageError(`${written} takes no value, got "${inline}"`);
      given[name] = !negated;
    }
  }
  // Every value is from its flag's parser.
  const found = { given: given as Given, lists: lists as Lists, positionals };
  return divider === undefined ? found : { ...found, divider };
}

/** The value of a flag, or the distinct values of a list. */
function valuesOf(name: keyof typeof VALUE_FLAGS, text: string, command: Command): unknown[] {
  const isListed = command === "bench" && (LISTED as readonly string[]).includes(name);
  if (!isListed || !text.includes(",")) return [parseValue(name, text)];
  return [...new Set(text.split(",").map((item) => parseValue(name, item.trim())))];
}

function isRepeated(name: string): boolean {
  return (REPEATED as readonly string[]).includes(name);
}

function parseValue(name: keyof typeof VALUE_FLAGS, text: string): unknown {
  try {
    return VALUE_FLAGS[name].parse(text);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    throw new UsageError(`--${name}: expected ${error.message}`);
  }
}

function resolve(written: string, command: Command): { name: FlagName; negated: boolean } {
  const name = written.replace(/^--?/, "");
  const all = Object.values(COMMANDS[command]).flat();
  const known = (name: string) => all.find((flag) => flag === name);
  const found = written.startsWith("--") ? known(name) : undefined;
  if (found) return { name: found, negated: false };
  const positive = written.startsWith("--no-") ? known(name.slice(3)) : undefined;
  if (positive && !isValueName(positive) && SWITCHES[positive].negatable) {
    return { name: positive, negated: true };
  }
  const elsewhere = Object.entries(COMMANDS)
    .filter(([other, groups]) =>
      other !== command && Object.values(groups).flat().some((flag) => flag === name)
    )
    .map(([other]) => other);
  if (elsewhere.length && !known(name)) {
    throw new UsageError(`${command} has no flag ${written}; it is one of ${elsewhere.join(", ")}`);
  }
  const spellings = all.flatMap((
    flag,
  ) => (!isValueName(flag) && SWITCHES[flag].negatable ? [flag, `no-${flag}`] : [flag]));
  const guess = nearest(name, spellings);
  throw new UsageError(
    `${command} has no flag ${written}${guess ? `; did you mean --${guess}?` : ""}`,
  );
}

function isValueName(name: string): name is keyof typeof VALUE_FLAGS {
  return Object.hasOwn(VALUE_FLAGS, name);
}

function isFlagOf(text: string, command: Command): boolean {
  const name = text.replace(/=[^]*/, "").replace(/^--(no-)?/, "");
  return text.startsWith("--") &&
    Object.values(COMMANDS[command]).flat().some((flag) => flag === name || `no-${name}` === flag);
}

/** Flags that exclude each other. */
const CONTRADICTIONS: readonly (readonly [FlagName, FlagName])[] = [
  ["prompt", "prompt-tokens"],
  ["prompt", "ids"],
  ["chat", "ids"],
  ["lora", "random-weights"],
  ["checkpoint", "repo-id"],
  ["checkpoint", "random-weights"],
  ["repo-id", "random-weights"],
];

function refuseContradictions(given: Given, model: string | undefined): void {
  const has = (flag: FlagName) => given[flag] !== undefined;
  const contradict = (a: string, b: string): never => {
    throw new UsageError(`${a} and ${b} contradict each other; give one of them`);
  };
  for (const [a, b] of CONTRADICTIONS) {
    if (has(a) && has(b)) contradict(`--${a}`, `--${b}`);
  }
  for (const flag of ["checkpoint", "repo-id", "random-weights"] as const) {
    if (model !== undefined && has(flag)) contradict(`the model "${model}"`, `--${flag}`);
  }
  if (given.source === "hf" && has("checkpoint")) contradict("--source hf", "--checkpoint");
  if (given.source === "local" && has("repo-id")) contradict("--source local", "--repo-id");
  if (given.source === "local" && model?.startsWith("hf:")) contradict("--source local", model);
  if (given["random-weights"] && !has("config")) {
    throw new UsageError("--random-weights needs --config with a section [model]");
  }
  if (has("system") && !given.chat) throw new UsageError("--system needs --chat");
}

/** The candidate that `word` may be a typing error of. */
function nearest(word: string, candidates: readonly string[]): string | undefined {
  // "no-x" is no typing error of "x".
  const opposite = (candidate: string) => word.startsWith("no-") !== candidate.startsWith("no-");
  const [best] = candidates
    .map((candidate) => ({
      candidate,
      distance: editDistance(word, candidate) + (opposite(candidate) ? 3 : 0),
    }))
    .sort((a, b) => a.distance - b.distance);
  if (best && best.distance <= Math.max(1, word.length / 2)) return best.candidate;
  // A part of a name, such as "cache", suggests the only candidate that contains it.
  const parts = word.length > 2 ? candidates.filter((c) => c.includes(word)) : [];
  return parts.length === 1 ? parts[0] : undefined;
}

/**
 * Edit distance with transpositions (optimal string alignment): insertions, deletions,
 * replacements, swapped neighbours.
 */
function editDistance(a: string, b: string): number {
  let [before, last] = [[] as number[], Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      row[j] = Math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        row[j] = Math.min(row[j], before[j - 2] + 1);
      }
    }
    [before, last] = [last, row];
  }
  return last[b.length];
}
