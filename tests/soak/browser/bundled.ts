/**
 * What `browser_test.ts` asks of the library's bundle in a page: nothing of the project but
 * `/bundle/`.
 *
 * @module
 */

/** The library, as a page has it. */
type Library = typeof import("../../../mod.ts");

/** A tokenizer that its record makes. */
export interface Encoding {
  readonly vocabSize: number;
  readonly ids: readonly number[];
  readonly text: string;
}

async function load(): Promise<Library> {
  const url = "/bundle/mod.js"; // made by the test
  return await import(url);
}

/** Encodes a text and decodes its ids. */
export async function encode(record: Record<string, unknown>, text: string): Promise<Encoding> {
  const { loadTokenizer } = await load();
  const tokenizer = await loadTokenizer(record);
  const ids = tokenizer.encode(text);
  return { vocabSize: tokenizer.vocabSize, ids, text: tokenizer.decode(ids) };
}

/** Logits of a model with random weights. */
export async function logits(
  config: Record<string, unknown>,
  device: "js" | "wasm",
  ids: readonly number[],
): Promise<number[]> {
  const { loadModel } = await load();
  await using model = await loadModel({ config }, { device });
  return [...await model.logits(ids)];
}

/** The error of opening a checkpoint by its path. */
export async function refusal(path: string): Promise<string> {
  const { openCheckpoint } = await load();
  return await openCheckpoint(path).then(() => "opened", String);
}
