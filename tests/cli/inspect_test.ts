/** `inspect`: fit on each backend before loading, compared with the errors of a run. */
import assert from "node:assert/strict";
import { fixture, readJson } from "../testing.ts";
import { inTempFolder } from "../safetensors.ts";
import { runCli } from "./run.ts";

const run = (...args: string[]) => runCli(args);

/** Writes a model with few weights and a context of millions. */
async function writeLong(folder: string): Promise<void> {
  const tiny = fixture("tiny/llama");
  await Deno.copyFile(`${tiny}/model.safetensors`, `${folder}/model.safetensors`);
  const config = readJson<Record<string, unknown>>("tiny/llama/config.json");
  await Deno.writeTextFile(
    `${folder}/config.json`,
    JSON.stringify({ ...config, max_position_embeddings: 2 ** 26 }),
  );
}

Deno.test("inspect shows that a run does not fit, and bench refuses it with the same bytes", () =>
  inTempFolder(async (folder) => {
    await writeLong(folder);
    const context = ["--context", "22000000"];
    const { code, stdout, stderr } = await run("inspect", folder, ...context);
    assert.equal(code, 0, stderr);
    const line = /^ {2}wasm +does not fit: needs (\S+ GiB), has (\S+ GiB); --context (\d+)/m
      .exec(stdout);
    assert.ok(line, stdout);
    const [, needs, has, shorter] = line;
    const refused = await run("bench", folder, ...context, "--device", "wasm");
    assert.equal(refused.code, 1);
    assert.equal(refused.stdout, "");
    assert.match(refused.stderr, /^error: Cannot load .*(shorter|smaller) context.*\n$/);
    assert.ok(refused.stderr.includes(`at most ${has}`), refused.stderr);
    assert.ok(refused.stderr.includes(`got ${needs}`), refused.stderr);
    // The suggested context fits.
    const again = await run("inspect", folder, "--context", shorter);
    const [, room] = /^ {2}wasm +fits: needs (\S+ GiB) of \1$/m.exec(again.stdout)!;
    assert.equal(room, has);
  }));

Deno.test("inspect shows needed and free memory of every backend", async () => {
  const { code, stdout, stderr } = await run("inspect", "--context", "256");
  assert.equal(code, 0, stderr);
  const weights = [...stdout.matchAll(/^ {2}(F32|F16|BF16) +(\d+\.\d MiB)$/gm)];
  assert.deepEqual(weights.map(([, dtype]) => dtype), ["F32", "F16", "BF16"]);
  assert.match(stdout, /^ {2}webgpu +(fits: needs \d.* MiB, in buffers of at most |not here: )/m);
  assert.match(stdout, /^ {2}wasm +fits: needs \d\S* MiB of \S+ GiB$/m);
  assert.match(stdout, /^ {2}js +fits: needs \d\S* MiB of \S+ GiB$/m);
});

Deno.test("a context beyond the model's is refused in one sentence by every command", async () => {
  const folder = fixture("tiny/llama");
  for (const command of [["inspect"], ["bench"], ["generate", "--prompt", "x"]]) {
    const { code, stdout, stderr } = await run(...command, folder, "--context", "9999");
    assert.equal(code, 1, stderr);
    assert.equal(stdout, "");
    assert.match(stderr, /^error: Cannot load: expected a context of 1 to \d+ tokens, got 9999\n$/);
  }
});

Deno.test("inspect --json-out writes the same facts in bytes", () =>
  inTempFolder(async (folder) => {
    await writeLong(folder);
    const json = `${folder}/out/fits.json`;
    const args = ["--context", "22000000", "--dtype", "BF16", "--json-out", json];
    const { code, stdout, stderr } = await run("inspect", folder, ...args);
    assert.equal(code, 0, stderr);
    assert.match(stderr, /^wrote .*fits\.json$/m);
    const { model, context, kv_dtype, weights_bytes, backends, tensors } = JSON.parse(
      await Deno.readTextFile(json),
    );
    assert.deepEqual([context, kv_dtype], [22000000, "F32"]);
    assert.equal(model.n_kv_head, 2);
    assert.ok(weights_bytes.F32 > weights_bytes.BF16);
    assert.equal(weights_bytes.F16, weights_bytes.BF16);
    assert.equal(tensors.length, 30);
    for (const { name, here, fits, needs, has, alternatives, instead } of backends) {
      const line = new RegExp(`^  ${name} +(.*)$`, "m").exec(stdout)![1];
      assert.match(line, !here ? /^not here/ : fits ? /^fits/ : /^does not fit/);
      if (!here) continue;
      assert.equal(needs.bytes, needs.weights + needs.kv_cache + needs.activations);
      assert.ok(needs.weights >= weights_bytes.BF16);
      if (has.bytes !== null) assert.equal(fits, needs.bytes <= has.bytes);
      assert.ok(fits || alternatives.every((run: { context: number }) => run.context < context));
      assert.deepEqual(instead, alternatives, "the key's old name");
    }
    assert.deepEqual(backends.map(({ name }: { name: string }) => name), ["webgpu", "wasm", "js"]);
  }));

Deno.test("inspect shows a GGUF's types, bits per weight, metadata and what computes with them", () =>
  inTempFolder(async (folder) => {
    const json = `${folder}/a.json`;
    const path = fixture("gguf/llama-w256-widened.gguf");
    const { code, stdout, stderr } = await run(
      ...["inspect", path, "--kv-dtype", "Q8_0", "--json-out", json],
    );
    assert.equal(code, 0, stderr);
    assert.match(stderr, /^note: widened to F16: 2 of TQ2_0, 2 of TQ1_0, 8 of MXFP4; no kernel/m);
    assert.match(stdout, /^ {2}bits per weight +4\.08$/m);
    assert.match(stdout, /^ {2}MXFP4 +8 tensors +442\.0 KiB +4\.25 bits +widened to F16$/m);
    assert.match(
      stdout,
      /^ {2}IQ4_XS +3 tensors .* 4\.25 bits +as stored on (webgpu, )?wasm, js$/m,
    );
    assert.match(stdout, /^ {2}F32 +5 tensors .* 32 bits +as stored on (webgpu, )?wasm, js$/m);
    assert.match(stdout, /^ {2}llama\.attention\.head_count_kv +2$/m);
    assert.match(stdout, /^ {2}blk\.1\.attn_v\.weight +MXFP4 +\[128, 256\]$/m);
    const { model, types, metadata, kv_dtype } = JSON.parse(await Deno.readTextFile(json));
    assert.equal(model.family, "llama");
    assert.equal(model.bits_per_weight.toFixed(2), "4.08");
    const dtypes = types.map(({ dtype }: { dtype: string }) => dtype);
    assert.deepEqual(dtypes, ["MXFP4", "IQ4_XS", "Q6_K", "TQ2_0", "TQ1_0", "F32"]);
    assert.deepEqual(types[0].held_by, []);
    assert.equal(metadata["llama.embedding_length"], 256);
    assert.equal(kv_dtype, "Q8_0");
  }));
