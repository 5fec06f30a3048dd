/**
 * Functions that `browser_test.ts` calls in a page or its worker: they run models on a backend of
 * that context.
 *
 * @module
 */
import { type Architecture, readArchitecture } from "../../../engine/architecture/mod.ts";
import type { Checkpoint } from "../../../engine/checkpoint/checkpoint.ts";
import { decode } from "../../../engine/checkpoint/dtypes.ts";
import { readSafetensorsHeader } from "../../../engine/checkpoint/safetensors.ts";
import { Runner } from "../../../engine/runner.ts";
import {
  checkpointWeights,
  specTree,
  uploadWeights,
  type WeightSource,
} from "../../../engine/weights/mod.ts";
import type { Backend } from "../../../kernels/backend.ts";
import type { WeightDtype } from "../../../kernels/formats/mod.ts";
import { openWasmBackend, type WasmOptions } from "../../../kernels/wasm/backend.ts";
import { openWebGpuBackend, type WebGpuOptions } from "../../../kernels/webgpu/backend.ts";

/** A backend to open, and its options. */
export type BackendChoice =
  | { readonly name: "wasm"; readonly options?: WasmOptions }
  | { readonly name: "webgpu"; readonly options?: WebGpuOptions };

/** A model of the fixtures, and the ids to run it on. */
export interface Task {
  /** Folder in `tests/fixtures`. */
  readonly folder: string;
  /** Context length; default: the model's, at most 256. */
  readonly context?: number;
  readonly ids: readonly number[];
  /** Number of greedy ids to draw after `ids`. */
  readonly draws: number;
}

/** Output of a model. */
export interface Result {
  /** [ids, V] */
  readonly logits: number[];
  /** [draws] */
  readonly greedy: number[];
}

/** Results of all tasks, and the backend's number of threads. */
export interface Results {
  readonly threads: number;
  readonly results: Result[];
}

/** Opens a backend in this context. */
export function openBackend({ name, options }: BackendChoice): Promise<Backend> {
  return name === "wasm" ? openWasmBackend(options) : openWebGpuBackend(options);
}

/** Runs models on one backend of this page or worker. */
export async function runModels(
  choice: BackendChoice,
  tasks: readonly Task[],
): Promise<Results> {
  await using backend = await openBackend(choice);
  const results: Result[] = [];
  for (const { folder, context, ids, draws } of tasks) {
    const a = await architectureOf(folder);
    const checkpoint = await fetchCheckpoint(folder);
    const source = await checkpointWeights(checkpoint, a, "auto");
    const runner = await runnerOn(backend, a, source, context ?? Math.min(a.blockSize, 256));
    const logits = [...await runner.logits(ids)];
    runner.startSampling({ temperature: 0, topK: 0, topP: 1, repetitionPenalty: 1 }, 0);
    await runner.prefill(ids);
    const greedy: number[] = [];
    while (greedy.length < draws) greedy.push(...await runner.draw(draws - greedy.length));
    results.push({ logits, greedy });
  }
  return { threads: backend.threads, results };
}

/** The architecture of a folder in the fixtures. */
export async function architectureOf(folder: string): Promise<Architecture> {
  const config = await (await fetchFixture(`${folder}/config.json`)).json();
  return readArchitecture(config, folder);
}

/** Uploads weights and creates a runner. */
export async function runnerOn(
  backend: Backend,
  a: Architecture,
  source: WeightSource,
  slots: number,
  chunk = 8,
): Promise<Runner> {
  const weights = await uploadWeights(backend, a, source, slots + 1, () => {});
  return await Runner.create(backend, a, weights, { id: a.family, slots, chunk });
}

/** Weights of arbitrary numbers, for shaders that are compiled but not run. */
export function anyWeights(a: Architecture, dtype: WeightDtype): WeightSource {
  return { specs: specTree(a), dtype: () => dtype, fill: () => () => {} };
}

async function fetchFixture(path: string): Promise<Response> {
  const response = await fetch(`/tests/fixtures/${path}`);
  if (!response.ok) throw new Error(`${path}: ${await response.text()}`);
  return response;
}

/** The checkpoint of a folder, fetched into memory; `openCheckpoint` would open files. */
async function fetchCheckpoint(folder: string): Promise<Checkpoint> {
  const path = `${folder}/model.safetensors`;
  const bytes = new Uint8Array(await (await fetchFixture(path)).arrayBuffer());
  const { tensors, metadata } = await readSafetensorsHeader({
    name: path,
    size: bytes.length,
    read: (offset, into) => Promise.resolve(into.set(bytes.subarray(offset, offset + into.length))),
    [Symbol.dispose]() {},
  });
  const bytesOf = (name: string) => {
    const { offset, byteLength } = tensors.get(name)!;
    return bytes.slice(offset, offset + byteLength);
  };
  return {
    path,
    format: "safetensors",
    metadata,
    tensors: () => [...tensors.values()],
    sharesBytes: (name, other) => name === other,
    read: (name) => Promise.resolve(decode(bytesOf(name), tensors.get(name)!.dtype)),
    readBytes: (name, at, into) =>
      Promise.resolve(into.set(bytesOf(name).subarray(at, at + into.length))),
    [Symbol.dispose]() {},
  };
}
