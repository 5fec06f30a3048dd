/**
 * One table of defaults for library, command line and help; help offers nothing that is refused.
 */
import assert from "node:assert/strict";
import { COMMANDS, SWITCHES, UsageError, VALUE_FLAGS, type ValueName } from "../../cli/flags.ts";
import { parseArguments } from "../../cli/parse.ts";
import { DEFAULTS } from "../../engine/defaults.ts";
import { loadConfig } from "../../engine/config.ts";
import { loadModel, type LoadOptions } from "../../engine/load.ts";
import { type KvDtype, kvFormatFor } from "../../kernels/formats/kv.ts";
import { dtypeForRows, dtypeOf, type WeightDtype } from "../../kernels/formats/mod.ts";
import { fixture } from "../testing.ts";

const ROOT = new URL("../../", import.meta.url);
const FLAGS = Object.entries({ ...VALUE_FLAGS, ...SWITCHES });
const VALUES = Object.entries(VALUE_FLAGS) as [ValueName, { value: string; about: string }][];

/**
 * The flags whose default the help shows, by option; the others' brackets
 * hold no value of the table.
 */
const OPTION_OF: Readonly<Record<string, keyof typeof DEFAULTS>> = {
  source: "source",
  "repo-revision": "revision",
  prompt: "prompt",
  "prompt-tokens": "promptTokens",
  "warmup-tokens": "warmupTokens",
  "gen-tokens": "genTokens",
  iters: "iters",
  device: "device",
  dtype: "dtype",
  "kv-dtype": "kvDtype",
  context: "contextLength",
  "max-tokens": "maxNewTokens",
  temperature: "temperature",
  "top-k": "topK",
  "top-p": "topP",
  "repetition-penalty": "repetitionPenalty",
  "use-kv-cache": "useKvCache",
  stream: "stream",
  output: "output",
};
const WITHOUT_VALUE: Readonly<Record<string, string>> = {
  tokenizer: "detected from the model",
  threads: "measured, 8 at most",
  seed: "random",
  op: "all",
  lora: "=1",
  stride: "half the context",
  "against-dtype": "as stored",
  "against-device": "--device",
};

/** A value of the table as help shows it. */
function shown(value: string | number | boolean): string {
  return typeof value === "boolean" ? (value ? "on" : "off") : String(value);
}

Deno.test("every default that help shows is the table's", () => {
  for (const [flag, { about }] of FLAGS) {
    const bracket = /\[(.+)\]$/.exec(about)?.[1];
    const option = OPTION_OF[flag];
    if (option === undefined) assert.equal(bracket, WITHOUT_VALUE[flag], flag);
    else {
      const words = bracket?.split(/: |[ ,"]/) ?? [];
      assert.ok(words.includes(shown(DEFAULTS[option])), `${flag}: ${about}`);
    }
  }
});

Deno.test("every choice and every default that help shows is accepted by the parser", () => {
  for (const [flag, { value }] of VALUES) {
    const command = Object.entries(COMMANDS).find(([, groups]) =>
      Object.values(groups).flat().includes(flag)
    )?.[0];
    assert.ok(command, `a command with --${flag}`);
    const option = OPTION_OF[flag];
    const offered = [
      ...value.includes("|") ? value.split("|") : [],
      ...option === undefined ? [] : [String(DEFAULTS[option])],
    ];
    for (const text of offered) {
      const { given } = parseArguments([command, `--${flag}=${text}`]);
      assert.equal(String(given[flag]), text, `--${flag} ${text}`);
    }
  }
});

Deno.test("every dtype, device and tokenizer that help offers is accepted by loadModel()", async () => {
  const source = fixture("labcore/learned");
  for (const dtype of VALUE_FLAGS.dtype.value.split("|")) {
    await using model = await loadModel(source, { device: "js", dtype } as LoadOptions);
    if (dtype === "auto") continue;
    // Rows of this model hold no blocks of 256.
    const held = dtypeForRows(dtypeOf(dtype as WeightDtype), 32);
    assert.equal(model.dtype, held, dtype);
  }
  for (const kvDtype of VALUE_FLAGS["kv-dtype"].value.split("|")) {
    await using model = await loadModel(source, { device: "js", kvDtype } as LoadOptions);
    assert.equal(model.kvDtype, kvFormatFor(kvDtype as KvDtype, model.config.headDim).dtype);
  }
  for (const name of VALUE_FLAGS.device.value.split("|")) {
    const device = name === "cuda" ? "webgpu" : name;
    // A machine may lack the device, which is no fault of the value.
    const error = await loadModel(source, { device } as LoadOptions)
      .then((model) => model[Symbol.asyncDispose](), (error) => error);
    assert.ok(error === undefined || error.name === "DeviceError", `${device}: ${error}`);
  }
  for (const tokenizer of VALUE_FLAGS.tokenizer.value.split("|")) {
    // A model may lack the tokenizer: a fault of its files, a CheckpointError.
    const error = await loadModel(source, { device: "js", tokenizer } as LoadOptions)
      .then((model) => model[Symbol.asyncDispose](), (error) => error);
    assert.ok(error === undefined || error.name === "CheckpointError", `${tokenizer}: ${error}`);
  }
});

Deno.test("every default that an option's comment states is the table's", () => {
  let stated = 0;
  for (const file of ["sampler", "generate", "measure/benchmark"]) {
    const code = Deno.readTextFileSync(new URL(`engine/${file}.ts`, ROOT));
    const comments = code.matchAll(
      /[Dd]efault "?([\w.:]*[\w:])"?[.,][^]*?\*\/\n\s*readonly (\w+)\?:/g,
    );
    for (const [, value, name] of comments) {
      if (!Object.hasOwn(DEFAULTS, name)) continue;
      assert.equal(value, String(DEFAULTS[name as keyof typeof DEFAULTS]), `${name} in ${file}.ts`);
      stated++;
    }
  }
  assert.ok(stated >= 10, `${stated} comments state a default`);
});

Deno.test("top-p takes the same values on the command line and in a settings file", async () => {
  const path = await Deno.makeTempFile({ suffix: ".toml" });
  try {
    for (const topP of [0, 1e-9, 0.5, 1]) {
      const { given } = parseArguments(["generate", "--top-p", String(topP)]);
      assert.equal(given["top-p"], topP);
      await Deno.writeTextFile(path, `[generation]\ntop_p = ${topP}\n`);
      assert.equal((await loadConfig(path)).generation.topP, topP);
    }
    for (const topP of [-1e-9, 1.001]) {
      assert.throws(() => parseArguments(["generate", `--top-p=${topP}`]), UsageError);
      await Deno.writeTextFile(path, `[generation]\ntop_p = ${topP}\n`);
      await assert.rejects(loadConfig(path), /top_p to be a number from 0 to 1/);
    }
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("help texts have at most 60 columns", () => {
  const long = FLAGS.map(([, { about }]) => about).filter((about) => about.length > 60);
  assert.deepEqual(long, []);
});
