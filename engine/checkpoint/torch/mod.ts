/**
 * Reader of PyTorch checkpoints (`.pt`, `.pth`, `.ckpt`, `pytorch_model.bin`): the zip archives
 * that `torch.save` writes since version 1.6.
 *
 *     archive.ts, zip.ts ──▶ pickle.ts ──▶ state dict ──▶ place of each tensor's bytes
 *     members                values        names          contiguous, or a view (strided.ts)
 *
 * The pickle is parsed, never executed. Tensors that are not the model's, such as an optimizer's,
 * cost only their lines in the pickle: their bytes are not read.
 *
 * @module
 */
import { isGptConfig } from "../../architecture/gpt.ts";
import { CheckpointError } from "../../errors.ts";
import { define, isNaturals } from "../../json.ts";
import type { ByteSource } from "../../host/mod.ts";
import { unpickle } from "./pickle.ts";
import { describe, Opaque, PickledObject, PickleGlobal, shorten } from "./pickle_values.ts";
import {
  findGlobal,
  isNatural,
  persistentStorage,
  spellingOf,
  TorchStorage,
  TorchTensor,
} from "./pickle_globals.ts";
import { isOtherModel, type ModelNames, modelNames, modelPrefix } from "../model_names.ts";
import { STORED, type StoredTensor } from "../safetensors.ts";
import { type Archive, type Fail, openArchive } from "./archive.ts";
import { Checksums, followed } from "./checksums.ts";
import { isContiguous, spanOf, type ViewCache, ViewSource } from "./strided.ts";
import { locateMember, readMember, type ZipMember } from "./zip.ts";

/** Contents of a checkpoint. */
export interface TorchContents {
  /** By name without the prefixes of wrappers, in the order of the state dict. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Numbers and short texts beside the tensors, as text: the step, the losses. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The model's configuration, if its trainer stored one. */
  readonly config?: TorchConfig;
  /** LabCore's tokenizer, if the file has one. */
  readonly tokenizer?: Record<string, unknown>;
  /** Data set of nanoGPT's training configuration: the folder of its vocabulary. */
  readonly dataset?: string;
  /** One sentence for each kind of tensor that is ignored. */
  readonly notes: readonly string[];
}

/** A trainer's configuration of the model. */
export interface TorchConfig {
  /** The trainer whose keys it has. */
  readonly kind: "labcore" | "nanogpt";
  /** Plain values only. */
  readonly record: Record<string, unknown>;
  /** Recognized only by its keys; a config.json next to the file overrides it. */
  readonly guessed?: true;
}

/** Keys of the state dict by trainer, in the order of search. */
const STATES = [
  "model_state_dict", // LabCore
  "model", // nanoGPT
  "state_dict", // Lightning
  "module", // DeepSpeed
] as const;

/** Keys of the model's configuration by trainer. */
const CONFIGS = [
  { key: "model_config", kind: "labcore" },
  { key: "model_args", kind: "nanogpt" },
] as const;

/** Limits of a record of plain data: depth; values plus characters, with repetitions. */
const MAX_DEPTH = 8;
const MAX_RECORD = 2 ** 21;

/** Limits of the search for a configuration: depth below the root; dicts that are looked at. */
const SEARCH_DEPTH = 5;
const SEARCH_DICTS = 2 ** 14;

/** Limits of the metadata: number of entries, characters per entry. */
const MAX_METADATA = 64;
const MAX_METADATA_TEXT = 200;

/** PyTorch's limit of a tensor's extents. */
const MAX_EXTENTS = 64;

/**
 * Reads a checkpoint's directory and pickle.
 * @throws {CheckpointError} If it is damaged, in another format, refers to code, or has no named
 *   tensors.
 */
export async function readTorch(source: ByteSource): Promise<TorchContents> {
  const fail: Fail = (expected) => {
    throw new CheckpointError(`Cannot open "${source.name}": expected ${expected}`);
  };
  const archive = await openArchive(source, fail);
  const pickle = await readMember(source, archive.pickle);
  const root = unpickle(pickle, {
    file: source.name,
    member: "data.pkl",
    find: findGlobal,
    persistent: persistentStorage,
  });
  const { key, state } = findState(root, source.name, fail);
  const notes: string[] = key === undefined || !isOtherModel(key)
    ? []
    : [`the weights are those of "${shorten(key)}"`];
  const named = namedTensors(state, fail);
  const isLightning = root instanceof Map && root.has("pytorch-lightning_version");
  const holder = isLightning ? "lightning" : key === "state_dict" ? key : undefined;
  const model = renamed(named, modelNames(named.map(([name]) => name), holder), notes);
  const tensors = new Map<string, StoredTensor>();
  const locator = new TensorLocator(source, archive, fail);
  for (const [name, value] of withoutAverage(byName(model, fail), notes)) {
    tensors.set(name, await locator.locate(name, value));
  }
  if (!(root instanceof Map) || root === state) return { tensors, metadata: {}, notes };

  const config = findConfig(root, fail);
  const tokenizer = root.get("tokenizer");
  const dataset = plainDict(root.get("config"))?.get("dataset");
  return {
    tensors,
    metadata: readMetadata(root),
    notes,
    ...(config && { config }),
    ...(tokenizer instanceof Map && { tokenizer: toRecord(tokenizer, fail) }),
    ...(typeof dataset === "string" && { dataset }),
  };
}

/** The configuration under a trainer's key, or any object near the root with GPTConfig's keys. */
function findConfig(root: ReadonlyMap<unknown, unknown>, fail: Fail): TorchConfig | undefined {
  for (const { key, kind } of CONFIGS) {
    const dict = plainDict(root.get(key));
    if (dict) return { kind, record: toRecord(dict, fail) };
  }
  const dict = searchDicts(root, (dict) => isGptConfig((key) => dict.has(key)));
  return dict && { kind: "nanogpt", record: toRecord(dict, fail), guessed: true };
}

/** The first dict or object near the root that passes a test, level by level. */
function searchDicts(
  root: ReadonlyMap<unknown, unknown>,
  test: (dict: ReadonlyMap<unknown, unknown>) => boolean,
): ReadonlyMap<unknown, unknown> | undefined {
  let level = new Set([root]);
  const seen = new Set(level);
  for (let depth = 0; depth <= SEARCH_DEPTH; depth++) {
    const next = new Set<ReadonlyMap<unknown, unknown>>();
    for (const dict of level) {
      if (depth && test(dict)) return dict;
      for (const value of dict.values()) {
        const inner = plainDict(value);
        if (!inner || seen.has(inner) || seen.size > SEARCH_DICTS) continue;
        seen.add(inner);
        next.add(inner);
      }
    }
    level = next;
  }
}

/** A dict, or the attributes of an object; undefined for anything else. */
function plainDict(value: unknown): ReadonlyMap<unknown, unknown> | undefined {
  const plain = withoutNode(value);
  if (plain instanceof PickledObject) return plain.attributes;
  return plain instanceof Map ? plain : undefined;
}

/** The value of a node of OmegaConf, which has parents and types beside it; other values as is. */
function withoutNode(value: unknown): unknown {
  if (!(value instanceof PickledObject && value.name.startsWith("omegaconf."))) return value;
  return ["_content", "_val"].map((key) => value.attributes.get(key))
    .find((inner) => inner !== undefined && !(inner instanceof PickledObject)) ?? null;
}

/** The dict of tensors, and its key in the root; no key if it is the root itself. */
function findState(
  root: unknown,
  name: string,
  fail: Fail,
): { key?: string; state: ReadonlyMap<unknown, unknown> } {
  const refuseModule = (module: PickledObject): never => {
    throw new CheckpointError(
      `Cannot open "${name}": expected a dict, got ${describe(module)}, a whole module; ` +
        "save the state dict: torch.save(model.state_dict(), path)",
    );
  };
  if (root instanceof PickledObject) return refuseModule(root);
  if (!(root instanceof Map)) {
    return fail(`a dict, got ${root instanceof TorchTensor ? "a tensor" : describe(root)}`);
  }
  const key = STATES.find((key) => hasTensors(root.get(key)));
  if (key !== undefined) return { key, state: root.get(key) as ReadonlyMap<unknown, unknown> };
  if (hasTensors(root)) return { state: root };
  for (const value of root.values()) {
    if (!(value instanceof Map)) continue;
    const key = STATES.find((key) => hasTensors(value.get(key)));
    if (key !== undefined) return { key, state: value.get(key) };
  }
  const [only] = onlyState(root);
  if (only) return { key: String(only[0]), state: only[1] };
  const module = STATES.map((key) => root.get(key)).find((one) => one instanceof PickledObject);
  if (module) return refuseModule(module);
  const keys = [...root.keys()].slice(0, 8).map(describe).join(", ");
  return fail(`a state dict, or one as ${STATES.join(", ")}, got a dict with ${keys || "nothing"}`);
}

/** The one dict with tensors under any other key: a GPT's if there is one, and no mean of it. */
function onlyState(root: ReadonlyMap<unknown, unknown>) {
  const states = [...root].flatMap(([key, value]) =>
    hasTensors(value) ? [[key, value as ReadonlyMap<unknown, unknown>] as const] : []
  );
  const isGpt = (state: ReadonlyMap<unknown, unknown>) =>
    modelPrefix([...state.keys()].filter((name) => typeof name === "string")) !== undefined;
  const gpts = states.filter(([, state]) => isGpt(state));
  const models = gpts.filter(([key]) => typeof key !== "string" || !isOtherModel(key));
  return [models, gpts, states].find((some) => some.length === 1) ?? [];
}

function hasTensors(value: unknown): boolean {
  return value instanceof Map && value.values().some(isTensor);
}

/** Whether a value is a tensor, even of an unsupported kind. */
function isTensor(value: unknown): value is TorchTensor | Opaque {
  return value instanceof TorchTensor ||
    (value instanceof Opaque && value.name.startsWith("torch._utils."));
}

type Named = readonly [name: string, tensor: TorchTensor];

/** The tensors of a state dict. Other values are skipped. */
function namedTensors(state: ReadonlyMap<unknown, unknown>, fail: Fail): Named[] {
  const named: Named[] = [];
  for (const [name, value] of state) {
    if (!isTensor(value)) continue;
    if (typeof name !== "string") return fail(`names of tensors to be text, got ${describe(name)}`);
    if (value instanceof Opaque) {
      return fail(`tensor ${describe(name)} to be a plain one, got one of ${value.name}`);
    }
    named.push([name, value]);
  }
  return named;
}

/** The model's tensors under their names in the model. */
function renamed(named: readonly Named[], model: ModelNames, notes: string[]): Named[] {
  notes.push(...model.notes);
  return named.flatMap(([name, value]): Named[] => {
    const own = model.names.get(name);
    return own === undefined ? [] : [[own, value]];
  });
}

/** Drops `n_averaged`, the counter of torch.optim.swa_utils.AveragedModel. */
function withoutAverage(
  tensors: ReadonlyMap<string, TorchTensor>,
  notes: string[],
): ReadonlyMap<string, TorchTensor> {
  if (!tensors.has("n_averaged")) return tensors;
  notes.push("the weights are those of an averaged model");
  return new Map([...tensors].filter(([name]) => name !== "n_averaged"));
}

function byName(named: readonly Named[], fail: Fail): Map<string, TorchTensor> {
  const tensors = new Map(named);
  if (tensors.size === named.length) return tensors;
  const seen = new Set<string>();
  for (const [name] of named) {
    if (seen.has(name)) {
      fail(`every tensor once without the prefixes of wrappers, got ${describe(name)} twice`);
    }
    seen.add(name);
  }
  return tensors;
}

/** Locates the bytes of tensors in the archive. */
class TensorLocator {
  readonly #starts = new Map<string, number>();
  readonly #views = new Map<string, ViewSource>();
  readonly #cache: ViewCache = new Map();
  readonly #checksums: Checksums;
  /** The file with verified reads, for views, which gather tensors. */
  readonly #followed: ByteSource;

  constructor(readonly file: ByteSource, readonly archive: Archive, readonly fail: Fail) {
    this.#checksums = new Checksums(file);
    this.#followed = followed(this.#checksums);
  }

  async locate(name: string, tensor: TorchTensor): Promise<StoredTensor> {
    const fail: Fail = (expected) => this.fail(`tensor ${describe(name)} ${expected}`);
    const { storage, offset, shape, stride } = tensor;
    if (!(storage instanceof TorchStorage)) return fail("to have a storage");
    if (
      !isNaturals(shape) || !isNaturals(stride) || shape.length !== stride.length ||
      shape.length > MAX_EXTENTS
    ) {
      return fail("to have a shape, and a stride for each of its extents");
    }
    if (!isNatural(offset)) return fail("to have an offset");
    const type = tensor.dtype ?? storage.type;
    const dtype = type instanceof PickleGlobal ? spellingOf(type) : undefined;
    if (dtype === undefined) {
      return fail(
        `to have a dtype of ${Object.keys(STORED).join(" ")}, got ${describe(type)}`,
      );
    }
    if (tensor.flags instanceof Map && [...tensor.flags.values()].includes(true)) {
      return fail("to be stored plainly, got one to be negated or conjugated");
    }

    const elementBytes = STORED[dtype].bytes;
    const member = this.archive.members.get(`${this.archive.root}data/${storage.key}`);
    if (!member) return fail(`to have its bytes in data/${storage.key}, which is missing`);
    // An untyped storage counts bytes.
    const unit = STORED[spellingOf(storage.type) ?? "U8"].bytes;
    if (storage.count * unit !== member.size) {
      return fail(
        `to have a storage of ${storage.count} times ${unit} bytes, ` +
          `got ${member.size} in data/${storage.key}`,
      );
    }
    const start = await this.#start(member);
    // A float: inexact for huge shapes, which are refused below.
    const byteLength = shape.reduce((product, extent) => product * extent, elementBytes);
    if (byteLength === 0) {
      return { name, dtype, shape, source: this.file, offset: start, byteLength };
    }
    const end = (offset + spanOf(shape, stride)) * elementBytes;
    if (!(end <= member.size)) {
      return fail(`to end within the ${member.size} bytes of its storage, got byte ${end}`);
    }
    if (byteLength > this.file.size) {
      return fail(`to be no larger than the file, got [${shape}] of ${dtype}`);
    }
    const begin = start + offset * elementBytes;
    const bigEndian = this.archive.bigEndian && elementBytes > 1;
    if (!bigEndian && isContiguous(shape, stride)) {
      const verify = this.#verify;
      return { name, dtype, shape, source: this.file, offset: begin, byteLength, verify };
    }
    // Equal views share one source, so that `sharesBytes` recognizes tied tensors.
    const view = `${begin} ${elementBytes} ${shape} ${stride}`;
    let source = this.#views.get(view);
    if (!source) {
      source = new ViewSource(
        this.#followed,
        { begin, elementBytes, shape, stride, bigEndian },
        this.#cache,
      );
      this.#views.set(view, source);
    }
    return { name, dtype, shape, source, offset: 0, byteLength };
  }

  readonly #verify = (offset: number, bytes: Uint8Array) => this.#checksums.saw(offset, bytes);

  /** Byte offset of a storage in the file, cached: many tensors may share it. */
  async #start(member: ZipMember): Promise<number> {
    let start = this.#starts.get(member.name);
    if (start === undefined) {
      start = await locateMember(this.file, member);
      this.#starts.set(member.name, start);
      this.#checksums.add(start, member);
    }
    return start;
  }
}

/** Converts a dict to a record of plain data; other values, such as tensors, are left out. */
function toRecord(dict: ReadonlyMap<unknown, unknown>, fail: Fail): Record<string, unknown> {
  let left = MAX_RECORD;
  const plain = (item: unknown, depth: number): unknown => {
    const value = withoutNode(item);
    left -= typeof value === "string" ? 1 + value.length : 1;
    if (left < 0 || depth > MAX_DEPTH) {
      return fail("a configuration and a tokenizer of ordinary size and depth");
    }
    if (value === null || ["string", "number", "boolean"].includes(typeof value)) return value;
    if (typeof value === "bigint") return Number(value);
    if (value instanceof PickleGlobal) return value.name;
    if (Array.isArray(value) || value instanceof Set) {
      return Array.from(value, (item) => plain(item, depth + 1) ?? null);
    }
    if (value instanceof PickledObject) {
      const { attributes, items, args } = value;
      if (attributes.size) return record(attributes, depth + 1);
      if (items.length) return plain(items, depth);
      // An Enum member is constructed from its value.
      return args.length === 1 ? plain(args[0], depth + 1) : undefined;
    }
    return value instanceof Map ? record(value, depth + 1) : undefined;
  };
  const record = (dict: ReadonlyMap<unknown, unknown>, depth: number): Record<string, unknown> => {
    const made = {};
    for (const [key, item] of dict) {
      const value = plain(item, depth);
      if (typeof key !== "string" || value === undefined) continue;
      define(made, key, value);
    }
    return made;
  };
  return record(dict, 0);
}

/** Numbers and short texts of the root and of its `losses`. */
function readMetadata(root: ReadonlyMap<unknown, unknown>): Record<string, string> {
  const metadata = {};
  let left = MAX_METADATA;
  const take = (dict: ReadonlyMap<unknown, unknown>, prefix: string): void => {
    for (const [key, value] of dict) {
      if (typeof key !== "string" || key.length > MAX_METADATA_TEXT) continue;
      if (!["string", "number", "bigint", "boolean"].includes(typeof value)) continue;
      const text = String(value);
      if (text.length <= MAX_METADATA_TEXT && left-- > 0) define(metadata, prefix + key, text);
    }
  };
  take(root, "");
  const losses = root.get("losses");
  if (losses instanceof Map) take(losses, "losses.");
  return metadata;
}
