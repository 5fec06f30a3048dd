/**
 * PyTorch's checkpoints (`.pt`, `.pth`, `.ckpt`, `pytorch_model.bin`), read lazily: what
 * `torch.save` writes from version 1.6 on.
 *
 * A zip archive: `data.pkl` tells of the tensors, `data/0`, `data/1` … hold their bytes. The pickle
 * is read as data and nothing of it is run; tensors that are not of the model, as an optimizer's,
 * cost no more than their lines in it.
 *
 * @module
 */
import { isGptConfig } from "../../architecture/gpt.ts";
import { CheckpointError } from "../../errors.ts";
import { define, isNaturals } from "../../json.ts";
import type { ByteSource } from "../../host/mod.ts";
import { unpickle } from "./pickle.ts";
import { describe, Opaque, PickledObject, PickleGlobal } from "./pickle_values.ts";
import {
  findGlobal,
  isNatural,
  persistentStorage,
  spellingOf,
  TorchStorage,
  TorchTensor,
} from "./pickle_globals.ts";
import { STORED, type StoredTensor } from "../safetensors.ts";
import { isContiguous, spanOf, type ViewCache, ViewSource } from "./strided.ts";
import { isZip, locateMember, readMember, readZip, type ZipMember } from "./zip.ts";

/** What a checkpoint holds. */
export interface TorchContents {
  /** In the order of the state dict; names without the prefixes of wrappers. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Numbers and short texts beside the tensors, as text: the step, the losses. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The model's configuration, where its trainer left it, and whose trainer that is. */
  readonly config?: TorchConfig;
  /** LabCore's record of the tokenizer, where there is one. */
  readonly tokenizer?: Record<string, unknown>;
  /**
   * The name of the data set in nanoGPT's training configuration, under
   * which its vocabulary is kept.
   */
  readonly dataset?: string;
  /** What was left out, a sentence each. */
  readonly notes: readonly string[];
}

/** A trainer's configuration of the model. */
export interface TorchConfig {
  /** Whose keys they are. */
  readonly kind: "labcore" | "nanogpt";
  /** Plain values alone. */
  readonly record: Record<string, unknown>;
  /**
   * Found by its keys in an object that a trainer named freely: a config.json
   * beside the file knows better.
   */
  readonly guessed?: true;
}

/** Where trainers keep the state dict, in the order in which they are tried. */
const STATES = [
  "model_state_dict", // LabCore
  "model", // nanoGPT
  "state_dict", // Lightning
  "module", // DeepSpeed
] as const;

/** Where trainers keep the configuration of the model. */
const CONFIGS = [
  { key: "model_config", kind: "labcore" },
  { key: "model_args", kind: "nanogpt" },
] as const;

/**
 * Components that wrappers of modules put into a tensor's name: torch.compile,
 * FSDP, activation checkpoints.
 */
const WRAPPERS = new Set([
  "_orig_mod",
  "_fsdp_wrapped_module",
  "_fpw_module",
  "_checkpoint_wrapped_module",
]);

/**
 * Largest data.pkl that is read, in bytes. It has no tensors' bytes in it: some 100 bytes a tensor.
 */
const MAX_PICKLE_BYTES = 2 ** 28;

/** The newest version of the archive that PyTorch knows. */
const MAX_VERSION = 10;

/**
 * Bounds of a record of plain data: how deep, and how many values and characters, counted as
 * often as they are named.
 */
const MAX_DEPTH = 8;
const MAX_RECORD = 2 ** 21;

/** Bounds of the metadata: entries, and characters of one. */
const MAX_METADATA = 64;
const MAX_METADATA_TEXT = 200;

/** Most extents of a tensor, as in PyTorch. */
const MAX_EXTENTS = 64;

type Fail = (expected: string) => never;

/**
 * Reads a checkpoint's directory and pickle.
 * @throws {CheckpointError} when it is torn, of another form, holds something else than data,
 * or has no tensors by name.
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
  const notes: string[] = [];
  const named = namedTensors(state, fail);
  const isLightning = root instanceof Map && root.has("pytorch-lightning_version");
  const model = key === "state_dict" ? withoutAttribute(named, isLightning, notes) : named;
  const tensors = new Map<string, StoredTensor>();
  const place = new Placing(source, archive, fail);
  for (const [name, value] of withoutAverage(byName(model, fail), notes)) {
    tensors.set(name, await place.tensor(name, value));
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

/**
 * The configuration under a trainer's key for it, or an object anywhere at the root
 * that has GPTConfig's keys.
 */
function findConfig(root: ReadonlyMap<unknown, unknown>, fail: Fail): TorchConfig | undefined {
  for (const { key, kind } of CONFIGS) {
    const dict = plainDict(root.get(key));
    if (dict) return { kind, record: toRecord(dict, fail) };
  }
  const near = [...root.values()].flatMap((value) => plainDict(value) ?? []);
  const far = near.flatMap((dict) => [...dict.values()].flatMap((value) => plainDict(value) ?? []));
  const dict = [...near, ...far].find((dict) => isGptConfig((key) => dict.has(key)));
  return dict && { kind: "nanogpt", record: toRecord(dict, fail), guessed: true };
}

/** A dict, or the attributes of an object; undefined for anything else. */
function plainDict(value: unknown): ReadonlyMap<unknown, unknown> | undefined {
  if (value instanceof PickledObject) return value.attributes;
  return value instanceof Map ? value : undefined;
}

/** The members that matter. */
interface Archive {
  readonly members: ReadonlyMap<string, ZipMember>;
  /** The name of every member begins so. */
  readonly root: string;
  readonly pickle: ZipMember;
  readonly bigEndian: boolean;
}

async function openArchive(source: ByteSource, fail: Fail): Promise<Archive> {
  const head = new Uint8Array(Math.min(source.size, 512));
  await source.read(0, head);
  if (!isZip(head)) return refuseOther(source.name, head, fail);
  const members = await readZip(source);
  const pickles = [...members.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (pickles.length !== 1) {
    return fail(`one data.pkl, as torch.save writes it, got ${pickles.length}`);
  }
  const root = pickles[0].slice(0, -"data.pkl".length);
  if ([...members.keys()].some((name) => /^[^/]+\/(constants\.pkl$|code\/)/.test(name))) {
    throw new CheckpointError(
      `Cannot open "${source.name}": it is a TorchScript archive, which holds a program; ` +
        "save the state dict: torch.save(model.state_dict(), path)",
    );
  }
  const pickle = members.get(pickles[0])!;
  if (pickle.size > MAX_PICKLE_BYTES) {
    fail(`a data.pkl of at most ${MAX_PICKLE_BYTES} bytes, got ${pickle.size}`);
  }
  /** A member that holds a word. */
  const word = async (name: string): Promise<string | undefined> => {
    const member = members.get(root + name);
    if (!member) return undefined;
    if (member.size > 16) return fail(`a word in ${name}, got ${member.size} bytes`);
    return new TextDecoder().decode(await readMember(source, member)).trim();
  };
  const order = await word("byteorder") ?? "little";
  if (order !== "little" && order !== "big") fail(`a byteorder of little or big, got "${order}"`);
  const version = await word("version") ?? "3";
  if (!/^\d+$/.test(version) || Number(version) > MAX_VERSION) {
    fail(`version ${MAX_VERSION} of the archive at most, got "${version}"`);
  }
  return { members, root, pickle, bigEndian: order === "big" };
}

/** Tells what a file is that is no archive, where that is known. */
function refuseOther(name: string, head: Uint8Array, fail: Fail): never {
  const text = Array.from(head, (byte) => String.fromCharCode(byte)).join("");
  // PyTorch's magic number, which a file of the old form begins with, as pickle writes it.
  const old = text.slice(0, 32).includes("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19");
  if (old || text.slice(257, 262) === "ustar") {
    throw new CheckpointError(
      `Cannot open "${name}": it has the form that PyTorch wrote before version 1.6; ` +
        "save it again with a newer one: torch.save(torch.load(path), path)",
    );
  }
  return fail("a checkpoint that torch.save wrote (a zip archive), got another kind of file");
}

/** Finds the dict of tensors, and under which key of the root it is. */
function findState(
  root: unknown,
  name: string,
  fail: Fail,
): { key?: string; state: ReadonlyMap<unknown, unknown> } {
  if (!(root instanceof Map)) {
    if (root instanceof PickledObject) {
      throw new CheckpointError(
        `Cannot open "${name}": it holds ${
          describe(root)
        }, a whole module with its code; save the state dict: torch.save(model.state_dict(), path)`,
      );
    }
    return fail(`a dict, got ${root instanceof TorchTensor ? "a tensor" : describe(root)}`);
  }
  const key = STATES.find((key) => hasTensors(root.get(key)));
  if (key !== undefined) return { key, state: root.get(key) as ReadonlyMap<unknown, unknown> };
  if (hasTensors(root)) return { state: root };
  // A trainer's own name for it, if no other dict at the root has tensors.
  const states = [...root].filter(([, value]) => hasTensors(value));
  if (states.length === 1) {
    const [[key, state]] = states;
    return { key: String(key), state: state as ReadonlyMap<unknown, unknown> };
  }
  const keys = [...root.keys()].slice(0, 8).map(describe).join(", ");
  return fail(`a state dict, or one as ${STATES.join(", ")}, got a dict with ${keys || "nothing"}`);
}

function hasTensors(value: unknown): boolean {
  return value instanceof Map && value.values().some(isTensor);
}

/** A tensor, or one of a kind that is not read. */
function isTensor(value: unknown): value is TorchTensor | Opaque {
  return value instanceof TorchTensor ||
    (value instanceof Opaque && value.name.startsWith("torch._utils."));
}

type Named = readonly [name: string, tensor: TorchTensor];

/**
 * The tensors of a state dict by their plain names. Other values, such as the extra state of
 * modules, are passed over.
 */
function namedTensors(state: ReadonlyMap<unknown, unknown>, fail: Fail): Named[] {
  const named: Named[] = [];
  for (const [name, value] of state) {
    if (!isTensor(value)) continue;
    if (typeof name !== "string") return fail(`names of tensors to be text, got ${describe(name)}`);
    if (value instanceof Opaque) {
      return fail(`tensor ${describe(name)} to be a plain one, got one of ${value.name}`);
    }
    named.push([withoutWrappers(name), value]);
  }
  return named;
}

/**
 * The tensors of the model that a LightningModule holds as an attribute, `model` as a rule: those
 * under the attribute with the most tensors. Others, such as the state of metrics, are no part of
 * the model and are left out, if Lightning's mark or the names of a GPT say that the attribute is
 * the model.
 */
function withoutAttribute(named: readonly Named[], isLightning: boolean, notes: string[]): Named[] {
  if (isModel(named)) return [...named];
  const counts = new Map<string, number>();
  for (const [name] of named) {
    const [attribute] = name.split(".", 1);
    if (name.length > attribute.length) counts.set(attribute, (counts.get(attribute) ?? 0) + 1);
  }
  const [attribute] = [...counts].toSorted(([, a], [, b]) => b - a)[0] ?? ["model"];
  const prefix = `${attribute}.`;
  const isInside = ([name]: Named) => name.startsWith(prefix);
  const inside = named.filter(isInside)
    .map(([name, tensor]): Named => [name.slice(prefix.length), tensor]);
  const isWhole = inside.length === named.length && attribute === "model";
  if (!isWhole && !isLightning && !isModel(inside)) return [...named];
  const others = named.filter((tensor) => !isInside(tensor)).map(([name]) => name);
  if (others.length) notes.push(leftOut(others, `are not of "${attribute}", the model`));
  return inside;
}

/** Whether tensors have a GPT's names: its embedding or its layers are not behind an attribute. */
function isModel(named: readonly Named[]): boolean {
  const gpt2 = /^(transformer\.)?(wte|h\.\d+)\./;
  const llama = /^(model\.|model\.decoder\.|gpt_neox\.)?(embed_tokens|embed_in|layers\.\d+)\./;
  return named.some(([name]) => gpt2.test(name) || llama.test(name));
}

/**
 * Without the count of averaged models that torch.optim.swa_utils.AveragedModel
 * keeps beside the average.
 */
function withoutAverage(
  tensors: ReadonlyMap<string, TorchTensor>,
  notes: string[],
): ReadonlyMap<string, TorchTensor> {
  if (!tensors.has("n_averaged")) return tensors;
  notes.push("the weights are those of an averaged model");
  return new Map([...tensors].filter(([name]) => name !== "n_averaged"));
}

function leftOut(names: readonly string[], why: string): string {
  const more = names.length > 3 ? ` and ${names.length - 3} more` : "";
  return `left out, for they ${why}: ${names.slice(0, 3).map(describe).join(", ")}${more}`;
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

/**
 * A name as the model itself has it: without the components that wrappers add, and without
 * DataParallel's in front.
 */
function withoutWrappers(name: string): string {
  const parts = name.split(".").filter((part) => !WRAPPERS.has(part));
  let first = 0;
  while (parts[first] === "module" && first < parts.length - 1) first++;
  return parts.slice(first).join(".");
}

/** Finds where the bytes of tensors lie. */
class Placing {
  readonly #starts = new Map<string, number>();
  readonly #views = new Map<string, ViewSource>();
  readonly #cache: ViewCache = new Map();

  constructor(readonly file: ByteSource, readonly archive: Archive, readonly fail: Fail) {}

  async tensor(name: string, tensor: TorchTensor): Promise<StoredTensor> {
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
    if (tensor.marks instanceof Map && [...tensor.marks.values()].includes(true)) {
      return fail("to be as it is stored, got one to be negated or conjugated");
    }

    const elementBytes = STORED[dtype].bytes;
    const member = this.archive.members.get(`${this.archive.root}data/${storage.key}`);
    if (!member) return fail(`to have its bytes in data/${storage.key}, which is not there`);
    // A storage with no dtype of its own counts bytes.
    const unit = STORED[spellingOf(storage.type) ?? "U8"].bytes;
    if (storage.count * unit !== member.size) {
      return fail(
        `to have a storage of ${storage.count} times ${unit} bytes, ` +
          `got ${member.size} in data/${storage.key}`,
      );
    }
    const start = await this.#start(member);
    // Past the file's size the product need not be exact.
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
      return { name, dtype, shape, source: this.file, offset: begin, byteLength };
    }
    // The same view of the same bytes is one source, so that tied tensors are seen to be tied.
    const view = `${begin} ${elementBytes} ${shape} ${stride}`;
    let source = this.#views.get(view);
    if (!source) {
      source = new ViewSource(
        this.file,
        { begin, elementBytes, shape, stride, bigEndian },
        this.#cache,
      );
      this.#views.set(view, source);
    }
    return { name, dtype, shape, source, offset: 0, byteLength };
  }

  /** Where a storage begins in the file; it may be that of many tensors. */
  async #start(member: ZipMember): Promise<number> {
    let start = this.#starts.get(member.name);
    if (start === undefined) {
      start = await locateMember(this.file, member);
      this.#starts.set(member.name, start);
    }
    return start;
  }
}

/** A dict of plain data as a record; what is not plain, such as a tensor, is left out. */
function toRecord(dict: ReadonlyMap<unknown, unknown>, fail: Fail): Record<string, unknown> {
  let left = MAX_RECORD;
  const plain = (value: unknown, depth: number): unknown => {
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
      // A member of an Enum is made by its value.
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

/** The numbers and short texts of the root, and of its losses. */
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
