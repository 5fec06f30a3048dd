/// <reference lib="dom" />
/// <reference lib="dom.asynciterable" />
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
  prompt: string | readonly number[] = "ROMEO:",
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
    const encoded = typeof prompt === "string" ? model.tokenizer.encode(prompt) : [];
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

/** Names and texts of files in a folder of the page's storage, as a directory handle. */
async function folderWith(files: Readonly<Record<string, string>>) {
  const root = await navigator.storage.getDirectory();
  const chosen = await root.getDirectoryHandle("chosen", { create: true });
  for (const [path, url] of Object.entries(files)) {
    const names = path.split("/");
    let folder = chosen;
    for (const name of names.slice(0, -1)) {
      folder = await folder.getDirectoryHandle(name, { create: true });
    }
    const file = await folder.getFileHandle(names.at(-1)!, { create: true });
    const stream = await file.createWritable();
    await stream.write(await (await fetch(url)).blob());
    await stream.close();
  }
  return chosen;
}

/**
 * As `load`, of a directory handle.
 * @param files URLs of the folder's files, by path; those of calls before stay.
 * @param below folder within it that is loaded.
 */
export async function loadFolder(
  files: Readonly<Record<string, string>>,
  options: LoadOptions = {},
  below: readonly string[] = [],
): Promise<Loaded | string> {
  let folder = await folderWith(files);
  for (const name of below) folder = await folder.getDirectoryHandle(name);
  return await load(folder, options);
}

/** As `load`, of files; URLs of the files, by path below a chosen folder or by name. */
export async function loadFiles(
  files: Readonly<Record<string, string>>,
  options: LoadOptions = {},
  prompt?: string | readonly number[],
): Promise<Loaded | string> {
  const chosen = Object.entries(files).map(async ([path, url]) => {
    const file = new File([await (await fetch(url)).blob()], path.replace(/.*\//, ""));
    // Only the browser sets it, for a folder that the visitor chose.
    Object.defineProperty(file, "webkitRelativePath", { value: path.includes("/") ? path : "" });
    return file;
  });
  return await load(await Promise.all(chosen), options, prompt);
}

/** Replaces the text of every description of a URL's files by a part of it, as a crash may. */
export async function tearDescriptions(): Promise<number> {
  const root = await navigator.storage.getDirectory();
  const urls = await (await root.getDirectoryHandle("wgslm")).getDirectoryHandle("urls");
  let count = 0;
  for await (const name of urls.keys()) {
    const file = await (await urls.getDirectoryHandle(name)).getFileHandle("wgslm.json");
    const text = await (await file.getFile()).text();
    const stream = await file.createWritable();
    await stream.write(text.slice(0, text.length >> 1));
    await stream.close();
    count++;
  }
  return count;
}

/** Perplexity of a text on wasm, with the same model on js as its reference; or the error. */
export async function compare(url: string, text: string): Promise<unknown> {
  const { loadModel, perplexity } = await library();
  await using model = await loadModel(url, { device: "wasm", dtype: "Q8_0" });
  await using reference = await loadModel(url, { device: "js" });
  const options = { context: 12, stride: 5 };
  try {
    const alone = await perplexity(model, text, options);
    return { alone, both: await perplexity(model, text, { ...options, reference }) };
  } catch (error) {
    return String(error);
  }
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

let drawn: number[] = [];

/** Starts to draw greedy ids; `drawnIds` gives those so far. */
export async function startDrawing(url: string, count: number): Promise<void> {
  const { loadModel } = await library();
  const model = await loadModel(url, { device: "js" });
  drawn = [];
  void (async () => {
    for await (const { id } of model.generate("ROMEO:", { ...GREEDY, maxNewTokens: count })) {
      if (id !== undefined) drawn.push(id);
    }
  })();
}

/** Ids of `startDrawing` so far. */
export function drawnIds(): number[] {
  return drawn;
}
