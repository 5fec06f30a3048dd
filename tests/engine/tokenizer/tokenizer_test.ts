import assert from "node:assert/strict";
import { CheckpointError } from "../../../engine/errors.ts";
import {
  findTokenizer,
  loadTokenizer,
  type TokenizerSources,
} from "../../../engine/tokenizer/load.ts";
import { inTempFolder } from "../../safetensors.ts";
import { fixture, readJson } from "../../testing.ts";

const CHAR = { type: "char", vocab: ["a", "b"] };
const HUGGING_FACE = {
  version: "1.0",
  model: { type: "BPE", vocab: { a: 0, b: 1, ab: 2 }, merges: ["a b"] },
};
const BPE = { type: "bpe", encoding_name: "gpt2" };
const NAME_ONE = "name one with --meta FILE or --tokenizer bpe, or give ids with --ids";
const OTHER_BPE = { type: "bpe", encoding_name: "cl100k_base" };
const ONLY_GPT2 = `this version reads the encoding "gpt2" only, not`;

async function writeJson(path: string, value: unknown): Promise<string> {
  await Deno.writeTextFile(path, JSON.stringify(value));
  return path;
}

for (const name of ["learned", "rope66", "rope-bias"]) {
  const folder = fixture(`labcore/${name}`);

  Deno.test(`loadTokenizer() reads LabCore's ${name} from a folder, file or record`, async () => {
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

Deno.test("loadTokenizer() reads a tokenizer.json from a folder, file or record", async () => {
  await inTempFolder(async (folder) => {
    const path = await writeJson(`${folder}/tokenizer.json`, HUGGING_FACE);
    for (const source of [path, folder, HUGGING_FACE]) {
      assert.deepEqual((await loadTokenizer(source)).encode("abb"), [2, 1]);
    }
  });
});

Deno.test("loadTokenizer() opens GPT-2's tokenizer when a record has type bpe", async () => {
  for (const record of [BPE, { type: "bpe" }, { vocab_size: 50257, tokenizer: BPE }]) {
    const tokenizer = await loadTokenizer(record);
    assert.equal(tokenizer.vocabSize, 50257);
    assert.deepEqual(tokenizer.encode("ROMEO:"), [33676, 4720, 25]);
  }
  await assert.rejects(
    loadTokenizer(OTHER_BPE),
    new CheckpointError(
      `Cannot read the given tokenizer: ${ONLY_GPT2} "cl100k_base"; ${NAME_ONE}`,
    ),
  );
});

Deno.test("loadTokenizer() names the file when it contains no tokenizer", async () => {
  await inTempFolder(async (folder) => {
    const path = `${folder}/meta.json`;
    for (const [value, got] of [[{ vocab_size: 65 }, "none"], [{ type: "word" }, `"word"`]]) {
      await writeJson(path, value);
      const expected = `Cannot read "${path}": expected a tokenizer of type "char" or "bpe", ` +
        `or Hugging Face's form, got type ${got}`;
      await assert.rejects(loadTokenizer(path), new CheckpointError(expected));
      await assert.rejects(findTokenizer({ folder }), new CheckpointError(expected));
    }
    await writeJson(path, { tokenizer: { type: "char", vocab: ["a", "a"] } });
    await assert.rejects(
      loadTokenizer(folder),
      new CheckpointError(
        `Cannot read "${path}": expected entry 1 of vocab to be different from entry 0, got "a"`,
      ),
    );
  });
});

Deno.test("loadTokenizer() throws when the folder is empty or the file is missing", async () => {
  await inTempFolder(async (folder) => {
    await assert.rejects(
      loadTokenizer(folder),
      new CheckpointError(
        `"${folder}" has no tokenizer; ${NAME_ONE}`,
      ),
    );
    await assert.rejects(
      loadTokenizer(`${folder}/none.json`),
      new CheckpointError(`Cannot open "${folder}/none.json": there is no such file`),
    );
  });
});

/** A character vocabulary of `size` characters. */
const chars = (size: number) => ({ type: "char", vocab: ["a", "b", "c", "d"].slice(0, size) });

Deno.test("findTokenizer() prefers meta, then record, tokenizer.json, meta.json", async () => {
  await inTempFolder(async (folder) => {
    const meta = await Deno.makeTempFile({ dir: folder, suffix: ".json" });
    const sizeOf = async (places: TokenizerSources): Promise<number> => {
      const found = await findTokenizer(places);
      assert.ok(typeof found !== "string", `${found}`);
      return found.vocabSize;
    };
    await writeJson(meta, { tokenizer: chars(4) });
    await writeJson(`${folder}/meta.json`, { tokenizer: chars(1) });
    assert.equal(await sizeOf({ folder }), 1);
    await writeJson(`${folder}/tokenizer.json`, chars(2));
    assert.equal(await sizeOf({ folder }), 2);
    assert.equal(await sizeOf({ folder, record: chars(3) }), 3);
    assert.equal(await sizeOf({ record: chars(3) }), 3);
    assert.equal(await sizeOf({ folder, record: chars(3), meta }), 4);
  });
});

Deno.test("findTokenizer() throws when the tokenizer is not of the requested kind", async () => {
  await inTempFolder(async (folder) => {
    const path = await writeJson(`${folder}/tokenizer.json`, HUGGING_FACE);
    const found = await findTokenizer({ folder, kind: "hf" });
    assert.ok(typeof found !== "string");
    await assert.rejects(
      findTokenizer({ folder, kind: "char" }),
      new CheckpointError(`Cannot read "${path}": expected a tokenizer of kind char, got "hf"`),
    );
    await assert.rejects(
      findTokenizer({ folder, record: BPE, kind: "hf" }),
      new CheckpointError(
        `Cannot read the checkpoint's tokenizer: expected a tokenizer of kind hf, got "bpe"`,
      ),
    );
    // GPT-2's tokenizer needs no file: all sources are ignored.
    for (const places of [{ folder }, { meta: "none.json" }, { record: chars(2) }, {}]) {
      const gpt2 = await findTokenizer({ ...places, kind: "bpe" });
      assert.ok(typeof gpt2 !== "string");
      assert.equal(gpt2.vocabSize, 50257);
    }
  });
});

Deno.test("findTokenizer() gives the reason when there is no supported tokenizer", async () => {
  const folder = fixture("tiny/gpt2");
  assert.equal(
    await findTokenizer({ folder }),
    `"${folder}" has no tokenizer; ${NAME_ONE}`,
  );
  assert.equal(
    await findTokenizer({ folder, kind: "hf" }),
    `"${folder}" has no tokenizer; ${NAME_ONE}`,
  );
  assert.equal(
    await findTokenizer({}),
    "The model has no tokenizer; " +
      "name one with --meta FILE or --tokenizer bpe, or give ids with --ids",
  );
  await inTempFolder(async (folder) => {
    const path = await writeJson(`${folder}/tokenizer.json`, OTHER_BPE);
    // The first existing file decides; the vocabulary of another would be wrong.
    await writeJson(`${folder}/meta.json`, { tokenizer: CHAR });
    const sentence = `Cannot read "${path}": ${ONLY_GPT2} "cl100k_base"; ${NAME_ONE}`;
    assert.equal(await findTokenizer({ folder }), sentence);
  });
});

Deno.test("findTokenizer() throws when the file is truncated, missing or a folder", async () => {
  await inTempFolder(async (folder) => {
    const path = `${folder}/tokenizer.json`;
    const whole = JSON.stringify(CHAR);
    for (let length = 0; length < whole.length; length++) {
      await Deno.writeTextFile(path, whole.slice(0, length));
      await assert.rejects(findTokenizer({ folder }), CheckpointError);
    }
    await assert.rejects(
      findTokenizer({ folder, meta: `${folder}/none.json` }),
      new CheckpointError(`Cannot open "${folder}/none.json": there is no such file`),
    );
    await Deno.remove(path);
    await Deno.mkdir(path);
    await assert.rejects(
      findTokenizer({ folder }),
      new CheckpointError(`Cannot open "${path}": expected a regular file`),
    );
  });
});
