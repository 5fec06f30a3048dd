/**
 * Functions that `page_test.ts` calls in a page or its worker: they load models through the bundle.
 * At run time this module imports nothing of the project but `/bundle/`.
 *
 * @module
 */
import type { GenerateOptions, LoadOptions, LoadProgress } from "../../../mod.ts";

/** Ids of a greedy generation, and facts about the model. */
export interface Loaded {
  readonly ids: readonly number[];
  readonly text: string;
  readonly encoded: readonly number[];
  readonly backend: string;
  readonly threads: number;
  readonly notes: readonly string[];
  /** Greatest `loaded` of the progress, by stage and file. */
  readonly progress: Readonly<Record<string, number>>;
}

async function library(): Promise<typeof import("../../../mod.ts")> {
  const url = "/bundle/mod.js"; // bundled by the test
  return await import(url);
}

const GREEDY: GenerateOptions = { temperature: 0, maxNewTokens: 12 };

/** Loads a model and generates; or the error's sentence. */
export async function load(
  source: Parameters<typeof import("../../../mod.ts").loadModel>[0],
  options: LoadOptions = {},
  prompt = "ROMEO:",
): Promise<Loaded | string> {
  const { loadModel } = await library();
  const progress: Record<string, number> = {};
  const onProgress = ({ stage, file, loaded }: LoadProgress) => {
    const key = `${stage} ${file?.replace(/.*\//, "")}`;
    progress[key] = Math.max(progress[key] ?? 0, loaded);
  };
  try {
    await using model = await loadModel(source, { ...options, onProgress });
    const ids: number[] = [];
    let text = "";
    for await (const token of model.generate(prompt, GREEDY)) {
      if (token.id !== undefined) ids.push(token.id);
      text += token.text;
    }
    const encoded = model.tokenizer.encode("ROMEO:");
    const { name, threads } = model.backend;
    return { ids, text, encoded, backend: name, threads, notes: model.notes, progress };
  } catch (error) {
    return String(error);
  }
}

/** Sources of the models in the page's storage. */
export async function cachedSources(): Promise<string[]> {
  const { cachedModels } = await library();
  return (await cachedModels()).map(({ source }) => source);
}

let kept: Awaited<ReturnType<typeof import("../../../mod.ts").loadModel>> | undefined;

/** Loads a tiny random model on WebGPU, for `keptLogits`. */
export async function keep(config: Record<string, unknown>): Promise<void> {
  const { loadModel } = await library();
  kept = await loadModel({ config }, { device: "webgpu" });
}

/** Logits of the kept model; or the error's sentence. */
export async function keptLogits(): Promise<number[] | string> {
  return await kept!.logits([1, 2, 3]).then((logits) => [...logits], String);
}
