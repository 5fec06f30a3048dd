/**
 * `inspect`: tensors of a checkpoint, memory of a run, and the backends that it fits.
 *
 * @module
 */
import { DTYPES } from "../kernels/formats/mod.ts";
import { type BackendFit, fitBackends, type MissingBackend } from "../engine/fit.ts";
import { type CheckpointDescription, describeCheckpoint, type MetadataValue } from "../mod.ts";
import { bytes, table } from "./format.ts";
import { prepareOutput } from "./output.ts";
import type { Invocation } from "./parse.ts";
import { Progress } from "./progress.ts";
import { chooseModel, hubOptions } from "./session.ts";
import { bitsPerNumber, storedTypes, typesTable } from "./stored_types.ts";
import { clearStatus, note, oneLine, print, say, styled } from "./terminal.ts";

/** Labels of the classes of memory. */
const CLASSES: Readonly<Record<string, string>> = {
  weights: "weights",
  kvCache: "keys and values",
  activations: "activations",
  staging: "staging",
};

/** A checkpoint's description and its fit on each backend. */
interface Findings {
  readonly id: string;
  readonly description: CheckpointDescription;
  readonly backends: readonly (BackendFit | MissingBackend)[];
}

/** Runs the command. */
export async function inspect(invocation: Invocation, signal: AbortSignal): Promise<void> {
  const { given } = invocation;
  const jsonPath = given["json-out"];
  const json = jsonPath === undefined ? undefined : prepareOutput(jsonPath);
  using progress = new Progress();
  const { source, id } = chooseModel(invocation);
  const description = await describeCheckpoint(source as string, {
    ...given.context !== undefined && { contextLength: given.context },
    ...given.dtype !== undefined && { dtype: given.dtype },
    kvDtype: given["kv-dtype"],
    ...given.lora && { adapters: given.lora },
    ...hubOptions(given),
    onProgress: progress.load,
    signal,
  });
  description.notes.forEach(note);
  const backends = await fitBackends(description);
  signal.throwIfAborted();
  clearStatus();
  const findings = { id, description, backends };
  try {
    json?.write(`${JSON.stringify(asJson(findings), null, 2)}\n`);
    if (json) say(`wrote ${json.path}`);
  } finally {
    print(asText(findings));
  }
}

/** What a generation does at the end of the context. */
function pastContext({ slides, crops }: CheckpointDescription["architecture"]): string {
  if (slides) return ", then the window slides";
  return crops ? ", then its last ids are encoded again" : "";
}

function asText({ id, description, backends }: Findings): string {
  const { architecture: a, parameters, tensors, metadata, contextLength, memory } = description;
  const types = storedTypes(tensors, backends);
  const title = (text: string) => `\n${styled("bold", text)}\n`;
  let out = `${styled("bold", oneLine(id))}\n`;
  out += table([
    ["family", a.family],
    ["parameters", `${parameters} (${(parameters / 1e6).toFixed(3)} M)`],
    ["layers", String(a.nLayer)],
    ["heads", a.nKvHead === a.nHead ? String(a.nHead) : `${a.nHead}, ${a.nKvHead} of keys`],
    ["width", String(a.nEmbd)],
    ["vocabulary", String(a.vocabSize)],
    ["context", `${a.blockSize}${pastContext(a)}`],
    ["positions", a.rope ? "rotary" : "learned"],
    ["bits per weight", bitsPerNumber(types).toFixed(2)],
  ]);
  out += title(`Memory of a run with a context of ${contextLength}`);
  out += table([
    ...Object.entries(memory.classes).map(([name, count]) => [CLASSES[name] ?? name, bytes(count)]),
    ["total", bytes(memory.total)],
  ], [1]);
  out += title("Types in the file");
  out += typesTable(types);
  out += title("Weights by dtype");
  out += table(Object.entries(weightsByDtype(description)).map(([dtype, n]) => [dtype, bytes(n)]), [
    1,
  ]);
  out += title("Backends");
  out += table(backends.map((backend) => [backend.name, verdict(backend, contextLength)]));
  if (Object.keys(metadata).length) {
    out += title("Metadata") + table(
      Object.entries(metadata).map(([key, value]) => [short(key), short(shown(value))]),
    );
  }
  out += title(`Tensors: ${tensors.length}`);
  out += table(
    tensors.map(({ name, dtype, shape }) => [short(name), dtype, `[${shape.join(", ")}]`]),
  );
  return out;
}

/** Bytes of the weights in each dtype. */
function weightsByDtype({ memory }: CheckpointDescription): Record<string, number> {
  return Object.fromEntries(
    DTYPES.map((
      dtype,
    ) => [dtype, memory.with({ dtype }).classes.weights]),
  );
}

/** Whether a run fits a backend, as a sentence. */
function verdict(backend: BackendFit | MissingBackend, contextLength: number): string {
  if ("missing" in backend) return `not here: ${backend.missing}`;
  const { fits, needs, room, tensorRoom, alternatives } = backend;
  const most = tensorRoom === null ? "" : `, in buffers of at most ${bytes(tensorRoom)}`;
  if (fits) return `fits: needs ${bytes(needs.total)}${room ? ` of ${bytes(room)}` : most}`;
  const wants = room !== null
    ? `needs ${bytes(needs.total)}, has ${bytes(room)}`
    : `needs a buffer of ${bytes(needs.largest)}, has ${bytes(tensorRoom ?? 0)}`;
  const others = alternatives.map(({ dtype, contextLength: slots }) => {
    const context = slots < contextLength ? [`--context ${slots}`] : [];
    return [...dtype ? [`--dtype ${dtype}`] : [], ...context].join(" ");
  });
  const way = others.length ? `${others.join(", or ")} fits` : "no context and no dtype fits";
  return `does not fit: ${wants}; ${way}`;
}

/** The same as JSON, in bytes. */
function asJson({ id, description, backends }: Findings): Record<string, unknown> {
  const { architecture: a, parameters, tensors, metadata, contextLength, memory } = description;
  const types = storedTypes(tensors, backends);
  return {
    id,
    model: {
      family: a.family,
      parameters,
      n_layer: a.nLayer,
      n_head: a.nHead,
      n_kv_head: a.nKvHead,
      n_embd: a.nEmbd,
      vocab_size: a.vocabSize,
      block_size: a.blockSize,
      bits_per_weight: bitsPerNumber(types),
    },
    types: types.map(({ heldBy, ...type }) => ({ ...type, held_by: heldBy })),
    context: contextLength,
    kv_dtype: memory.kvDtype,
    weights_bytes: weightsByDtype(description),
    backends: backends.map((backend) => {
      if ("missing" in backend) return { name: backend.name, here: false, why: backend.missing };
      const { name, fits, needs, room, tensorRoom, alternatives } = backend;
      const { weights, kvCache, activations } = needs.classes;
      const runs = alternatives.map(({ dtype = null, contextLength: context }) => ({
        dtype,
        context,
      }));
      return {
        name,
        here: true,
        fits,
        needs: {
          bytes: needs.total,
          weights,
          kv_cache: kvCache,
          activations,
          largest_buffer: needs.largest,
        },
        has: { bytes: room, largest_buffer: tensorRoom },
        alternatives: runs,
        instead: runs, // @deprecated: the key's name up to version 0.1
      };
    }),
    metadata: Object.fromEntries(
      Object.entries(metadata).map(([key, value]) => [key, plain(value)]),
    ),
    tensors,
  };
}

/** Elements of an array that are shown. */
const MAX_SHOWN = 6;

/** A value of the metadata as text; of an array, its length and first elements. */
function shown(value: MetadataValue): string {
  if (typeof value !== "object") return String(value);
  const first = value.slice(0, MAX_SHOWN).map((item) =>
    typeof item === "string" ? JSON.stringify(item) : shown(item)
  );
  return `${value.length} × [${first.join(", ")}${value.length > MAX_SHOWN ? ", …" : ""}]`;
}

/** A value of the metadata as JSON: large integers as texts, long arrays cut. */
function plain(value: MetadataValue): unknown {
  if (typeof value === "bigint") return String(value);
  if (typeof value !== "object") return value;
  return value.length > MAX_SHOWN ? shown(value) : value.map(plain);
}

/** A name or a text from a file, cut to 200 characters. */
function short(text: string): string {
  const line = oneLine(text);
  return line.length > 200 ? `${line.slice(0, 200)}…` : line;
}
