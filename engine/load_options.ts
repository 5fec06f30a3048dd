/**
 * Options of `loadModel` and their checks.
 *
 * @module
 */
import { type Activations, BACKEND_NAMES } from "../kernels/backend.ts";
import { ALIASES, DTYPES, type WeightDtype } from "../kernels/formats/mod.ts";
import { KV_DTYPES, KV_FORMATS, type KvDtype, kvFormatFor } from "../kernels/formats/kv.ts";
import type { Device } from "../kernels/mod.ts";
import type { Architecture } from "./architecture/mod.ts";
import { DEFAULTS } from "./defaults.ts";
import type { HubOptions } from "./hub/options.ts";
import { expectType, isOptions, quote, show } from "./options.ts";
import type { AdapterOptions } from "./weights/lora.ts";

/** Progress of loading, in bytes. */
export interface LoadProgress {
  /** What is loading: files from the hub, or weights into memory. */
  readonly stage: "download" | "weights";
  /** The file being read. */
  readonly file?: string;
  /** Bytes so far. */
  readonly loaded: number;
  /** Bytes in total, if known. */
  readonly total?: number;
}

/** Options of loading; `revision`, `token`, `cacheDir` and `offline` are for the hub. */
export interface LoadOptions extends HubOptions {
  /**
   * Backend. "cpu" is the fastest one on the processor; "auto", the default, is a hardware GPU if
   * there is one, else "cpu".
   */
  readonly device?: Device;
  /**
   * Dtype of the weights in memory; "auto", the default, keeps them as stored. Blocks (Q8_0, Q4_0,
   * Q4_1) are quantised at load; embedding and head then take Q8_0, and vectors F32. "Q8" is Q8_0,
   * "Q4" is Q4_1.
   */
  readonly dtype?: WeightDtype | "auto" | "Q8" | "Q4";
  /**
   * Bits of activations in integer products with quantised weights on the processor: 16 ("exact",
   * the default) or 8 ("int8"), which is faster and what llama.cpp does.
   */
  readonly activations?: Activations;
  /**
   * Dtype of the keys and values in the cache; default "F32". F16 halves its memory, Q8_0 takes a
   * quarter. A head size that is no multiple of 32 takes F16 in place of Q8_0, and an odd one F32.
   */
  readonly kvDtype?: KvDtype;
  /** Number of threads on the processor; default as many as make it faster, by measurement. */
  readonly threads?: number;
  /**
   * Number of tokens that the cache holds. Default the smaller of the model's context and 4096, but
   * the whole context of models that go on past it (LabCore, nanoGPT).
   */
  readonly contextLength?: number;
  /** Whether a GPU's kernels may be chosen by timing them once; default true. */
  readonly tune?: boolean;
  /** Kind of tokenizer; default the one found with the weights. */
  readonly tokenizer?: "char" | "bpe" | "hf";
  /** Path of a meta.json, or of nanoGPT's meta.pkl, with the vocabulary. */
  readonly meta?: string;
  /** Keys of a config.json, for weights that have none: a plain state dict. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** LoRA adapters of PEFT, merged into the weights in this order. */
  readonly adapters?: readonly AdapterOptions[];
  /** Called after each chunk of bytes. */
  readonly onProgress?: (progress: LoadProgress) => void;
}

/** A model of random weights. */
export interface RandomModel {
  /** The keys of a config.json, or of a preset's `[model]`. */
  readonly config: Record<string, unknown>;
  /** Seed of the weights; default 0. */
  readonly seed?: number;
}

/** A folder that the visitor of a page chose: a `FileSystemDirectoryHandle`. */
export interface PickedFolder {
  /** What tells a folder from other handles. */
  readonly kind: "directory";
  /** Name of the folder. */
  readonly name: string;
}

/** Types of options that more than one of them has. */
const FLAG = { type: "true or false", has: (value: unknown) => typeof value === "boolean" };
const TEXT = { type: "a text", has: (value: unknown) => typeof value === "string" };
const COUNT = { type: "a positive integer", has: (value: unknown) => typeof value === "number" };
/** Checked later, by a list of its values. */
const ANY = { type: "", has: () => true };

/**
 * The type of every option. Unknown options are refused: they would be ignored, with wrong answers
 * and no message.
 */
const OPTIONS = {
  device: ANY,
  dtype: ANY,
  activations: ANY,
  kvDtype: ANY,
  threads: COUNT,
  contextLength: COUNT,
  tune: FLAG,
  tokenizer: ANY,
  meta: TEXT,
  config: { type: "an object", has: isOptions },
  adapters: { type: "a list of { path, scale }", has: Array.isArray },
  revision: TEXT,
  token: TEXT,
  cacheDir: TEXT,
  cache: ANY,
  offline: FLAG,
  onProgress: { type: "a function", has: (value) => typeof value === "function" },
  signal: { type: "an AbortSignal", has: (value) => value instanceof AbortSignal },
} satisfies Record<keyof LoadOptions, { type: string; has(value: unknown): boolean }>;

/**
 * Checks names, types and lists of values; ranges that depend on the model are checked later.
 * @throws {TypeError} If an option is unknown or of the wrong type.
 * @throws {RangeError} If an option is out of range.
 */
export function checkOptions(options: LoadOptions): void {
  expectType("Cannot load: expected options", "an object", isOptions(options), options);
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(OPTIONS, name)) {
      throw new TypeError(
        `Cannot load: expected options of ${Object.keys(OPTIONS).join(" ")}, got ${quote(name)}`,
      );
    }
    const { type, has } = OPTIONS[name as keyof LoadOptions];
    const what = `Cannot load: expected ${name}`;
    expectType(what, type, value === undefined || has(value), value);
  }
  const { device, dtype, kvDtype, activations, threads, tokenizer, cache } = options;
  const isCache = cache === undefined || cache === false || cache === "opfs";
  expectType("Cannot load: expected cache", '"opfs" or false', isCache, cache);
  expectOneOf("device", ["auto", "cpu", ...BACKEND_NAMES], device);
  expectOneOf("dtype", ["auto", ...DTYPES, ...Object.keys(ALIASES)], dtype);
  expectOneOf("kvDtype", KV_DTYPES, kvDtype);
  expectOneOf("activations", ["exact", "int8"], activations);
  expectOneOf("tokenizer", ["char", "bpe", "hf"], tokenizer);
  if (threads !== undefined && (!Number.isInteger(threads) || threads < 1)) {
    throw new RangeError(`Cannot load: expected threads to be a positive integer, got ${threads}`);
  }
  [...options.adapters ?? []].forEach(checkAdapter);
}

/** @throws {RangeError} If a value is none of those of its option. */
function expectOneOf(name: string, values: readonly string[], value?: string): void {
  if (value === undefined || values.includes(value)) return;
  throw new RangeError(
    `Cannot load: expected ${name} to be one of ${values.join(" ")}, got ${show(value)}`,
  );
}

/** @throws {TypeError} If a member of `adapters` is not `{ path, scale? }`. */
function checkAdapter(adapter: AdapterOptions): void {
  const what = "Cannot load: expected each adapter";
  expectType(what, "an object { path, scale }", isOptions(adapter), adapter);
  const unknown = Object.keys(adapter).find((name) => name !== "path" && name !== "scale");
  if (unknown !== undefined) {
    throw new TypeError(`${what} to have path and scale alone, got ${quote(unknown)}`);
  }
  const { path, scale } = adapter;
  expectType("Cannot load: expected an adapter's path", "a text", TEXT.has(path), path);
  const isNumber = scale === undefined || typeof scale === "number";
  expectType("Cannot load: expected an adapter's scale", "a number", isNumber, scale);
}

/** @throws {TypeError} If a source is neither text nor `{ config, seed? }`. */
export function checkSource(source: unknown, isShape: boolean): void {
  const holds = typeof source === "string" ||
    (isShape && isOptions(source) && isOptions(source.config));
  const type = isShape ? "a text or an object { config, seed }" : "a text";
  expectType("Cannot load: expected a source", type, holds, source);
  const { seed = 0 } = source as Partial<RandomModel>;
  expectType("Cannot load: expected seed", "a number", typeof seed === "number", seed);
}

/** A note if heads of `headDim` numbers do not fit the dtype asked for the cache. */
export function cacheNotes(asked: KvDtype, headDim: number): string[] {
  const { dtype } = kvFormatFor(asked, headDim);
  if (dtype === asked) return [];
  const { multiple } = KV_FORMATS[asked];
  return [
    `The cache is ${dtype}: ${asked} needs a head size that ${multiple} divides, not ${headDim}.`,
  ];
}

/**
 * S: tokens that the cache holds.
 * @throws {RangeError} If the length asked for is outside the model's range.
 */
export function contextOf({ slides, crops, blockSize }: Architecture, asked?: number): number {
  if (asked === undefined) {
    return slides || crops ? blockSize : Math.min(blockSize, DEFAULTS.contextLength);
  }
  if (!Number.isInteger(asked) || asked < 1 || asked > blockSize) {
    throw new RangeError(
      `Cannot load: expected a context of 1 to ${blockSize} tokens, got ${asked}`,
    );
  }
  return asked;
}
