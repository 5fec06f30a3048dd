/**
 * Weights of a checkpoint: names and shapes checked against the architecture, rows read on demand.
 *
 *     file                              rows of the file's tensor       weight of the decoder
 *     self_attn.q_proj.weight [H·D, C]  all                          ┐
 *     self_attn.k_proj.weight [G·D, C]  all                          ├▶ cAttn [(H + 2G)·D, C]
 *     self_attn.v_proj.weight [G·D, C]  all                          ┘  one each if dtypes differ
 *     mlp.gate_up_proj.weight [2F, C]   0 … F − 1                    ──▶ cFc [F, C]
 *                                       F … 2F − 1                   ──▶ cUp [F, C]
 *
 * @module
 */
import {
  encoderOf,
  FORMATS,
  isWeightDtype,
  numbersIn,
  type WeightDtype,
} from "../../kernels/formats/mod.ts";
import { type FillRows, sizeOf, type StoredOrder } from "../../kernels/tensor.ts";
import { type Architecture, expectLayers } from "../architecture/mod.ts";
import type { Checkpoint, TensorInfo } from "../checkpoint/checkpoint.ts";
import { bytesOfNumbers, formatOf } from "../checkpoint/dtypes.ts";
import { CheckpointError } from "../errors.ts";
import { chooseDtypes, type Holds } from "./dtypes.ts";
import { addDelta, type Delta } from "./lora.ts";
import { BUFFERS, type NameTable } from "./names.ts";
import { namesOf } from "./names_gguf.ts";
import { beyondF16, isWidened, type Keeping, keptDtype, widenedNotes } from "./widen.ts";
import {
  type Run,
  runsOf,
  type SpecTree,
  specTree,
  type WeightSpec,
  weightSpecs,
} from "./specs.ts";

/** Source of a model's weights before their upload: tensors, dtypes, rows. */
export interface WeightSource {
  /** Every tensor of the model. */
  readonly specs: SpecTree;
  /** Dtype of a weight on the backend. */
  dtype(spec: WeightSpec): WeightDtype;
  /** Dtype of a matrix whose rows can be read as stored; missing or undefined if they cannot. */
  plain?(spec: WeightSpec): WeightDtype | undefined;
  /** Reads rows of a tensor in a dtype; each number of a vector is a row. */
  fill(spec: WeightSpec, dtype: WeightDtype): FillRows;
}

/** Weights of a checkpoint, with notes for the user. */
export interface CheckpointWeights extends WeightSource {
  /** The given architecture, but untied if the file's head differs from its embedding. */
  readonly architecture: Architecture;
  /** Sentences on differences from the configuration and on tensors left out. */
  readonly notes: readonly string[];
}

/**
 * The weights of a checkpoint, with names and shapes checked against the architecture.
 * @param dtype dtype of all weights; "auto" is the stored dtype.
 * @param deltas changes of tensors by adapters, by the name of the tensor.
 * @param holds whether the backend has kernels for a dtype; default all.
 * @throws {CheckpointError} If tensors are missing, unexpected or of another shape; lists them.
 */
export async function checkpointWeights(
  checkpoint: Checkpoint,
  configured: Architecture,
  dtype: WeightDtype | "auto",
  deltas: ReadonlyMap<string, readonly Delta[]> = new Map(),
  holds?: Holds,
): Promise<CheckpointWeights> {
  const names = namesOf(checkpoint, configured);
  const a = await untieIfHeadDiffers(checkpoint, configured, names);
  // The number of layers comes from a file: it is checked before specs are made.
  expectLayers(a, { path: checkpoint.path, tensors: checkpoint.tensors().length });
  const { found, ignored } = matchNames(checkpoint, a, specTree(a, names), names);
  const infoOf = ({ names: [name] }: Pick<Run, "names">) => found.get(name)!;
  const infosOf = (spec: WeightSpec) => runsOf(spec).map((run) => infoOf(run));
  const isChanged = ({ name }: TensorInfo) => deltas.has(name);
  const unchanged = [...found.values()].filter((info) => !isChanged(info));
  const beyond = dtype === "auto" ? await beyondF16(checkpoint, unchanged) : new Set();
  const keeping: Keeping = {
    isChanged,
    isBeyondF16: ({ name }) => beyond.has(name),
  };
  const storedOf = (spec: WeightSpec) => keptDtype(infosOf(spec), keeping);
  // Tensors of different dtypes are a matrix each, so that none is widened for its neighbour.
  const joins = (...pair: [string, string]) =>
    new Set(pair.map((name) => keptDtype([infoOf({ names: [name] })], keeping))).size === 1;
  const specs = specTree(a, names, dtype === "auto" ? joins : undefined);
  const choice = chooseDtypes(specs, dtype, storedOf, holds);
  const matrices = weightSpecs(specs).filter(({ shape }) => shape.length > 1);
  const widened = dtype === "auto"
    ? matrices.flatMap((spec) => {
      const kept = choice.dtype(spec);
      return infosOf(spec).flatMap((info) => isWidened(info, kept) ? { info, kept } : []);
    })
    : [];
  return {
    specs,
    architecture: a,
    notes: [
      ...a === configured
        ? []
        : ["the head is the file's, although the configuration ties it to the embedding"],
      ...list("left out tensors that are not part of the model", ignored),
      ...widenedNotes(widened),
      ...choice.notes,
    ],
    dtype: choice.dtype,
    plain: (spec) => {
      const infos = infosOf(spec);
      const [dtype, ...others] = new Set(infos.map((info) => info.dtype));
      const isPlain = !others.length && !infos.some(({ name }) => deltas.has(name));
      return isPlain && isWeightDtype(dtype) ? dtype : undefined;
    },
    fill: (spec, kept) => async (row, count, into) => {
      const rowBytes = into.length / count;
      for (const { run, from, to, start } of piecesOf(spec, row, row + count)) {
        const part = into.subarray((from - row) * rowBytes, (to - row) * rowBytes);
        const info = infoOf(run);
        const changes = deltas.get(info.name) ?? [];
        await readRows(checkpoint, info, start, { into: part, rowBytes, kept, changes });
      }
    },
  };
}

/**
 * Splits rows `begin` … `end` of a spec into pieces: rows `from` … `to` of the spec are adjacent
 * rows of the tensor of `run`, from row `start` on.
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
 * Fills `into` with a tensor's rows from row `start` on, converted to dtype `kept`; `rowBytes` is
 * the size of a converted row.
 */
async function readRows(
  checkpoint: Checkpoint,
  info: TensorInfo,
  start: number,
  { into, rowBytes, kept, changes }: {
    readonly into: Uint8Array;
    readonly rowBytes: number;
    readonly kept: WeightDtype;
    readonly changes: readonly Delta[];
  },
): Promise<void> {
  const { name, dtype } = info;
  if (dtype === kept && !changes.length) {
    return await checkpoint.readBytes(name, start * rowBytes, into);
  }
  const count = numbersIn(kept, into.length);
  const { view } = FORMATS[kept];
  const numbers = view ? view(into) : new Float32Array(count);
  const first = start * numbersIn(kept, rowBytes);
  if (info.shape.length === 1 && formatOf(dtype).block > 1) {
    numbers.set((await checkpoint.read(name)).subarray(first, first + count));
  } else {
    const bytes = new Uint8Array(bytesOfNumbers(dtype, count));
    await checkpoint.readBytes(name, bytesOfNumbers(dtype, first), bytes);
    formatOf(dtype).decode(numbers, bytes);
  }
  for (const delta of changes) addDelta(numbers, start, delta);
  if (!view) encoderOf(kept)(into, numbers);
}

/**
 * Finds each tensor of the model in the file.
 * @returns the tensors by the first of their possible names, and the names of ignored tensors:
 *   value heads, parts of other models. An unexpected tensor inside one of the model's modules is
 *   an error, because ignoring it would change the output.
 */
function matchNames(
  checkpoint: Checkpoint,
  { family }: Architecture,
  specs: SpecTree,
  table: NameTable,
): { found: Map<string, TensorInfo>; ignored: string[] } {
  const cannot = `Cannot load "${checkpoint.path}" as ${family}`;
  const stored = checkpoint.tensors();
  const prefix = prefixOf(stored, table);
  const byName = new Map(stored.map((t) => [t.name, t]));
  const left = new Set(byName.keys());
  const found = new Map<string, TensorInfo>();
  const missing: string[] = [];
  const wrong: string[] = [];
  for (const { run: { names, of }, shape, stored: order } of neededTensors(specs)) {
    // The head's name has no prefix.
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
  const { others, layers, wte, wpe, lnF, lmHead } = table;
  const modules = [layers, wte, wpe, lnF, ...lmHead];
  const isInModule = (name: string) =>
    modules.some((module) => plain(name).startsWith(`${module}.`));
  const extra = [...left].filter((name) => !BUFFERS.test(plain(name)) && !others?.test(name));
  const faults = [
    ...list("missing", missing),
    ...list("unexpected", extra.filter(isInModule)),
    ...list("misshapen", wrong),
  ];
  if (faults.length) throw new CheckpointError(`${cannot}: ${faults.join("; ")}`);
  return { found, ignored: extra.filter((name) => !isInModule(name)) };
}

/** The prefix of the file's names; the head has none. */
function prefixOf(stored: readonly TensorInfo[], { prefixes }: NameTable): string {
  const has = (prefix: string) => stored.some(({ name }) => name.startsWith(prefix));
  return prefixes.find(has) ?? "";
}

/**
 * The architecture, untied if its configuration ties head and embedding, but the file has both and
 * they differ: then the file's head is used, as in transformers.
 * @throws {CheckpointError} If they differ in a family that always ties them.
 */
async function untieIfHeadDiffers(
  checkpoint: Checkpoint,
  a: Architecture,
  names: NameTable,
): Promise<Architecture> {
  if (!a.tied) return a;
  const { wte, lmHead } = names;
  const stored = checkpoint.tensors();
  const prefix = prefixOf(stored, names);
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

/** Each tensor that the model needs, once, with one of the specs that use it. */
function neededTensors(specs: SpecTree) {
  const needed = new Map<string, { run: Run; shape: readonly number[]; stored: StoredOrder }>();
  for (const spec of weightSpecs(specs)) {
    for (const run of runsOf(spec)) {
      const { shape, stored } = spec;
      if (!needed.has(run.names[0])) needed.set(run.names[0], { run, shape, stored });
    }
  }
  return needed.values();
}

/** A list of at most six items for a message; none if it is empty. */
function list(what: string, items: readonly string[]): string[] {
  if (!items.length) return [];
  const more = items.length > 6 ? ` and ${items.length - 6} more` : "";
  return [`${what}: ${items.slice(0, 6).join(", ")}${more}`];
}

/** Whether two tensors hold the same bytes: tied tensors may be stored once or twice. */
async function sameBytes(checkpoint: Checkpoint, a: TensorInfo, b: TensorInfo): Promise<boolean> {
  if (checkpoint.sharesBytes(a.name, b.name)) return true;
  if (a.dtype !== b.dtype || `${a.shape}` !== `${b.shape}`) return false;
  const size = bytesOfNumbers(a.dtype, sizeOf(a.shape));
  const [left, right] = [new Uint8Array(1 << 20), new Uint8Array(1 << 20)];
  for (let at = 0; at < size; at += left.length) {
    const count = Math.min(left.length, size - at);
    await checkpoint.readBytes(a.name, at, left.subarray(0, count));
    await checkpoint.readBytes(b.name, at, right.subarray(0, count));
    for (let i = 0; i < count; i++) if (left[i] !== right[i]) return false;
  }
  return true;
}
