/**
 * Settings in TOML, the file of `--config`. The tables below list its keys. Such files are shared
 * with other programs, so their keys are accepted and ignored; only an unknown key warns.
 *
 * @module
 */
import { parse, TomlError, type TomlTable } from "smol-toml";
import { type Range, RANGES } from "./defaults.ts";
import { CheckpointError, messageOf } from "./errors.ts";
import { readText } from "./host/files.ts";
import { isRecord } from "./json.ts";

/** How tokens are drawn; what the file does not say is absent. */
export interface GenerationConfig {
  /** Seed of the first iteration. */
  seed?: number;
  /** Fixed order of sums. */
  deterministic?: boolean;
  /** 0 is greedy. */
  temperature?: number;
  /** 0 is off. */
  topK?: number;
  /** 1 is off. */
  topP?: number;
  /** 1 is off. */
  repetitionPenalty?: number;
  /** Whether keys and values are kept. */
  useKvCache?: boolean;
}

/** What a file of settings says. */
export interface Config {
  /** The section `[generation]`. */
  generation: GenerationConfig;
  /** The section `[model]` as it stands, for a model of that shape with random weights. */
  model?: Record<string, unknown>;
  /** Sentences on keys that mean nothing. */
  warnings: string[];
}

const BOOLEAN: Range = { name: "true or false", has: (v) => typeof v === "boolean" };

/** Keys of `[generation]` that are read: the option's name in the library, and its range. */
const GENERATION: Readonly<Record<string, readonly [keyof GenerationConfig, Range]>> = {
  seed: ["seed", RANGES.seed],
  deterministic: ["deterministic", BOOLEAN],
  temperature: ["temperature", RANGES.temperature],
  top_k: ["topK", RANGES.topK],
  top_p: ["topP", RANGES.topP],
  repetition_penalty: ["repetitionPenalty", RANGES.repetitionPenalty],
  use_kv_cache: ["useKvCache", BOOLEAN],
};

/** Keys of `[generation]` that other programs read. */
const IGNORED_GENERATION = ["max_new_tokens", "stream", "system_prompt", "max_history_turns"];

/** Sections that other programs read. */
const IGNORED_SECTIONS = ["general", "data", "training", "optimizer"];

const SECTION: Range = { name: "a section", has: (v) => isRecord(v) && !(v instanceof Date) };

/**
 * Reads a file of settings.
 * @throws {CheckpointError} If it is missing, is no TOML (the message has line and column), or a
 *   key has a value of the wrong type.
 */
export async function loadConfig(path: string): Promise<Config> {
  const table = parseToml(await readText(path, "settings", 1_000_000), path);
  const fail = (key: string, { name }: Range, value: unknown): never => {
    throw new CheckpointError(
      `Cannot read "${path}": expected ${key} to be ${name}, got ${
        typeof value === "number" ? value : JSON.stringify(value)
      }`,
    );
  };
  const config: Config = { generation: {}, warnings: [] };
  for (const [name, section] of Object.entries(table)) {
    const known = ["generation", "model", ...IGNORED_SECTIONS].includes(name);
    if (!known) {
      const what = SECTION.has(section) ? `section [${name}]` : `key ${name}`;
      config.warnings.push(`"${path}": the ${what} means nothing here`);
    } else if (!SECTION.has(section)) {
      fail(name, SECTION, section);
    } else if (name === "generation") {
      readGeneration(section as TomlTable, config, path, fail);
    } else if (name === "model") {
      // Its keys are checked where a model is made of them; else they are another program's.
      config.model = { ...section as TomlTable };
    }
  }
  return config;
}

function readGeneration(
  section: TomlTable,
  config: Config,
  path: string,
  fail: (key: string, range: Range, value: unknown) => never,
): void {
  const read: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(section)) {
    if (Object.hasOwn(GENERATION, key)) {
      const [name, range] = GENERATION[key];
      if (!range.has(value)) fail(`generation.${key}`, range, value);
      read[name] = value;
    } else if (!IGNORED_GENERATION.includes(key)) {
      config.warnings.push(`"${path}": the key ${key} under [generation] means nothing here`);
    }
  }
  config.generation = read as GenerationConfig; // every value is in its range
}

/** Lines of `seed = null` that a file may have, one a section as a rule. */
const MAX_NULLS = 16;

function parseToml(text: string, path: string): TomlTable {
  const lines = text.split("\n");
  // A placeholder for null while the file is parsed: a second or misplaced seed stays an error.
  const absent = crypto.randomUUID();
  for (let nulls = 0;; nulls++) {
    try {
      return withoutAbsent(parse(lines.join("\n")), absent);
    } catch (error) {
      if (!(error instanceof TomlError)) throw error;
      const { line, column } = error;
      // TOML has no null, but files with this one line are about; the seed is absent then.
      const found = /^(\s*seed\s*=\s*)null(\s*(#.*)?\r?)$/.exec(lines[line - 1]);
      if (found && nulls < MAX_NULLS) {
        lines[line - 1] = `${found[1]}"${absent}"${found[2]}`;
        continue;
      }
      // The library's message goes on with the lines of the file.
      const reason = messageOf(error).split("\n")[0].replace(/^Invalid TOML document: /, "");
      throw new CheckpointError(
        `Cannot read "${path}": expected TOML, got an error at line ${line}, column ${column}: ` +
          reason,
      );
    }
  }
}

/** Takes the keys out that hold what stands for null. */
function withoutAbsent(table: TomlTable, absent: string): TomlTable {
  for (const [key, value] of Object.entries(table)) {
    if (value === absent) delete table[key];
    else if (SECTION.has(value)) withoutAbsent(value as TomlTable, absent);
  }
  return table;
}
