/**
 * Worker of a page: loads one model and runs it, away from the thread that draws the page.
 *
 * The thread of a page may not sleep while it waits for others, has no synchronous file access, and
 * must not be blocked. `remote.ts` starts this worker and calls it.
 *
 * @module
 */
import { probeWebGpu } from "../../kernels/mod.ts";
import { DeviceError } from "../../kernels/errors.ts";
import { DEFAULTS } from "../defaults.ts";
import { CheckpointError } from "../errors.ts";
import type { GeneratedToken, GenerateOptions } from "../generate.ts";
import { mountFiles, mountFolder } from "../host/picked.ts";
import { pageNotes } from "../host/page.ts";
import { guardBy } from "../host/watchdog.ts";
import { mountUrl } from "../hub/page_disk.ts";
import type { UrlFiles } from "../hub/url_files.ts";
import { loadChecked } from "../load.ts";
import type { LoadOptions, RandomModel } from "../load_options.ts";
import { benchmark } from "../measure/benchmark.ts";
import { perplexity } from "../measure/perplexity.ts";
import { profile } from "../measure/profile.ts";
import type { Model } from "../model.ts";
import { keepRecords, recordOf } from "../tokenizer/load.ts";
import type { ChatMessage } from "../tokenizer/tokenizer.ts";
import {
  type CallName,
  type FromWorker,
  isFolder,
  type MemoryState,
  type OpenedModel,
  type PackedOptions,
  packError,
  type PageSource,
  type ToWorker,
} from "./messages.ts";

const scope = globalThis as unknown as {
  postMessage(message: FromWorker, transfer?: Transferable[]): void;
};

/** The model, and how it is loaded again if its device is lost. */
let model: Model | undefined;
let reload: (() => Promise<Model>) | undefined;
let isLost = false;

keepRecords(); // the page opens the same tokenizer

/** Generations under way, by the id of the call that started them. */
const generations = new Map<number, AsyncIterator<GeneratedToken>>();

/** Aborts of calls under way. */
const aborts = new Map<number, AbortController>();

guardBy({
  begin: (watch) => scope.postMessage({ watch }),
  end: () => scope.postMessage({ watch: null }),
});

globalThis.addEventListener("message", (event) => {
  const message = (event as MessageEvent<ToWorker>).data;
  if ("abort" in message) aborts.get(message.id)?.abort();
  else void answer(message.id, message.call, message.args, message.options);
});

async function answer(
  id: number,
  call: CallName,
  args: readonly unknown[],
  packed?: PackedOptions,
): Promise<void> {
  try {
    const result = await CALLS[call](args, unpack(id, packed), id);
    const buffer = result instanceof Float32Array ? result.buffer : undefined;
    const transfer = buffer instanceof ArrayBuffer ? [buffer] : [];
    scope.postMessage({ id, result, memory: memoryState() }, transfer);
  } catch (error) {
    isLost ||= model !== undefined && error instanceof DeviceError;
    scope.postMessage({ id, error: packError(error), memory: memoryState() });
  } finally {
    if (!generations.has(id)) aborts.delete(id);
  }
}

function memoryOf({ memory: { current, peak, classes } }: Model): MemoryState {
  return { current, peak, classes };
}

function memoryState(): MemoryState | undefined {
  return model && memoryOf(model);
}

/** Options with their callbacks, which send their arguments, and their signal. */
function unpack(id: number, packed?: PackedOptions): Record<string, unknown> {
  if (!packed) return {};
  const options: Record<string, unknown> = { ...packed.plain };
  for (const event of packed.callbacks) {
    options[event] = (...args: unknown[]) => scope.postMessage({ id, event, args });
  }
  if (packed.hasSignal) {
    const abort = new AbortController();
    aborts.set(id, abort);
    options.signal = abort.signal;
  }
  return options;
}

/** The model; loaded again, from the cache, if its device was lost. */
async function alive(): Promise<Model> {
  if (isLost && reload) {
    await model?.[Symbol.asyncDispose]();
    model = await reload();
    isLost = false;
    scope.postMessage({ reopened: opened(model) });
  }
  return model!;
}

type Call = (
  args: readonly unknown[],
  options: Record<string, unknown>,
  id: number,
) => Promise<unknown>;

const CALLS: Readonly<Record<CallName, Call>> = {
  async load([source], options) {
    model = await load(source as PageSource, options as LoadOptions);
    const { signal: _, onProgress: __, ...again } = options as LoadOptions;
    reload = () => load(source as PageSource, again);
    return opened(model);
  },
  logits: async ([ids]) => await (await alive()).logits(ids as number[]),
  async start([kind, input], options, id) {
    const running = await alive();
    const settings = options as GenerateOptions;
    const tokens = kind === "chat"
      ? running.chat(input as ChatMessage[], settings)
      : running.generate(input as string | number[], settings);
    generations.set(id, tokens[Symbol.asyncIterator]());
    return id;
  },
  next: async ([key]) => await generations.get(key as number)!.next(),
  async stop([key]) {
    const id = key as number;
    const generation = generations.get(id);
    generations.delete(id);
    aborts.delete(id);
    await generation?.return?.();
  },
  benchmark: async (_, options) => await benchmark(await alive(), options),
  profile: async (_, options) => await profile(await alive(), options),
  perplexity: async ([text], options) =>
    await perplexity(await alive(), text as string | number[], options),
};

/** Facts about the model for the page. */
function opened(model: Model): OpenedModel {
  const { id, config, dtype, parameters, loadMs, contextLength, kvDtype } = model;
  const { name, threads, description, onGpu, simd } = model.backend;
  let tokenizer: OpenedModel["tokenizer"];
  try {
    tokenizer = recordOf(model.tokenizer);
  } catch (error) {
    tokenizer = (error as Error).message;
  }
  return {
    id,
    config,
    dtype,
    parameters,
    loadMs,
    memory: memoryOf(model),
    contextLength,
    kvDtype,
    notes: [...new Set([...pageNotes, ...model.notes])],
    backend: { name, threads, description, onGpu, simd, activations: model.activations },
    // Texts of WGSL are at hand; those of WebAssembly are disassembled, which takes a second.
    shaders: onGpu ? model.backend.shaders?.() : undefined,
    tokenizer,
  };
}

async function load(source: PageSource, options: LoadOptions): Promise<Model> {
  const start = performance.now();
  const { path, files } = await mountSource(source, options);
  try {
    const loaded = await loadChecked(path, options, undefined, start);
    await noteDevice(loaded, options);
    return loaded;
  } catch (error) {
    if (error instanceof CheckpointError) await files?.forget(); // they are no model
    throw error;
  }
}

/** Makes the files of a source readable. */
async function mountSource(
  source: PageSource,
  options: LoadOptions,
): Promise<{ path: string | RandomModel; files?: UrlFiles }> {
  if (Array.isArray(source)) return { path: mountFiles(source) };
  if (isFolder(source)) return { path: mountFolder(source) };
  if (typeof source !== "string") return { path: source as RandomModel };
  return source.startsWith("hf:") ? { path: source } : await mountUrl(new URL(source), options);
}

/** Notes why a model runs on the processor. */
async function noteDevice(
  { backend }: Model,
  { device = DEFAULTS.device }: LoadOptions,
): Promise<void> {
  if (device !== DEFAULTS.device || backend.onGpu) return;
  const adapter = await probeWebGpu();
  pageNotes.push(
    `Runs on the processor: ${
      adapter ? "the only adapter of WebGPU is software" : "this browser offers no WebGPU adapter"
    }.`,
  );
}
