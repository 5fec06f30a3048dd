/**
 * The weights of a checkpoint: each name and each shape checked, what is missing or left over
 * listed, rows read as they are asked for.
 *
 * @module
 */
import { FORMATS, isWeightDtype, numbersIn, type WeightDtype } from "../../kernels/formats/mod.ts";
import { type FillRows, sizeOf, type StoredOrder } from "../../kernels/tensor.ts";
import { type Architecture, expectLayers } from "../architecture/mod.ts";
import type { Checkpoint, TensorInfo } from "../checkpoint/checkpoint.ts";
import { STORED } from "../checkpoint/safetensors.ts";
import { CheckpointError } from "../errors.ts";
import { addDelta, type Delta } from "./lora.ts";
import { BUFFERS, NAMES } from "./names.ts";
import {
  type Run,
  runsOf,
  type SpecTree,
  specTree,
  type WeightSpec,
  weightSpecs,
} from "./specs.ts";

/**
 * The weights of a model before they are uploaded: which tensors, in which
 * dtypes, and the rows of each.
 */
export interface WeightSource {
  /** Every tensor of the model. */
  readonly specs: SpecTree;
  /** The dtype in which the weight of this spec is to be kept. */
  dtype(spec: WeightSpec): WeightDtype;
  /** Gives rows in that dtype; of a vector, each number is a row. */
  fill(spec: WeightSpec, dtype: WeightDtype): FillRows;
}

/** The weights of a checkpoint, and what a user should know of them. */
export interface CheckpointWeights extends WeightSource {
  /** As given, with a head of its own where the file has one that differs from the embedding. */
  readonly architecture: Architecture;
  /** What differs from the configuration or was left out, a sentence each. */
  readonly notes: readonly string[];
}

/**
 * The weights of a checkpoint, each name and shape checked against the architecture.
 * @param dtype how weights are kept; "auto" as they are stored.
 * @param deltas what adapters add to a tensor, by its name.
 * @throws {CheckpointError} listing what is missing, left over, or of another shape.
 */
export async function checkpointWeights(
  checkpoint: Checkpoint,
  configured: Architecture,
  dtype: WeightDtype | "auto",
  deltas: ReadonlyMap<string, readonly Delta[]> = new Map(),
): Promise<CheckpointWeights> {
  const a = await untieIfHeadDiffers(checkpoint, configured);
  // Listed after the number of layers was checked: it comes from a file.
  expectLayers(a, { path: checkpoint.path, tensors: checkpoint.tensors().length });
  const specs = specTree(a);
  const { found, beside } = matchNames(checkpoint, a, specs);
  const infoOf = ({ names: [name] }: Run) => found.get(name)!;
  return {
    specs,
    architecture: a,
    notes: [
      ...a === configured ? [] : ["the head is the file's own, though the configuration ties it"],
      ...list("left out, for they are no part of the model", beside),
    ],
    dtype: (spec) => {
      if (dtype !== "auto") return dtype;
      // What is put together from tensors of several dtypes is kept in the
      // one that holds all of them.
      const [first, ...others] = new Set(runsOf(spec).map((run) => infoOf(run).dtype));
      return isWeightDtype(first) && !others.length ? first : "F32";
    },
    fill: (spec, kept) => async (row, count, into) => {
      const rowBytes = into.length / count;
      for (const { run, from, to, start } of piecesOf(spec, row, row + count)) {
        const part = into.subarray((from - row) * rowBytes, (to - row) * rowBytes);
        const info = infoOf(run);
        const added = deltas.get(info.name) ?? [];
        await readRows(checkpoint, info, start, { into: part, rowBytes, kept, added });
      }
    },
  };
}

/**
 * Where rows `begin` … `end` of a spec come from: rows `from` … `to` from a run's tensor, where
 * they stand from row `start` on.
 */
function* piecesOf(spec: WeightSpec, begin: number, end: number) {
  let at = 0;
  for (const run of runsOf(spec)) {
    const { piece = run.count, stride = 0 } = run;
    const last = Math.min(end, at + run.count);
    for (let from = Math.max(begin, at); from < last;) {
      const [i, within] = [Math.floor((from - at) / piece), (from - at) % piece];
      const to = Math.min(last, from + piece - within);
      yield { run, from, to, start: run.start + i * stride + within };
      from = to;
    }
    at += run.count;
  }
}

/**
 * Fills `into` with a tensor's rows from row `start` on, `rowBytes` each, in the
 * dtype that they are kept in.
 */
async function readRows(
  checkpoint: Checkpoint,
  { name, dtype }: TensorInfo,
  start: number,
  { into, rowBytes, kept, added }: {
    readonly into: Uint8Array;
    readonly rowBytes: number;
    readonly kept: WeightDtype;
    readonly added: readonly Delta[];
  },
): Promise<void> {
  if (dtype === kept && !added.length) {
    return await checkpoint.readBytes(name, start * rowBytes, into);
  }
  const stored = STORED[dtype];
  const bytes = new Uint8Array(numbersIn(kept, into.length) * stored.bytes);
  await checkpoint.readBytes(name, start * numbersIn(kept, rowBytes) * stored.bytes, bytes);
  const { view, encode } = FORMATS[kept];
  const numbers = view ? view(into) : new Float32Array(numbersIn(kept, into.length));
  stored.decode(numbers, bytes);
  for (const delta of added) addDelta(numbers, start, delta);
  if (!view) encode(into, numbers);
}

/**
 * Finds each wanted tensor in a file, by the first of its names.
 * @returns the tensors by the first of their names, and the names of those that lie beside the
 * model: value heads, other models' parts. What belongs to one of the model's own modules and is
 * not wanted is an error, since the model would compute something else.
 */
function matchNames(
  checkpoint: Checkpoint,
  { family }: Architecture,
  specs: SpecTree,
): { found: Map<string, TensorInfo>; beside: string[] } {
  const cannot = `Cannot load "${checkpoint.path}" as ${family}`;
  const stored = checkpoint.tensors();
  const prefix = prefixOf(stored, family);
  const byName = new Map(stored.map((t) => [t.name, t]));
  const left = new Set(byName.keys());
  const found = new Map<string, TensorInfo>();
  const missing: string[] = [];
  const wrong: string[] = [];
  for (const { run: { names, of }, shape, stored: order } of wantedTensors(specs)) {
    // The head stands outside the prefix.
    const hits = names.flatMap((n) => byName.get(prefix + n) ?? byName.get(n) ?? []);
    hits.forEach(({ name }) => left.delete(name));
    const [hit] = hits;
    if (!hit) {
      missing.push(names.join(" or "));
      continue;
    }
    const whole = [of, ...shape.slice(1)];
    const expected = order === "KN" ? shape.toReversed() : whole;
    if (`${hit.shape}` !== `${expected}`) {
      wrong.push(`${hit.name} is [${hit.shape}], expected [${expected}]`);
    }
    found.set(names[0], hit);
  }
  const plain = (name: string) => name.startsWith(prefix) ? name.slice(prefix.length) : name;
  const { others, layers, wte, wpe, lnF, lmHead } = NAMES[family];
  const modules = [layers, wte, wpe, lnF, ...lmHead];
  const isOwn = (name: string) => modules.some((module) => plain(name).startsWith(`${module}.`));
  const extra = [...left].filter((name) => !BUFFERS.test(plain(name)) && !others?.test(name));
  const faults = [
    ...list("missing", missing),
    ...list("left over", extra.filter(isOwn)),
    ...list("misshapen", wrong),
  ];
  if (faults.length) throw new CheckpointError(`${cannot}: ${faults.join("; ")}`);
  return { found, beside: extra.filter((name) => !isOwn(name)) };
}

/** What all names but the head's begin with in a file. */
function prefixOf(stored: readonly TensorInfo[], family: Architecture["family"]): string {
  const has = (prefix: string) => stored.some(({ name }) => name.startsWith(prefix));
  return NAMES[family].prefixes.find(has) ?? "";
}

/**
 * The architecture with a head of its own, if the configuration ties head and embedding and the
 * file has both and they differ: then the head wins, as in transformers.
 * @throws {CheckpointError} If a family that always ties them has two that differ.
 */
async function untieIfHeadDiffers(
  checkpoint: Checkpoint,
  a: Architecture,
): Promise<Architecture> {
  if (!a.tied) return a;
  const { wte, lmHead } = NAMES[a.family];
  const stored = checkpoint.tensors();
  const prefix = prefixOf(stored, a.family);
  const find = (names: readonly string[]) =>
    stored.find(({ name }) => names.some((n) => name === `${n}.weight`));
  const embedding = find([prefix + wte, wte]);
  const head = find(lmHead);
  if (!embedding || !head || await sameBytes(checkpoint, embedding, head)) return a;
  if (a.family === "labcore" || a.family === "nanogpt") {
    throw new CheckpointError(
      `Cannot load "${checkpoint.path}" as ${a.family}: ${embedding.name} and ${head.name} are ` +
        "tied, but differ",
    );
  }
  return { ...a, tied: false };
}

/** Each tensor of a file once, with a spec that takes rows of it. */
function wantedTensors(specs: SpecTree) {
  const wanted = new Map<string, { run: Run; shape: readonly number[]; stored: StoredOrder }>();
  for (const spec of weightSpecs(specs)) {
    for (const run of runsOf(spec)) {
      const { shape, stored } = spec;
      if (!wanted.has(run.names[0])) wanted.set(run.names[0], { run, shape, stored });
    }
  }
  return wanted.values();
}

/** A short list for a message. */
function list(what: string, items: readonly string[]): string[] {
  if (!items.length) return [];
  const more = items.length > 6 ? ` and ${items.length - 6} more` : "";
  return [`${what}: ${items.slice(0, 6).join(", ")}${more}`];
}

/** Tied tensors are stored once as a rule; a writer that stored both must have stored the same. */
async function sameBytes(checkpoint: Checkpoint, a: TensorInfo, b: TensorInfo): Promise<boolean> {
  if (checkpoint.sharesBytes(a.name, b.name)) return true;
  if (a.dtype !== b.dtype || `${a.shape}` !== `${b.shape}`) return false;
  const size = sizeOf(a.shape) * STORED[a.dtype].bytes;
  const [left, right] = [new Uint8Array(1 << 20), new Uint8Array(1 << 20)];
  for (let at = 0; at < size; at += left.length) {
    const count = Math.min(left.length, size - at);
    await checkpoint.readBytes(a.name, at, left.subarray(0, count));
    await checkpoint.readBytes(b.name, at, right.subarray(0, count));
    for (let i = 0; i < count; i++) if (left[i] !== right[i]) return false;
  }
  return true;
}
