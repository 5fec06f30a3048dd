/**
 * LoRA adapters as PEFT saves them (`adapter_config.json`, `adapter_model.safetensors`), merged
 * into the weights at load.
 *
 * W' = W + scale · alpha / r · B·A, with A [r, K] and B [N, r] of a weight [N, K]; alpha / √r under
 * `use_rslora` (Hu et al. 2021, arXiv:2106.09685; Kalajdzievski 2023, arXiv:2312.03732). The sum is
 * made in F32, before a weight is narrowed to the dtype that it is kept in. Modules under
 * `modules_to_save`, and trained biases, take the place of the base's.
 *
 * @module
 */
import type { Architecture } from "../architecture/mod.ts";
import { beside, exists, readJsonObject } from "../host/files.ts";
import { type Checkpoint, openWeights, type TensorInfo } from "../checkpoint/checkpoint.ts";
import { CheckpointError } from "../errors.ts";
import { NAMES } from "./names.ts";

/** An adapter to be merged. */
export interface AdapterOptions {
  /** The folder that PEFT's `save_pretrained` wrote. */
  readonly path: string;
  /** Multiplies alpha / r; default 1. */
  readonly scale?: number;
}

/** A folder with an adapter, checked; its tensors are read when it is merged. */
export interface Adapter extends Disposable {
  readonly path: string;
  readonly scale: number;
  readonly config: AdapterConfig;
  readonly checkpoint: Checkpoint;
}

/** What matters of adapter_config.json. */
interface AdapterConfig {
  readonly base: string | null;
  readonly rslora: boolean;
  readonly alpha: number;
  /** Alpha of modules whose names end so. */
  readonly alphaPattern: Readonly<Record<string, unknown>>;
}

/**
 * The sum that a weight of the base gets: L [rows, r] times R [r, columns], in the
 * order of the file's rows.
 */
export interface Delta {
  readonly rank: number;
  readonly columns: number;
  readonly left: Float32Array;
  readonly right: Float32Array;
}

/**
 * Keys that change what an adapter computes and are not done here, unless
 * absent, null, false or empty.
 */
const REFUSED = [
  "use_dora",
  "lora_bias",
  "use_qalora",
  "use_bdlora",
  "target_parameters",
  "trainable_token_indices",
  "layer_replication",
  "alora_invocation_tokens",
  "arrow_config",
  "kasa_config",
  "velora_config",
  "monteclora_config",
] as const;

/** What PEFT puts before the names of the base's modules. */
const PEFT_PREFIX = "base_model.model.";

/** Whether a folder holds an adapter. */
export async function isAdapter(folder: string): Promise<boolean> {
  return await exists(beside(folder, "adapter_config.json"));
}

/**
 * The source of the base model that an adapter's configuration names: a folder relative to the
 * adapter's, a path from the working directory, or a repository of the hub.
 * @throws {CheckpointError} If it names none that can be found.
 */
export async function baseOf(folder: string): Promise<string> {
  const { base } = await readConfig(folder);
  if (base) {
    const isPath = /^([/\\]|[A-Za-z]:)/.test(base);
    for (const path of isPath ? [base] : [beside(folder, base), base]) {
      if (await exists(path)) return path;
    }
    if (/^[\w.-]+\/[\w.-]+$/.test(base) && !base.startsWith(".")) return `hf:${base}`;
  }
  throw new CheckpointError(
    `Cannot open "${folder}": expected its base_model_name_or_path to be a folder or a repository, got ${
      JSON.stringify(base)?.slice(0, 200)
    }; name the base and give the adapter by --lora`,
  );
}

/**
 * Opens adapters.
 * @throws {CheckpointError} if a path is no adapter, or an adapter asks for what is not
 * supported; names the key.
 * @throws {RangeError} if a scale is not finite.
 */
export async function openAdapters(options: readonly AdapterOptions[]): Promise<Adapter[]> {
  using opened = new DisposableStack();
  const adapters: Adapter[] = [];
  for (const { path, scale = 1 } of options) {
    if (!Number.isFinite(scale)) {
      throw new RangeError(`Cannot apply "${path}": expected a finite scale, got ${scale}`);
    }
    const config = await readConfig(path);
    const checkpoint = opened.use(await openWeights(await weightsOf(path)));
    const dispose = () => checkpoint[Symbol.dispose]();
    adapters.push({ path, scale, config, checkpoint, [Symbol.dispose]: dispose });
  }
  opened.move();
  return adapters;
}

async function weightsOf(folder: string): Promise<string> {
  for (const name of ["adapter_model.safetensors", "adapter_model.bin"]) {
    const path = beside(folder, name);
    if (await exists(path)) return path;
  }
  throw new CheckpointError(
    `Cannot apply "${folder}": expected adapter_model.safetensors in it; ` +
      "save it with PEFT's save_pretrained",
  );
}

async function readConfig(folder: string): Promise<AdapterConfig> {
  const path = beside(folder, "adapter_config.json");
  if (!await exists(path)) {
    throw new CheckpointError(
      `Cannot apply "${folder}": expected a folder with an adapter_config.json, as PEFT writes it`,
    );
  }
  const config = await readJsonObject(path);
  const fail = (key: string, expected: string): never => {
    const got = JSON.stringify(config[key])?.slice(0, 80) ?? "none";
    throw new CheckpointError(`Cannot apply "${path}": expected "${key}" ${expected}, got ${got}`);
  };
  if (config.peft_type !== "LORA") fail("peft_type", 'to be "LORA"');
  for (const key of REFUSED) {
    if (isSet(config[key])) fail(key, "to be absent or false: this version merges plain LoRA");
  }
  const { base_model_name_or_path: base = null, lora_alpha: alpha = 8 } = config;
  if (typeof alpha !== "number" || !Number.isFinite(alpha)) fail("lora_alpha", "to be a number");
  if (base !== null && typeof base !== "string") fail("base_model_name_or_path", "to be text");
  const patterns = config.alpha_pattern ?? {};
  if (typeof patterns !== "object" || Array.isArray(patterns)) {
    fail("alpha_pattern", "to be an object");
  }
  return {
    base: base as string | null,
    rslora: config.use_rslora === true,
    alpha: alpha as number,
    alphaPattern: patterns as Record<string, unknown>,
  };
}

function isSet(value: unknown): boolean {
  if (value === undefined || value === null || value === false) return false;
  if (Array.isArray(value)) return value.length > 0;
  return typeof value !== "object" || Object.keys(value).length > 0;
}

/** A base with adapters: its tensors, those that adapters replace, and the sums that others get. */
export interface Adapted {
  /** The base, with replaced tensors in place of its own. */
  readonly checkpoint: Checkpoint;
  /** By the name of the tensor in the checkpoint. */
  readonly deltas: ReadonlyMap<string, readonly Delta[]>;
}

/**
 * Reads the adapters' matrices and finds the tensors of the base that they change.
 * @throws {CheckpointError} naming the adapter's tensor that fits nothing of the base.
 */
export async function adapt(
  base: Checkpoint,
  a: Architecture,
  adapters: readonly Adapter[],
): Promise<Adapted> {
  const names = new BaseNames(base, a);
  const replaced = new Map<string, { from: Checkpoint; info: TensorInfo }>();
  const deltas = new Map<string, Delta[]>();
  for (const adapter of adapters) {
    const { pairs, plain } = sortTensors(adapter);
    for (const [name, info] of plain) {
      const own = names.find(name)?.name ?? (names.isHead(name) ? name : undefined);
      if (own === undefined) throw unknown(adapter, name);
      replaced.set(own, { from: adapter.checkpoint, info });
      deltas.delete(own);
    }
    for (const [module, pair] of pairs) {
      const info = names.find(`${module}.weight`);
      if (!info) throw unknown(adapter, module);
      if (a.tied && names.isTied(info.name)) {
        throw new CheckpointError(
          `Cannot apply "${adapter.path}": expected no LoRA on "${module}", ` +
            "whose matrix is embedding and head in one",
        );
      }
      const all = deltas.get(info.name) ?? [];
      const turned = pair.embedding || names.storesTranspose(info.name);
      all.push(await readDelta(adapter, module, pair, info, turned));
      deltas.set(info.name, all);
    }
  }
  return { checkpoint: replaced.size ? new Replaced(base, replaced) : base, deltas };
}

function unknown({ path }: Adapter, name: string): CheckpointError {
  return new CheckpointError(
    `Cannot apply "${path}": expected modules of the base model, got ${
      JSON.stringify(name.slice(0, 120))
    }, which it has not`,
  );
}

/** Finds an adapter's module among the base's tensors, with or without the prefix of the family. */
class BaseNames {
  readonly #byPlain = new Map<string, TensorInfo>();
  readonly #prefixes: readonly string[];
  readonly #embedding: string;
  readonly #heads: readonly string[];
  readonly #transposed: boolean;

  constructor(base: Checkpoint, { family }: Architecture) {
    const { prefixes, wte, lmHead, transposed = false } = NAMES[family];
    this.#transposed = transposed;
    this.#prefixes = prefixes;
    this.#embedding = `${wte}.weight`;
    this.#heads = lmHead.map((name) => `${name}.weight`);
    for (const info of base.tensors()) this.#byPlain.set(this.#plain(info.name), info);
  }

  find(name: string): TensorInfo | undefined {
    return this.#byPlain.get(this.#plain(name));
  }

  isHead(name: string): boolean {
    return this.#heads.includes(this.#plain(name));
  }

  /** Whether the file has [K, N] of a linear layer, as GPT-2's Conv1D does. */
  storesTranspose(name: string): boolean {
    return this.#transposed && !this.isTied(name);
  }

  /** Whether a tensor is the embedding or the head, which may be one. */
  isTied(name: string): boolean {
    return this.isHead(name) || this.#plain(name) === this.#embedding;
  }

  #plain(name: string): string {
    const prefix = this.#prefixes.find((prefix) => name.startsWith(prefix)) ?? "";
    return name.slice(prefix.length);
  }
}

/** Names of A and B of one module in the adapter's file. */
interface Pair {
  a?: TensorInfo;
  b?: TensorInfo;
  embedding: boolean;
}

/** The adapter's tensors by module: pairs of matrices, and whole tensors. */
function sortTensors({ checkpoint, path }: Adapter) {
  const pairs = new Map<string, Pair>();
  const plain = new Map<string, TensorInfo>();
  for (const info of checkpoint.tensors()) {
    const name = info.name.startsWith(PEFT_PREFIX)
      ? info.name.slice(PEFT_PREFIX.length)
      : info.name;
    const match = /^(.*)\.lora_(embedding_)?([AB])(?:\.default)?(?:\.weight)?$/.exec(name);
    if (!match) {
      if (/\.lora_/.test(name)) {
        throw new CheckpointError(
          `Cannot apply "${path}": expected matrices lora_A and lora_B, got ${
            JSON.stringify(name.slice(0, 120))
          }`,
        );
      }
      // What PEFT wraps, and what it trains whole, has the wrapper in its name.
      plain.set(name.replace(/\.(base_layer|modules_to_save(\.default)?)(?=\.)/, ""), info);
      continue;
    }
    const [, module, embedding, letter] = match;
    const pair = pairs.get(module) ?? { embedding: embedding !== undefined };
    pair[letter === "A" ? "a" : "b"] = info;
    pairs.set(module, pair);
  }
  if (!pairs.size && !plain.size) {
    throw new CheckpointError(`Cannot apply "${path}": expected tensors, got none`);
  }
  return { pairs, plain };
}

/**
 * L and R of a module, in the order of the file's rows; `turned` where they are
 * the columns of the product.
 */
async function readDelta(
  { checkpoint, config, scale, path }: Adapter,
  module: string,
  { a, b }: Pair,
  { name, shape }: TensorInfo,
  turned: boolean,
): Promise<Delta> {
  const fail = (expected: string): never => {
    throw new CheckpointError(
      `Cannot apply "${path}": expected ${expected} for ${JSON.stringify(module.slice(0, 120))}`,
    );
  };
  if (!a || !b) return fail("both lora_A and lora_B");
  const [rank, K] = a.shape;
  const [N, inner] = b.shape;
  if (a.shape.length !== 2 || b.shape.length !== 2 || inner !== rank || !rank) {
    return fail(`lora_A [r, K] and lora_B [N, r], got [${a.shape}] and [${b.shape}]`);
  }
  if (`${shape}` !== `${turned ? [K, N] : [N, K]}`) {
    return fail(`matrices that fit "${name}" [${shape}], got [${b.shape}] times [${a.shape}]`);
  }
  const factor = scale * alphaOf(config, module) / (config.rslora ? Math.sqrt(rank) : rank);
  const [A, B] = [await checkpoint.read(a.name), await checkpoint.read(b.name)];
  const [left, right] = turned ? [transposed(A, rank, K), transposed(B, N, rank)] : [B, A];
  for (let i = 0; i < left.length; i++) left[i] *= factor;
  return { rank, columns: turned ? N : K, left, right };
}

/** PEFT's rule: the pattern is a regular expression for the end of the module's name. */
function alphaOf({ alpha, alphaPattern }: AdapterConfig, module: string): number {
  for (const [pattern, value] of Object.entries(alphaPattern)) {
    if (typeof value !== "number") continue;
    if (module === pattern || module.endsWith(`.${pattern}`) || matches(pattern, module)) {
      return value;
    }
  }
  return alpha;
}

function matches(pattern: string, module: string): boolean {
  try {
    return new RegExp(`^(.*\\.)?(${pattern})$`).test(module);
  } catch {
    return false;
  }
}

/** The transpose of a matrix [rows, columns]. */
function transposed(matrix: Float32Array, rows: number, columns: number): Float32Array {
  const out = new Float32Array(matrix.length);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) out[j * rows + i] = matrix[i * columns + j];
  }
  return out;
}

/** Adds a delta to whole rows of a weight, from row `row` on. */
export function addDelta(values: Float32Array, row: number, delta: Delta): void {
  const { rank, columns, left, right } = delta;
  for (let i = 0; i < values.length / columns; i++) {
    const out = values.subarray(i * columns, (i + 1) * columns);
    for (let r = 0; r < rank; r++) {
      const factor = left[(row + i) * rank + r];
      const line = right.subarray(r * columns, (r + 1) * columns);
      for (let j = 0; j < columns; j++) out[j] += factor * line[j];
    }
  }
}

/** A checkpoint, some of whose tensors are another's. */
class Replaced implements Checkpoint {
  readonly path: string;
  readonly metadata: Readonly<Record<string, string>>;

  constructor(
    readonly base: Checkpoint,
    readonly replaced: ReadonlyMap<
      string,
      { readonly from: Checkpoint; readonly info: TensorInfo }
    >,
  ) {
    this.path = base.path;
    this.metadata = base.metadata;
  }

  tensors(): TensorInfo[] {
    const kept = this.base.tensors().filter(({ name }) => !this.replaced.has(name));
    return [...kept, ...[...this.replaced].map(([name, { info }]) => ({ ...info, name }))];
  }

  sharesBytes(name: string, other: string): boolean {
    if (name === other) return true;
    if (this.replaced.has(name) || this.replaced.has(other)) return false;
    return this.base.sharesBytes(name, other);
  }

  read(name: string): Promise<Float32Array> {
    const own = this.replaced.get(name);
    return own ? own.from.read(own.info.name) : this.base.read(name);
  }

  readBytes(name: string, byteOffset: number, into: Uint8Array): Promise<void> {
    const own = this.replaced.get(name);
    return own
      ? own.from.readBytes(own.info.name, byteOffset, into)
      : this.base.readBytes(name, byteOffset, into);
  }

  /** The base and the adapters are disposed of by whoever opened them. */
  [Symbol.dispose](): void {}
}
