/**
 * LoRA adapters of PEFT (`adapter_config.json`, `adapter_model.safetensors`), merged at load.
 *
 * Method: W' = W + scale · alpha / r · B·A for a weight W [N, K], with A [r, K] and B [N, r]; with
 * `use_rslora` alpha / √r instead of alpha / r (Hu et al. 2021, arXiv:2106.09685; Kalajdzievski
 * 2023, arXiv:2312.03732). The sum is computed in F32 before the weight is rounded to its dtype.
 * Modules in `modules_to_save` and trained biases replace the base's tensors.
 *
 * @module
 */
import type { Architecture } from "../architecture/mod.ts";
import { beside, exists, readJsonObject } from "../host/files.ts";
import { type Checkpoint, openWeights, type TensorInfo } from "../checkpoint/checkpoint.ts";
import { CheckpointError } from "../errors.ts";
import { type HfTensor, hfTensorOf, type RowOrder } from "./lora_gguf.ts";
import { NAMES } from "./names.ts";
import { namesOf } from "./names_gguf.ts";

/** An adapter to merge into a model. */
export interface AdapterOptions {
  /** The folder that PEFT's `save_pretrained` wrote. */
  readonly path: string;
  /** Factor of the adapter's change; default 1. */
  readonly scale?: number;
}

/** An open adapter. Its tensors are read when it is merged. */
export interface Adapter extends Disposable {
  readonly path: string;
  readonly scale: number;
  readonly config: AdapterConfig;
  readonly checkpoint: Checkpoint;
}

/** The used keys of adapter_config.json. */
interface AdapterConfig {
  readonly base: string | null;
  readonly rslora: boolean;
  /** Whether a trained embedding is the head as well, where they are tied. */
  readonly keepsTie: boolean;
  readonly alpha: number;
  /** Alpha by pattern of module names. */
  readonly alphaPattern: Readonly<Record<string, unknown>>;
}

/** Low-rank change of a stored tensor [rows, columns]: left · right. */
export interface Delta {
  /** r */
  readonly rank: number;
  readonly columns: number;
  /** [rows, r], with the factor scale · alpha / r included. */
  readonly left: Float32Array;
  /** [r, columns] */
  readonly right: Float32Array;
}

/** Keys of unsupported features: they must be absent, null, false or empty. */
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

/** PEFT's prefix of the base model's names. */
const PEFT_PREFIX = "base_model.model.";

/**
 * The source of the base model that an adapter's configuration names: a folder relative to the
 * adapter's folder, a path relative to the working directory, or a repository on the hub.
 * @throws {CheckpointError} If it names no base model, or one that does not exist.
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
    `Cannot open "${folder}": expected base_model_name_or_path to be a folder or a repository, ` +
      `got ${JSON.stringify(base)?.slice(0, 200)}; open the base model with --lora ${folder}`,
  );
}

/**
 * Opens adapters.
 * @throws {CheckpointError} If a path is no adapter, or an adapter has an unsupported feature;
 *   names the key.
 * @throws {RangeError} If a scale is not finite.
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
      `Cannot apply "${folder}": expected a folder with an adapter_config.json of PEFT`,
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
  // These change the base's weights too, whenever the adapter is loaded.
  if (/^(pissa|olora|corda|loftq)/.test(String(config.init_lora_weights))) {
    fail("init_lora_weights", "to leave the base as it is; convert the adapter to plain LoRA");
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
    keepsTie: config.ensure_weight_tying === true,
    alpha: alpha as number,
    alphaPattern: patterns as Record<string, unknown>,
  };
}

function isSet(value: unknown): boolean {
  if (value === undefined || value === null || value === false) return false;
  if (Array.isArray(value)) return value.length > 0;
  return typeof value !== "object" || Object.keys(value).length > 0;
}

/** A base model with adapters: replaced tensors, and changes of other tensors. */
export interface Adapted {
  /** The base, with some tensors replaced. */
  readonly checkpoint: Checkpoint;
  /** Changes by the name of the tensor in the checkpoint. */
  readonly deltas: ReadonlyMap<string, readonly Delta[]>;
}

/**
 * Reads the adapters' matrices and finds the base's tensors that they change.
 * @throws {CheckpointError} If an adapter's tensor fits no tensor of the base; names it.
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
      const found = names.find(name)?.name;
      const target = found ?? (names.isHead(name) ? names.fileHead : undefined);
      if (target === undefined) throw unknown(adapter, name);
      if (names.order(target)) {
        throw new CheckpointError(
          `Cannot apply "${adapter.path}": expected LoRA matrices for "${target}", whose rows a ` +
            "GGUF has in another order, got the whole tensor; use the model it was made of",
        );
      }
      replaced.set(target, { from: adapter.checkpoint, info });
      deltas.delete(target);
    }
    // The head of a tied model stays the base's embedding, as PEFT keeps it.
    const embedding = names.embedding();
    const head = names.fileHead;
    const isTrained = embedding && replaced.get(embedding.name)?.from === adapter.checkpoint;
    if (
      a.tied && isTrained && !adapter.config.keepsTie && !names.hasHead && !replaced.has(head)
    ) {
      replaced.set(head, { from: base, info: embedding });
    }
    for (const [module, pair] of pairs) {
      const info = names.find(`${module}.weight`);
      if (a.tied && names.isTied(`${module}.weight`)) {
        throw new CheckpointError(
          `Cannot apply "${adapter.path}": expected no LoRA on "${module}", ` +
            "whose matrix is embedding and head in one",
        );
      }
      if (!info) throw unknown(adapter, module);
      const all = deltas.get(info.name) ?? [];
      const isTransposed = pair.embedding || names.storesTranspose(info.name);
      const delta = await readDelta(adapter, module, pair, info, isTransposed);
      all.push(reordered(delta, names.order(info.name)));
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

/** Finds tensors of the base by an adapter's names, with or without the family's prefix. */
class BaseNames {
  readonly #byPlain = new Map<string, TensorInfo>();
  readonly #prefixes: readonly string[];
  readonly #embedding: string;
  readonly #heads: readonly string[];
  readonly #transposed: boolean;

  /** The head's name in a file that has one. */
  readonly fileHead: string;
  readonly #orders = new Map<string, RowOrder>();

  constructor(base: Checkpoint, a: Architecture) {
    const { prefixes, wte, lmHead } = NAMES[a.family];
    const names = namesOf(base, a);
    this.#transposed = names.transposed ?? false;
    this.#prefixes = prefixes;
    this.#embedding = `${wte}.weight`;
    this.#heads = lmHead.map((name) => `${name}.weight`);
    this.fileHead = `${names.lmHead[0]}.weight`;
    const hfTensor = base.format === "gguf"
      ? hfTensorOf(base, a)
      : (name: string): HfTensor => ({ name: this.#plain(name) });
    for (const info of base.tensors()) {
      const { name, order } = hfTensor(info.name) ?? {};
      if (name !== undefined) this.#byPlain.set(name, info);
      if (order) this.#orders.set(info.name, order);
    }
  }

  find(name: string): TensorInfo | undefined {
    const names = this.isHead(name) ? this.#heads : [this.#plain(name)];
    return names.flatMap((name) => this.#byPlain.get(name) ?? [])[0];
  }

  embedding(): TensorInfo | undefined {
    return this.#byPlain.get(this.#embedding);
  }

  /** Whether the file has a head. */
  get hasHead(): boolean {
    return this.#heads.some((name) => this.#byPlain.has(name));
  }

  /** The order of a tensor's rows, if the file has them in another one. */
  order(fileName: string): RowOrder | undefined {
    return this.#orders.get(fileName);
  }

  isHead(name: string): boolean {
    return this.#heads.includes(this.#plain(name));
  }

  /** Whether the file stores linear layers as [K, N], as GPT-2's Conv1D. */
  storesTranspose(name: string): boolean {
    return this.#transposed && !this.isTied(name);
  }

  /** Whether a tensor is the embedding or the head, which may be tied. */
  isTied(name: string): boolean {
    return this.isHead(name) || this.#plain(name) === this.#embedding;
  }

  #plain(name: string): string {
    const prefix = this.#prefixes.find((prefix) => name.startsWith(prefix)) ?? "";
    return name.slice(prefix.length);
  }
}

/** Matrices A and B of one module. */
interface Pair {
  a?: TensorInfo;
  b?: TensorInfo;
  embedding: boolean;
}

/** Splits an adapter's tensors into pairs of matrices and whole tensors, by module. */
function sortTensors({ checkpoint, path }: Adapter) {
  const pairs = new Map<string, Pair>();
  const plain = new Map<string, TensorInfo>();
  for (const info of checkpoint.tensors()) {
    const name = info.name.startsWith(PEFT_PREFIX)
      ? info.name.slice(PEFT_PREFIX.length)
      : info.name;
    const match = /^(.*)\.lora_(embedding_)?([AB])(?:\.(?!weight$)[^.]+)?(?:\.weight)?$/.exec(name);
    if (!match) {
      if (/\.lora_/.test(name)) {
        throw new CheckpointError(
          `Cannot apply "${path}": expected matrices lora_A and lora_B, got ${
            JSON.stringify(name.slice(0, 120))
          }`,
        );
      }
      // The names of wrapped and of fully trained modules contain PEFT's wrapper.
      plain.set(name.replace(/\.(base_layer|modules_to_save(\.default)?)(?=\.)/, ""), info);
      continue;
    }
    const [, module, embedding, letter] = match;
    const pair = pairs.get(module) ?? { embedding: embedding !== undefined };
    const key = letter === "A" ? "a" : "b";
    if (pair[key]) {
      throw new CheckpointError(
        `Cannot apply "${path}": expected one adapter, got ${
          JSON.stringify(name.slice(0, 120))
        } beside another one`,
      );
    }
    pair[key] = info;
    pairs.set(module, pair);
  }
  if (!pairs.size && !plain.size) {
    throw new CheckpointError(`Cannot apply "${path}": expected tensors, got none`);
  }
  return { pairs, plain };
}

/** Reads the matrices of a module; `isTransposed` if the base stores the transpose of B·A. */
async function readDelta(
  { checkpoint, config, scale, path }: Adapter,
  module: string,
  { a, b }: Pair,
  { name, shape }: TensorInfo,
  isTransposed: boolean,
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
  if (`${shape}` !== `${isTransposed ? [K, N] : [N, K]}`) {
    return fail(`matrices that fit "${name}" [${shape}], got [${b.shape}] times [${a.shape}]`);
  }
  const factor = scale * alphaOf(config, module) / (config.rslora ? Math.sqrt(rank) : rank);
  const [A, B] = [await checkpoint.read(a.name), await checkpoint.read(b.name)];
  const [left, right] = isTransposed ? [transposed(A, rank, K), transposed(B, N, rank)] : [B, A];
  for (let i = 0; i < left.length; i++) left[i] *= factor;
  return { rank, columns: isTransposed ? N : K, left, right };
}

/** A change whose rows are in the order of the base's. */
function reordered(delta: Delta, order?: RowOrder): Delta {
  if (!order) return delta;
  const { rank, left } = delta;
  const rows = new Float32Array(left.length);
  for (let row = 0; row < left.length / rank; row++) {
    const from = order(row) * rank;
    rows.set(left.subarray(from, from + rank), row * rank);
  }
  return { ...delta, left: rows };
}

/** PEFT's rule: a pattern is a regular expression for the end of a module's name. */
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

/** Adds left · right to rows of a weight; `row` is the first row in `values` [rows, columns]. */
export function addDelta(values: Float32Array, row: number, delta: Delta): void {
  const { rank, columns, left, right } = delta;
  for (let i = 0; i < values.length / columns; i++) {
    const out = values.subarray(i * columns, (i + 1) * columns);
    for (let r = 0; r < rank; r++) {
      const factor = left[(row + i) * rank + r];
      const direction = right.subarray(r * columns, (r + 1) * columns); // [columns]
      for (let j = 0; j < columns; j++) out[j] += factor * direction[j];
    }
  }
}

/** A checkpoint with some tensors replaced by an adapter's. */
class Replaced implements Checkpoint {
  readonly path: string;
  readonly format: Checkpoint["format"];
  readonly metadata: Checkpoint["metadata"];

  constructor(
    readonly base: Checkpoint,
    readonly replaced: ReadonlyMap<
      string,
      { readonly from: Checkpoint; readonly info: TensorInfo }
    >,
  ) {
    this.path = base.path;
    this.format = base.format;
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
    const other = this.replaced.get(name);
    return other ? other.from.read(other.info.name) : this.base.read(name);
  }

  readBytes(name: string, byteOffset: number, into: Uint8Array): Promise<void> {
    const other = this.replaced.get(name);
    return other
      ? other.from.readBytes(other.info.name, byteOffset, into)
      : this.base.readBytes(name, byteOffset, into);
  }

  /** Does nothing: the caller disposes of the base and the adapters. */
  [Symbol.dispose](): void {}
}
