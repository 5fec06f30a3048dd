/**
 * Configuration reader: one key at a time, with default, type and range.
 *
 * @module
 */
import type { Activation } from "../../kernels/ops/activation.ts";
import { CheckpointError } from "../errors.ts";

/** Largest size in a configuration: a larger one means a damaged file. */
const MAX_EXTENT = 2 ** 31 - 1;

/** Characters of a value that a message shows. */
const MAX_SHOWN = 80;

/** Activations by their names in configurations; transformers has several names for some. */
const ACTIVATION_NAMES: Readonly<Record<string, Activation>> = {
  relu: "relu",
  gelu: "gelu",
  gelu_python: "gelu",
  gelu_new: "geluTanh",
  gelu_fast: "geluTanh",
  gelu_accurate: "geluTanh",
  gelu_pytorch_tanh: "geluTanh",
  gelu_python_tanh: "geluTanh",
  geluTanh: "geluTanh",
  silu: "silu",
  swish: "silu",
};

/** Key names and defaults of a family. */
export interface KeysOptions {
  /** The file's names of the reader's keys, where they differ. */
  readonly keyNames?: Readonly<Record<string, string>>;
  /** Values of absent keys. */
  readonly defaults?: Readonly<Record<string, unknown>>;
  /** Prefix of keys in messages, such as "rope_scaling.". */
  readonly path?: string;
}

/**
 * Reads one key at a time. `null` counts as absent, as in transformers, except in the methods
 * `…OrNull` and `ids`: there it overrides the default.
 */
export class ConfigKeys {
  constructor(
    readonly config: Readonly<Record<string, unknown>>,
    readonly where: string,
    readonly options: KeysOptions = {},
  ) {}

  /** Whether the file has a value other than null. */
  has(key: string): boolean {
    return this.#hasKey(key) && this.config[this.#nameOf(key)] !== null;
  }

  /** @throws {CheckpointError} Always; names the key, the expected and the actual value. */
  fail(key: string, expected: string): never {
    const { path = "" } = this.options;
    const got = JSON.stringify(this.config[this.#nameOf(key)]) ?? "none";
    throw new CheckpointError(
      `Cannot read "${this.where}": expected ${path}${this.#nameOf(key)} to be ${expected}, got ${
        got.length > MAX_SHOWN ? `${got.slice(0, MAX_SHOWN)}…` : got
      }`,
    );
  }

  /** Any value, or its default; undefined if there is none. */
  value(key: string, fallback?: unknown): unknown {
    return this.has(key)
      ? this.config[this.#nameOf(key)]
      : fallback ?? this.options.defaults?.[key] ?? undefined;
  }

  /** An integer of at least 1. */
  size(key: string, fallback?: number): number {
    const value = this.value(key, fallback);
    if (
      typeof value !== "number" || !Number.isInteger(value) || value < 1 || value > MAX_EXTENT
    ) {
      return this.fail(key, `an integer from 1 to ${MAX_EXTENT}`);
    }
    return value;
  }

  /** An integer of at least 1; null if the file has null, or has no value and no default. */
  sizeOrNull(key: string): number | null {
    return this.#isNull(key) ? null : this.size(key);
  }

  /** A number above 0. */
  positive(key: string, fallback?: number): number {
    const value = this.value(key, fallback);
    if (typeof value !== "number" || !(value > 0 && value < Infinity)) {
      return this.fail(key, "a positive number");
    }
    return value;
  }

  /** A number above 0, or null as in `sizeOrNull`. */
  positiveOrNull(key: string): number | null {
    return this.#isNull(key) ? null : this.positive(key);
  }

  /** A list of `count` numbers above 0. */
  positives(key: string, count: number): number[] {
    const value = this.value(key);
    const isList = Array.isArray(value) && value.length === count;
    if (!isList || !value.every((n) => typeof n === "number" && n > 0 && n < Infinity)) {
      return this.fail(key, `a list of ${count} positive numbers`);
    }
    return value;
  }

  /** True or false. */
  flag(key: string, fallback?: boolean): boolean {
    const value = this.value(key, fallback);
    return typeof value === "boolean" ? value : this.fail(key, "true or false");
  }

  /**
   * An activation, by any of its names.
   * @param replaced names that mean another activation in this family.
   */
  activation(
    key: string,
    fallback?: string,
    replaced: Readonly<Record<string, string>> = {},
  ): Activation {
    const given = this.value(key, fallback);
    const value = Object.hasOwn(replaced, String(given)) ? replaced[String(given)] : given;
    if (typeof value !== "string" || !Object.hasOwn(ACTIVATION_NAMES, value)) {
      return this.fail(key, `one of ${Object.keys(ACTIVATION_NAMES).join(" ")}`);
    }
    return ACTIVATION_NAMES[value];
  }

  /** A list of token ids, from one id or a list; empty for null. */
  ids(key: string): number[] {
    if (this.#isNull(key)) return [];
    const value = this.value(key);
    const ids: unknown[] = Array.isArray(value) ? value : [value];
    if (!ids.every((id) => Number.isInteger(id))) return this.fail(key, "an id or a list of ids");
    return ids as number[];
  }

  /** D = C / H, by the keys of C and H. */
  headDim(width: string, heads: string): number {
    const [C, H] = [this.size(width), this.size(heads)];
    if (C % H) this.fail(width, `a multiple of ${this.#nameOf(heads)} (${H})`);
    return C / H;
  }

  /** The keys of a nested object; no keys if it is absent. */
  within(key: string): ConfigKeys {
    const value = this.value(key, {});
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      return this.fail(key, "an object");
    }
    const path = `${this.options.path ?? ""}${this.#nameOf(key)}.`;
    return new ConfigKeys(value as Record<string, unknown>, this.where, { path });
  }

  #nameOf(key: string): string {
    return this.options.keyNames?.[key] ?? key;
  }

  #hasKey(key: string): boolean {
    return Object.hasOwn(this.config, this.#nameOf(key));
  }

  #isNull(key: string): boolean {
    return this.#hasKey(key)
      ? this.config[this.#nameOf(key)] === null
      : (this.options.defaults?.[key] ?? null) === null;
  }
}
