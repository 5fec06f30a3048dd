/**
 * Output folders of trainers against PyTorch, PEFT and transformers, for any backend.
 *
 * @module
 */
import assert from "node:assert/strict";
import { openCheckpoint } from "../../engine/checkpoint/checkpoint.ts";
import { loadModel, type LoadOptions } from "../../engine/load.ts";
import type { Model } from "../../engine/model.ts";
import { shareDevices } from "../kernels/shared_gpu.ts";
import { assertClose, fixture, readJson, TOLERANCE } from "../testing.ts";

/** A model as its trainer saved it; paths are below tests/fixtures/people. */
export interface Case {
  readonly name: string;
  readonly source: string;
  /** Other sources of the same model. */
  readonly also?: readonly string[];
  readonly options?: LoadOptions;
  /** An adapter's folder: opened as a model, it finds its base and gives the same model. */
  readonly folder?: string;
  /** Name of the expected values in goldens/. */
  readonly golden: string;
  /** `cli`: needs flags of the command line. */
  readonly kind: "nanogpt" | "hf" | "lora" | "cli";
  /** Whether the source has no vocabulary, so that prompts are ids. */
  readonly no_text?: boolean;
}

/** Greedy ids and text after a prompt, and after one whose continuation passes the context. */
interface Golden {
  readonly prompt: string;
  readonly prompt_ids: number[];
  readonly greedy: number[];
  readonly text: string;
  readonly long_prompt?: string;
  readonly long_prompt_ids?: number[];
  readonly long_greedy?: number[];
  readonly long_text?: string;
}

/** The models that need no flag of the command line. */
export const CASES: readonly Case[] = readJson<Case[]>("people/cases.json").filter(({ kind }) =>
  kind !== "cli"
);

/** Opens a source of tests/fixtures/people. */
export function open(source: string, options: LoadOptions = {}): Promise<Model> {
  const adapters = options.adapters?.map((adapter) => ({
    ...adapter,
    path: fixture(`people/${adapter.path}`),
  }));
  return loadModel(fixture(`people/${source}`), {
    ...{ threads: 1, ...options },
    ...adapters && { adapters },
  });
}

/** Every way to open the model of a case. */
function sourcesOf({ source, also = [], options, folder }: Case) {
  const sources = [source, ...also].map((path) => ({ path, options }));
  return folder ? [...sources, { path: folder, options: { dtype: "F32" } as const }] : sources;
}

/** Compares the logits of a golden. */
export async function expectLogits(model: Model, golden: string): Promise<void> {
  using file = await openCheckpoint(fixture(`people/goldens/${golden}.safetensors`));
  const expected = await file.read("logits"); // [T, V], or the last row [V] of a large vocabulary
  const logits = await model.logits([...await file.read("ids")]); // [T, V]
  assertClose(logits.subarray(logits.length - expected.length), expected, TOLERANCE.logits);
}

/**
 * Expects greedy ids, and their text if given, with the cache and without. Typed arrays take
 * seconds without the cache, so only their road with it is walked.
 */
async function expectGreedy(
  model: Model,
  prompt: string | number[],
  ids: readonly number[],
  text?: string,
): Promise<void> {
  for (const useKvCache of model.backend.name === "js" ? [true] : [true, false]) {
    const drawn: number[] = [];
    let written = "";
    const options = { temperature: 0, maxNewTokens: ids.length, ignoreEos: true, useKvCache };
    for await (const token of model.generate(prompt, options)) {
      if (token.id !== undefined) drawn.push(token.id);
      written += token.text;
    }
    assert.deepEqual(drawn, ids);
    if (text !== undefined) assert.equal(written, text);
  }
}

/** Expects the greedy continuations of a golden, of text or (`no_text`) of ids. */
async function expectContinuations(model: Model, golden: Golden, { no_text }: Case): Promise<void> {
  const { prompt, prompt_ids, greedy, text } = golden;
  const { long_prompt, long_prompt_ids, long_greedy, long_text } = golden;
  if (no_text) {
    await expectGreedy(model, prompt_ids, greedy);
    if (long_greedy) await expectGreedy(model, long_prompt_ids!, long_greedy);
  } else {
    assert.deepEqual(model.tokenizer.encode(prompt), prompt_ids);
    await expectGreedy(model, prompt, greedy, text);
    if (long_greedy) await expectGreedy(model, long_prompt!, long_greedy, long_text);
  }
}

/** Declares the tests of some models on one backend. */
export function testPeople(device: "js" | "wasm", cases: readonly Case[]): void {
  for (const one of cases) {
    Deno.test(`${device}: ${one.name} gives its trainer's logits and ids`, async () => {
      const golden = readJson<Golden>(`people/goldens/${one.golden}.json`);
      for (const { path, options } of sourcesOf(one)) {
        await using model = await open(path, { ...options, device });
        await expectLogits(model, one.golden);
        await expectContinuations(model, golden, one);
      }
    });
  }
}

/** Declares the tests of some models on WebGPU: their logits alone, on one device. */
export function testPeopleOnGpu(cases: readonly Case[], ignore: boolean): void {
  if (!ignore) shareDevices();
  for (const { name, source, options, golden } of cases) {
    Deno.test({
      name: `webgpu: ${name} gives its trainer's logits`,
      ignore,
      async fn() {
        await using model = await open(source, { ...options, device: "webgpu" });
        await expectLogits(model, golden);
      },
    });
  }
}

/** Whether typed arrays take many seconds for a model; the soak tests run it on them. */
export const isSlowOnJs = ({ name }: Case): boolean => /^nanogpt-(beside|repo)$/.test(name);
