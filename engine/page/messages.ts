/**
 * Messages between a page and the worker that runs its model.
 *
 *     page   { id, call, args } ─────────────▶ worker
 *            { id, abort }      ─────────────▶
 *            ◀───────────── { id, event, args }    a callback among the options, such as onProgress
 *            ◀───────────── { id, result } or { id, error }
 *            ◀───────────── { watch }              synchronous work begins or ends
 *
 * @module
 */
import type { Backend, KernelText } from "../../kernels/backend.ts";
import type { WeightDtype } from "../../kernels/formats/mod.ts";
import type { MemoryClass } from "../../kernels/tensor.ts";
import { DeviceError } from "../../kernels/errors.ts";
import type { MemoryFigure } from "../../kernels/memory.ts";
import type { Architecture } from "../architecture/mod.ts";
import { CheckpointError } from "../errors.ts";
import type { DirectoryHandle } from "../host/opfs.ts";
import type { RandomModel } from "../load_options.ts";
import type { TokenizerRecord } from "../tokenizer/load.ts";

/** Names of the calls: of a model, and of the library on a model. */
export type CallName =
  | "load"
  | "logits"
  | "start"
  | "next"
  | "stop"
  | "benchmark"
  | "profile"
  | "perplexity";

/** Options of a call without what cannot be sent: callbacks and the signal. */
export interface PackedOptions {
  readonly plain: Readonly<Record<string, unknown>>;
  readonly callbacks: readonly string[];
  readonly hasSignal: boolean;
}

/** A message to the worker. */
export type ToWorker =
  | {
    readonly id: number;
    readonly call: CallName;
    readonly args: readonly unknown[];
    readonly options?: PackedOptions;
  }
  | { readonly id: number; readonly abort: true };

/** An error as data. */
export interface PackedError {
  readonly name: string;
  readonly message: string;
}

/** Tracked bytes as data; see `Memory`. */
export interface MemoryState extends MemoryFigure {
  readonly classes: Record<MemoryClass, MemoryFigure>;
}

/** A message from the worker. */
export type FromWorker =
  | { readonly id: number; readonly result: unknown; readonly memory?: MemoryState }
  | { readonly id: number; readonly error: PackedError; readonly memory?: MemoryState }
  | { readonly id: number; readonly event: string; readonly args: readonly unknown[] }
  /** Milliseconds until the work must end; null when it has ended. */
  | { readonly watch: number | null }
  /** The device was lost, and the model is loaded again. */
  | { readonly reopened: OpenedModel };

/** Takes callbacks and signal out of options. */
export function packOptions(options: object): PackedOptions {
  const entries = Object.entries(options);
  return {
    plain: Object.fromEntries(
      entries.filter(([, value]) => typeof value !== "function" && !(value instanceof AbortSignal)),
    ),
    callbacks: entries.filter(([, value]) => typeof value === "function").map(([name]) => name),
    hasSignal: entries.some(([, value]) => value instanceof AbortSignal),
  };
}

/** An error as data. */
export function packError(error: unknown): PackedError {
  return error instanceof Error
    ? { name: error.name, message: error.message }
    : { name: "Error", message: String(error) };
}

/** Classes of errors that callers branch on. */
const CLASSES: Readonly<Record<string, new (message: string) => Error>> = {
  CheckpointError,
  DeviceError,
  RangeError,
  TypeError,
};

/** An error of its own class from data. */
export function unpackError({ name, message }: PackedError): Error {
  const Class = Object.hasOwn(CLASSES, name) ? CLASSES[name] : Error;
  const error = new Class(message);
  if (error.name !== name) error.name = name;
  return error;
}

/** A model to load in a page. */
export type PageSource = string | RandomModel | readonly File[] | DirectoryHandle;

/** Whether a source is a folder that the visitor chose. */
export function isFolder(source: unknown): source is DirectoryHandle {
  return typeof source === "object" && source !== null &&
    (source as { kind?: unknown }).kind === "directory";
}

/** Facts about a loaded model. */
export interface OpenedModel {
  readonly id: string;
  readonly config: Architecture;
  readonly dtype: WeightDtype;
  readonly parameters: number;
  readonly loadMs: number;
  readonly memory: MemoryState;
  readonly contextLength: number;
  readonly kvDtype: string;
  readonly notes: readonly string[];
  readonly backend: BackendFacts;
  readonly shaders?: KernelText[];
  /** Content of the tokenizer's files, or a sentence on why there is none. */
  readonly tokenizer: TokenizerRecord | string;
}

/** Facts about a backend. */
export type BackendFacts = Pick<
  Backend,
  "name" | "threads" | "description" | "onGpu" | "simd" | "activations"
>;
