import assert from "node:assert/strict";
import { readArchitecture } from "../../engine/architecture/mod.ts";
import { loadConfig } from "../../engine/config.ts";
import { CheckpointError } from "../../engine/errors.ts";
import { countParameters, specTree } from "../../engine/weights/mod.ts";

async function load(toml: string | Uint8Array) {
  const path = await Deno.makeTempFile({ suffix: ".toml" });
  try {
    await Deno.writeFile(path, typeof toml === "string" ? new TextEncoder().encode(toml) : toml);
    return await loadConfig(path);
  } finally {
    await Deno.remove(path);
  }
}

async function refuses(toml: string | Uint8Array, message: RegExp) {
  await assert.rejects(
    load(toml),
    (error) => error instanceof CheckpointError && message.test(error.message),
    String(toml),
  );
}

Deno.test("loadConfig() reads every key of [generation]", async () => {
  const { generation, model, warnings } = await load(`
    [generation]
    seed = 1337
    deterministic = true
    temperature = 0.6
    top_k = 50
    top_p = 0.95
    repetition_penalty = 1.1
    use_kv_cache = false
  `);
  assert.deepEqual(generation, {
    seed: 1337,
    deterministic: true,
    temperature: 0.6,
    topK: 50,
    topP: 0.95,
    repetitionPenalty: 1.1,
    useKvCache: false,
  });
  assert.equal(model, undefined);
  assert.deepEqual(warnings, []);
});

Deno.test("loadConfig() leaves missing keys absent", async () => {
  assert.deepEqual(await load(""), { generation: {}, warnings: [] });
  assert.deepEqual((await load("[generation]\ntemperature = 1")).generation, { temperature: 1 });
});

Deno.test("loadConfig() ignores keys and sections of other programs", async () => {
  const { generation, warnings, model } = await load(`
    [general]
    seed = 1
    [data]
    dataset = "tinyshakespeare"
    [model]
    block_size = 512
    dropout = 0.1
    use_flash = false
    [training]
    learning_rate = 3e-4
    [optimizer]
    name = "adamw"
    [generation]
    max_new_tokens = 200
    stream = true
    system_prompt = ""
    max_history_turns = 6
  `);
  assert.deepEqual(generation, {});
  assert.deepEqual(warnings, []);
  assert.deepEqual(model, { block_size: 512, dropout: 0.1, use_flash: false });
});

Deno.test("loadConfig() warns of unknown keys and sections", async () => {
  const { warnings } = await load(`
    loose = 1
    [generation]
    temprature = 0.5
    [sampling]
    top_k = 4
  `);
  assert.equal(warnings.length, 3);
  assert.match(warnings[0], /key loose/);
  assert.match(warnings[1], /key temprature in \[generation\] has no effect/);
  assert.match(warnings[2], /section \[sampling\]/);
});

Deno.test("loadConfig() names the key of a wrong type or value", async () => {
  const wrong: [string, RegExp][] = [
    ['seed = "1"', /generation\.seed to be a whole number of at least 0, got "1"/],
    ["seed = 1.5", /generation\.seed/],
    ["seed = -1", /generation\.seed/],
    ["deterministic = 1", /generation\.deterministic to be true or false, got 1/],
    ["temperature = true", /generation\.temperature/],
    ["temperature = -0.1", /generation\.temperature/],
    ["temperature = inf", /generation\.temperature .*, got Infinity/],
    ["top_k = 0.5", /generation\.top_k/],
    ["top_p = -0.1", /generation\.top_p/],
    ["top_p = 1.5", /generation\.top_p/],
    ["repetition_penalty = 0", /generation\.repetition_penalty/],
    ["use_kv_cache = []", /generation\.use_kv_cache/],
  ];
  for (const [line, message] of wrong) await refuses(`[generation]\n${line}`, message);
  await refuses("generation = 3", /generation to be a section, got 3/);
  await refuses("model = 1979-05-27", /model to be a section/);
  await refuses("[[generation]]\nseed = 1", /generation to be a section/);
});

Deno.test("loadConfig() reports TOML errors with line and column", async () => {
  await refuses("[generation]\ntemperature = 0,5\n", /line 2, column \d+: /);
  await refuses("[generation]\nseed = 1\nseed = 2\n", /line 3, column 1: /);
  await refuses("[generation\n", /line 1, /);
  await refuses("a = 99999999999999999999", /line 1, column 5: /);
});

Deno.test("loadConfig() reads the line `seed = null` as an absent seed", async () => {
  for (
    const line of ["seed = null", "  seed=null  # drawn", "seed\t=\tnull\r", "seed = null # b\r"]
  ) {
    assert.deepEqual((await load(`[generation]\n${line}\ntop_k = 4\n`)).generation, { topK: 4 });
  }
  assert.deepEqual(
    (await load("[general]\nseed = null\n[generation]\nseed = null")).generation,
    {},
  );
  await refuses("[generation]\ntop_k = null", /line 2, column 9/);
  await refuses("[generation]\nseed = nullify", /line 2, column 8/);
  await refuses("[generation]\nseed = null\nseed = null", /line 3, column 1/);
  await refuses("[generation]\nseed = null\nseed = 3", /line 3, column 1/);
  await refuses("[generation]\ntop_k = [\nseed = null\n3]", /line [34], column/);
  await refuses("seed = null\n".repeat(50_000), /line [12], column/);
  await refuses("[generation]\nseed = null\n\nx = ", /line 4, column 5/);
  const { generation, warnings } = await load(
    '[generation]\nsystem_prompt = """\nseed = null\n"""',
  );
  assert.deepEqual([generation, warnings], [{}, []]);
});

Deno.test("loadConfig() refuses a missing file, a folder and binary data", async () => {
  await assert.rejects(loadConfig("not/there.toml"), { message: /there is no such file/ });
  await assert.rejects(loadConfig("tests"), { message: /expected a regular file/ });
  await refuses(new Uint8Array([0x61, 0xff, 0xfe]), /UTF-8/);
});

Deno.test("the presets are valid and have the stated number of parameters", async () => {
  const millions: Record<string, string> = {};
  for (const { name } of Deno.readDirSync(new URL("../../configs/", import.meta.url))) {
    const path = new URL(`../../configs/${name}`, import.meta.url).pathname;
    const { model, warnings } = await loadConfig(path);
    assert.deepEqual(warnings, []);
    const specs = model && specTree(readArchitecture(model, name));
    millions[name] = specs ? (countParameters(specs) / 1e6).toFixed(2) : "no [model]";
  }
  assert.deepEqual(millions, {
    "base.toml": "no [model]",
    "base_char.toml": "4.89",
    "bpe_10m.toml": "9.97",
    "bpe_10m_rope.toml": "9.89",
    "bpe_50m.toml": "50.24",
    "bpe_50m_rope.toml": "49.97",
    "gpt2.toml": "124.44",
  });
});
