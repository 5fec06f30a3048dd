/**
 * Functions that `browser_test.ts` calls in a page on the library's bundle. At run time this module
 * imports nothing of the project but `/bundle/`.
 *
 * @module
 */

/** The library's exports. */
type Library = typeof import("../../../mod.ts");

/** Result of encoding a text and decoding its ids. */
export interface Encoding {
  readonly vocabSize: number;
  readonly ids: readonly number[];
  readonly text: string;
}

async function load(): Promise<Library> {
  const url = "/bundle/mod.js"; // bundled by the test
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

/** The error of opening a checkpoint by path. */
export async function refusal(path: string): Promise<string> {
  const { openCheckpoint } = await load();
  return await openCheckpoint(path).then(() => "opened", String);
}
