import assert from "node:assert/strict";
import { CheckpointError } from "../../../engine/errors.ts";
import { findTokenizer, loadTokenizer } from "../../../engine/tokenizer/load.ts";
import { inTempFolder } from "../../safetensors.ts";
import { fixture, readJson } from "../../testing.ts";

const CHAR = { type: "char", vocab: ["a", "b"] };
const HUGGING_FACE = { version: "1.0", model: { type: "BPE", vocab: {}, merges: [] } };
const ONLY_CHAR = "this version reads LabCore's character vocabularies only, not";

async function writeJson(path: string, value: unknown): Promise<string> {
  await Deno.writeTextFile(path, JSON.stringify(value));
  return path;
}

for (const name of ["learned", "rope66", "rope-bias"]) {
  const folder = fixture(`labcore/${name}`);

  Deno.test(`loadTokenizer() gives LabCore's ids when ${name} is a folder, a file or a record`, async () => {
    const golden = readJson<{ prompt: string; prompt_ids: number[] }>(
      `labcore/${name}/golden.json`,
    );
    const sources = [
      folder,
      `${folder}/`,
      `${folder}/tokenizer.json`,
      `${folder}/meta.json`,
      readJson<Record<string, unknown>>(`labcore/${name}/tokenizer.json`),
      readJson<Record<string, unknown>>(`labcore/${name}/meta.json`),
    ];
    for (const source of sources) {
      const tokenizer = await loadTokenizer(source);
      assert.equal(tokenizer.vocabSize, 65);
      assert.deepEqual(tokenizer.encode(golden.prompt), golden.prompt_ids);
      assert.equal(tokenizer.decode(golden.prompt_ids), golden.prompt);
    }
  });
}

Deno.test("loadTokenizer() says what it reads when the form is another", async () => {
  await inTempFolder(async (folder) => {
    const path = await writeJson(`${folder}/tokenizer.json`, HUGGING_FACE);
    const sentence = `Cannot read "${path}": ${ONLY_CHAR} Hugging Face's form`;
    await assert.rejects(loadTokenizer(path), new CheckpointError(sentence));
    await assert.rejects(loadTokenizer(folder), new CheckpointError(sentence));
  });
  for (const bpe of [{ type: "bpe", encoding_name: "gpt2" }, { tokenizer: { type: "bpe" } }]) {
    await assert.rejects(
      loadTokenizer(bpe),
      new CheckpointError(`Cannot read the tokenizer that was given: ${ONLY_CHAR} its bpe`),
    );
  }
});

Deno.test("loadTokenizer() names the file when it holds no tokenizer", async () => {
  await inTempFolder(async (folder) => {
    const path = `${folder}/meta.json`;
    for (const [value, got] of [[{ vocab_size: 65 }, "none"], [{ type: "word" }, `"word"`]]) {
      await writeJson(path, value);
      const expected =
        `Cannot read "${path}": expected a tokenizer of type "char" with its vocab, got type ${got}`;
      await assert.rejects(loadTokenizer(path), new CheckpointError(expected));
      await assert.rejects(findTokenizer(folder), new CheckpointError(expected));
    }
    await writeJson(path, { tokenizer: { type: "char", vocab: ["a", "a"] } });
    await assert.rejects(
      loadTokenizer(folder),
      new CheckpointError(
        `Cannot read "${path}": expected entry 1 of vocab to be another than entry 0, got "a"`,
      ),
    );
  });
});

Deno.test("loadTokenizer() throws the sentence when there is nothing to load", async () => {
  await inTempFolder(async (folder) => {
    await assert.rejects(
      loadTokenizer(folder),
      new CheckpointError(`"${folder}" has no tokenizer; give ids`),
    );
    await assert.rejects(
      loadTokenizer(`${folder}/none.json`),
      new CheckpointError(`Cannot open "${folder}/none.json": there is no such file`),
    );
  });
});

Deno.test("findTokenizer() takes meta, then tokenizer.json, then meta.json when there are several", async () => {
  await inTempFolder(async (folder) => {
    const elsewhere = await Deno.makeTempFile({ dir: folder, suffix: ".json" });
    const sizes = { meta: 3, tokenizer: 2, folderMeta: 1 };
    const record = (size: number) => ({ type: "char", vocab: ["a", "b", "c"].slice(0, size) });
    const sizeOf = async (meta?: string): Promise<number> => {
      const found = await findTokenizer(folder, meta);
      assert.ok(typeof found !== "string", `${found}`);
      return found.vocabSize;
    };
    await writeJson(elsewhere, { tokenizer: record(sizes.meta) });
    await writeJson(`${folder}/meta.json`, { tokenizer: record(sizes.folderMeta) });
    assert.equal(await sizeOf(), sizes.folderMeta);
    await writeJson(`${folder}/tokenizer.json`, record(sizes.tokenizer));
    assert.equal(await sizeOf(), sizes.tokenizer);
    assert.equal(await sizeOf(elsewhere), sizes.meta);
  });
});

Deno.test("findTokenizer() gives a sentence when a model can only work with ids", async () => {
  const folder = fixture("tiny/gpt2");
  assert.equal(await findTokenizer(folder), `"${folder}" has no tokenizer; give ids`);
  await inTempFolder(async (folder) => {
    const path = await writeJson(`${folder}/tokenizer.json`, HUGGING_FACE);
    // The first file that is there decides: another's vocabulary would be the wrong one.
    await writeJson(`${folder}/meta.json`, { tokenizer: CHAR });
    assert.equal(
      await findTokenizer(`${folder}/`),
      `Cannot read "${path}": ${ONLY_CHAR} Hugging Face's form`,
    );
    const bpe = await writeJson(`${folder}/bpe.json`, { tokenizer: { type: "bpe" } });
    assert.equal(await findTokenizer(folder, bpe), `Cannot read "${bpe}": ${ONLY_CHAR} its bpe`);
  });
});

Deno.test("findTokenizer() throws when the file is torn, missing or no file", async () => {
  await inTempFolder(async (folder) => {
    const path = `${folder}/tokenizer.json`;
    const whole = JSON.stringify(CHAR);
    for (let length = 0; length < whole.length; length++) {
      await Deno.writeTextFile(path, whole.slice(0, length));
      await assert.rejects(findTokenizer(folder), CheckpointError);
    }
    await assert.rejects(
      findTokenizer(folder, `${folder}/none.json`),
      new CheckpointError(`Cannot open "${folder}/none.json": there is no such file`),
    );
    await Deno.remove(path);
    await Deno.mkdir(path);
    await assert.rejects(
      findTokenizer(folder),
      new CheckpointError(`Cannot open "${path}": expected a regular file`),
    );
  });
});
