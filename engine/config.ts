/**
 * Configuration files in TOML (`--config`): sections `[generation]` and `[model]`.
 *
 * The files are shared with other programs: their keys are ignored, and only an unknown key warns.
 *
 * @module
 */
import { parse, TomlError, type TomlTable } from "smol-toml";
import { type Range, RANGES } from "./defaults.ts";
import { CheckpointError, messageOf } from "./errors.ts";
import { readText } from "./host/files.ts";
import { isDeep, isRecord, MAX_NESTING } from "./json.ts";

/** Options of sampling; absent if the file does not have them. */
export interface GenerationConfig {
  /** Seed of sampling; iteration i of a benchmark uses seed + i. */
  seed?: number;
  /** Whether sums have a fixed order. */
  deterministic?: boolean;
  /** Divisor of the logits; 0 samples greedily. */
  temperature?: number;
  /** Samples among the k most probable tokens; 0 is off. */
  topK?: number;
  /** Samples among the most probable tokens of this total probability; 1 is off. */
  topP?: number;
  /** Penalty on the logits of tokens that occurred before; 1 is off. */
  repetitionPenalty?: number;
  /** Whether keys and values are cached. */
  useKvCache?: boolean;
}

/** Contents of a configuration file. */
export interface Config {
  /** The section `[generation]`. */
  generation: GenerationConfig;
  /** The section `[model]`, unchecked: the shape of a model with random weights. */
  model?: Record<string, unknown>;
  /** One sentence for each unknown key. */
  warnings: string[];
}

const BOOLEAN: Range = { name: "true or false", has: (v) => typeof v === "boolean" };

/** Keys of `[generation]`: name and range of the library's option. */
const GENERATION: Readonly<Record<string, readonly [keyof GenerationConfig, Range]>> = {
  seed: ["seed", RANGES.seed],
  deterministic: ["deterministic", BOOLEAN],
  temperature: ["temperature", RANGES.temperature],
  top_k: ["topK", RANGES.topK],
  top_p: ["topP", RANGES.topP],
  repetition_penalty: ["repetitionPenalty", RANGES.repetitionPenalty],
  use_kv_cache: ["useKvCache", BOOLEAN],
};

/** Keys of `[generation]` for other programs. */
const IGNORED_GENERATION = ["max_new_tokens", "stream", "system_prompt", "max_history_turns"];

/** Sections for other programs. */
const IGNORED_SECTIONS = ["general", "data", "training", "optimizer"];

const SECTION: Range = { name: "a section", has: (v) => isRecord(v) && !(v instanceof Date) };

/**
 * Reads a configuration file in TOML.
 *
 * @example
 * ```ts
 * import { loadConfig } from "@wgslm/wgslm";
 *
 * const { generation, model, warnings } = await loadConfig("configs/base_char.toml");
 * console.log(generation.temperature, model?.n_layer, warnings); // 0.9 6 []
 * ```
 * @param path path of the file.
 * @throws {CheckpointError} If it is missing, not TOML (the message has line and column), or a
 *   value is out of range.
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
      const shown = SECTION.has(section) ? `section [${name}]` : `key ${name}`;
      config.warnings.push(`"${path}": the ${shown} has no effect`);
    } else if (!SECTION.has(section)) {
      fail(name, SECTION, section);
    } else if (name === "generation") {
      readGeneration(section as TomlTable, config, path, fail);
    } else if (name === "model") {
      // Checked when a model is made of it; otherwise it is for another program.
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
      config.warnings.push(`"${path}": the key ${key} in [generation] has no effect`);
    }
  }
  config.generation = read as GenerationConfig; // every value is in its range
}

/** Limit of `seed = null` lines in a file; usually one per section. */
const MAX_NULLS = 16;

function parseToml(text: string, path: string): TomlTable {
  const lines = text.split("\n");
  // Placeholder for null during parsing: a second or misplaced seed stays an error.
  const absent = crypto.randomUUID();
  for (let nulls = 0;; nulls++) {
    try {
      const table = parse(lines.join("\n"));
      if (!isDeep(table)) return withoutAbsent(table, absent);
      throw new CheckpointError(
        `Cannot read "${path}": expected at most ${MAX_NESTING} levels of nesting, got more`,
      );
    } catch (error) {
      if (!(error instanceof TomlError)) throw error;
      const { line, column } = error;
      // TOML has no null, but existing files have this line; it means an absent seed.
      const found = /^(\s*seed\s*=\s*)null(\s*(#.*)?\r?)$/.exec(lines[line - 1]);
      if (found && nulls < MAX_NULLS) {
        lines[line - 1] = `${found[1]}"${absent}"${found[2]}`;
        continue;
      }
      // The library appends lines of the file to its message.
      const reason = messageOf(error).split("\n")[0].replace(/^Invalid TOML document: /, "");
      throw new CheckpointError(
        `Cannot read "${path}": expected TOML, got an error at line ${line}, column ${column}: ` +
          reason,
      );
    }
  }
}

/** Removes the keys whose value is the placeholder. */
function withoutAbsent(table: TomlTable, absent: string): TomlTable {
  for (const [key, value] of Object.entries(table)) {
    if (value === absent) delete table[key];
    else if (SECTION.has(value)) withoutAbsent(value as TomlTable, absent);
  }
  return table;
}
