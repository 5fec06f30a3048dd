/** Damaged files on the command line: one sentence, exit status 1, no hang. */
import assert from "node:assert/strict";
import { loadModel } from "../../engine/load.ts";
import { withChatModel } from "../chat_model.ts";
import { ggufBytes } from "../gguf.ts";
import { inTempFolder } from "../safetensors.ts";
import { runCli } from "./run.ts";

type Json = Record<string, unknown>;

async function assertRefused(
  folder: string,
  args: readonly string[],
  message: RegExp,
): Promise<void> {
  const { code, stdout, stderr } = await runCli([
    ...["generate", folder, "--max-tokens", "2", ...args],
  ]);
  assert.match(stderr, message);
  assert.match(stderr, /^error: .+\n$/); // one line, and no stack
  assert.equal(stdout, "");
  assert.equal(code, 1);
}

/** Changes a JSON file in place. */
async function change(path: string, edit: (file: Json) => void): Promise<void> {
  const file = JSON.parse(await Deno.readTextFile(path)) as Json;
  edit(file);
  await Deno.writeTextFile(path, JSON.stringify(file));
}

/** The same by the library: an error of one line. */
async function assertThrows(
  folder: string,
  args: readonly string[],
  message: RegExp,
): Promise<void> {
  const content = args[args.indexOf("--prompt") + 1];
  const run = async () => {
    await using model = await loadModel(folder, { device: "js" });
    const tokens = args.includes("--chat")
      ? model.chat([{ role: "user", content }], { maxNewTokens: 2 })
      : model.generate(content, { maxNewTokens: 2 });
    for await (const _ of tokens);
  };
  await assert.rejects(run(), (error: Error) => {
    assert.match(error.message, message);
    assert.match(error.message, /^.+$/); // one line
    return true;
  });
}

/** Runs each case on a folder that was changed by it, and the last one on the command line too. */
function damageTest(
  name: string,
  file: string,
  args: readonly string[],
  cases: readonly (readonly [edit: (file: Json) => void, message: RegExp])[],
): void {
  Deno.test(name, () =>
    withChatModel(async (folder) => {
      const path = `${folder}/${file}`;
      const sound = await Deno.readTextFile(path);
      for (const [edit, message] of cases) {
        await change(path, edit);
        await assertThrows(folder, args, message);
        await Deno.writeTextFile(path, sound);
      }
      await Deno.writeTextFile(path, sound.slice(0, -10));
      await assertRefused(folder, args, /expected JSON/);
    }));
}

const set = (key: string, value: unknown) => (file: Json) => void (file[key] = value);

damageTest(
  "generate refuses a damaged config.json in one sentence",
  "config.json",
  ["--prompt", "hi"],
  [
    [set("num_attention_heads", 0), /num_attention_heads to be an integer from 1 .*got 0/],
    [
      (file) => (file.hidden_size = 65, delete file.head_dim),
      /hidden_size to be a multiple of num_attention_heads \(4\), got 65/,
    ],
    [set("num_key_value_heads", 3), /num_key_value_heads to be a divisor of the 4 heads, got 3/],
    [
      (file) => Object.assign(file, { model_type: "mistral", sliding_window: -1 }),
      /sliding_window to be an integer from 1 .*got -1/,
    ],
    [(file) => delete file.vocab_size, /vocab_size to be an integer from 1 .*got none/],
    [(file) => delete file.model_type, /expected a model_type of .*got none/],
    [set("vocab_size", 300), /embed_tokens\.weight is \[320,64\], expected \[300,64\]/],
    [set("intermediate_size", 100), /gate_proj\.weight is \[144,64\], expected \[100,64\]/],
    [set("num_hidden_layers", 2 ** 31 - 1), /for each of 2147483647 layers, got \d+ tensors/],
  ],
);

damageTest(
  "generate refuses a damaged tokenizer.json in one sentence",
  "tokenizer.json",
  ["--prompt", "h".repeat(60)],
  [
    [
      (file) => {
        // One token more than the embedding has rows, which the prompt uses.
        const added = { id: 320, content: "hhhh", special: false };
        (file.added_tokens as unknown[]).push(added);
      },
      /Cannot run id 320: expected an integer from 0 to 319/,
    ],
    [set("model", null), /expected a tokenizer of type .*got type none/],
    [set("added_tokens", {}), /added_tokens to be a list/],
    [set("normalizer", { type: "Magic" }), /does not read a normalizer of type "Magic"/],
    [
      set("pre_tokenizer", { type: "Split", pattern: { Regex: "(" }, behavior: "Isolated" }),
      /Invalid regular expression/,
    ],
    [
      set("pre_tokenizer", { type: "Split", pattern: { Regex: "(h|.)+x" }, behavior: "Isolated" }),
      /Cannot encode with ".*tokenizer\.json": it does not come to an end within 3 seconds/,
    ],
    [
      set("post_processor", {
        type: "TemplateProcessing",
        single: [{ SpecialToken: { id: "Q", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
        special_tokens: { Q: { id: "Q", ids: [5000], tokens: ["Q"] } },
      }),
      /ids of "Q"/,
    ],
  ],
);

const loop = (body: string) => `{% for a in range(100000) %}${body}{% endfor %}`;

damageTest(
  "generate --chat refuses a damaged or endless chat template in one sentence",
  "tokenizer_config.json",
  ["--chat", "--prompt", "hi"],
  [
    [set("chat_template", loop(loop(""))), /it does not come to an end/],
    [set("chat_template", "{{ messages | magic }}"), /no filter named magic/],
    [set("chat_template", "{% for"), /unexpected end of template/],
    [set("chat_template", 5), /chat_template to be text, got 5/],
  ],
);

Deno.test("logits() and generate() refuse ids outside the vocabulary", () =>
  withChatModel(async (folder) => {
    await using model = await loadModel(folder, { device: "js" });
    const { vocabSize } = model.config;
    for (const id of [vocabSize, -1, 1.5, NaN, 2 ** 32]) {
      const expected = new RangeError(
        `Cannot run id ${id}: expected an integer from 0 to ${vocabSize - 1}`,
      );
      await assert.rejects(model.logits([1, id]), expected);
      assert.throws(() => model.generate([1, id]), expected);
    }
    assert.equal((await model.logits([vocabSize - 1])).length, vocabSize);
  }));

Deno.test("a GGUF tensor of an unknown type is refused on the command line by its number", () =>
  inTempFolder(async (folder) => {
    const tensor = { name: "a", extents: [2], type: 77, data: new Uint8Array(8) };
    await Deno.writeFile(`${folder}/a.gguf`, ggufBytes({ tensors: [tensor] }));
    await assertRefused(`${folder}/a.gguf`, ["--ids", "1"], /tensor "a" .* knows, got type 77$/m);
  }));
