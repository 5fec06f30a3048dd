/**
 * What `browser_test.ts` has done in a page or its worker: the decoder on a backend there,
 * and every shader compiled.
 *
 * @module
 */
import { type Architecture, readArchitecture } from "../../../engine/architecture/mod.ts";
import type { Checkpoint } from "../../../engine/checkpoint/checkpoint.ts";
import { decode } from "../../../engine/checkpoint/safetensors.ts";
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

/** A backend to open, and how. */
export type Opening =
  | { readonly name: "wasm"; readonly options?: WasmOptions }
  | { readonly name: "webgpu"; readonly options?: WebGpuOptions };

/** A model of the fixtures, and what is asked of it. */
export interface Question {
  /** Below `tests/fixtures`. */
  readonly folder: string;
  readonly context?: number;
  readonly ids: readonly number[];
  /** Greedy ids to draw after them. */
  readonly draws: number;
}

/** What a model says. */
export interface Answer {
  /** Of every one of the ids. */
  readonly logits: number[];
  readonly greedy: number[];
}

/** Answers, and the threads that they were computed by. */
export interface Answers {
  readonly threads: number;
  readonly answers: Answer[];
}

/** Opens a backend. */
export function openHere({ name, options }: Opening): Promise<Backend> {
  return name === "wasm" ? openWasmBackend(options) : openWebGpuBackend(options);
}

/** Asks models on a backend of this page or worker. */
export async function ask(opening: Opening, questions: readonly Question[]): Promise<Answers> {
  await using backend = await openHere(opening);
  const answers: Answer[] = [];
  for (const { folder, context, ids, draws } of questions) {
    const a = await architectureOf(folder);
    const checkpoint = await fetchCheckpoint(folder);
    const source = await checkpointWeights(checkpoint, a, "auto");
    const runner = await runnerOn(backend, a, source, context ?? Math.min(a.blockSize, 256));
    const logits = [...await runner.logits(ids)];
    runner.startSampling({ temperature: 0, topK: 0, topP: 1, repetitionPenalty: 1 }, 0);
    await runner.prefill(ids);
    const greedy: number[] = [];
    while (greedy.length < draws) greedy.push(...await runner.draw(draws - greedy.length));
    answers.push({ logits, greedy });
  }
  return { threads: backend.threads, answers };
}

/** The architecture of a folder of the fixtures. */
export async function architectureOf(folder: string): Promise<Architecture> {
  const config = await (await fetchFixture(`${folder}/config.json`)).json();
  return readArchitecture(config, folder);
}

/** A model that is ready to run. */
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

/** Weights whose numbers do not matter. */
export function anyWeights(a: Architecture, dtype: WeightDtype): WeightSource {
  return { specs: specTree(a), dtype: () => dtype, fill: () => () => {} };
}

async function fetchFixture(path: string): Promise<Response> {
  const response = await fetch(`/tests/fixtures/${path}`);
  if (!response.ok) throw new Error(`${path}: ${await response.text()}`);
  return response;
}

/** The checkpoint of a folder, in memory: `openCheckpoint` opens files. */
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
    metadata,
    tensors: () => [...tensors.values()],
    sharesBytes: (name, other) => name === other,
    read: (name) => Promise.resolve(decode(bytesOf(name), tensors.get(name)!.dtype)),
    readBytes: (name, at, into) =>
      Promise.resolve(into.set(bytesOf(name).subarray(at, at + into.length))),
    [Symbol.dispose]() {},
  };
}
