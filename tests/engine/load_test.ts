import assert from "node:assert/strict";
import { describeCheckpoint, loadModel, type LoadOptions } from "../../engine/load.ts";
import { fixture } from "../testing.ts";

const LLAMA = fixture("tiny/llama");

Deno.test("loadModel() and describeCheckpoint() refuse an option that they do not know", async () => {
  const options = { device: "js", adapters: [{ path: "lora" }] } as LoadOptions;
  const refusal = {
    name: "TypeError",
    message: /^Cannot load: expected options of device dtype .* signal, got "adapters"$/,
  };
  await assert.rejects(loadModel(LLAMA, options), refusal);
  await assert.rejects(describeCheckpoint(LLAMA, options), refusal);
  // Before a file is looked for, and whatever the value.
  const unset = { adapters: undefined } as LoadOptions;
  await assert.rejects(loadModel("/nonexistent", unset), refusal);
  await assert.rejects(loadModel({ config: {} }, unset), refusal);
});

Deno.test("loadModel() takes every option that it knows", async () => {
  const options: Required<Omit<LoadOptions, "meta">> = {
    device: "js",
    dtype: "F32",
    threads: 1,
    contextLength: 16,
    tune: false,
    tokenizer: "char",
    revision: "main",
    token: "",
    cacheDir: "/nonexistent",
    offline: true,
    onProgress: () => {},
    signal: new AbortController().signal,
  };
  await using model = await loadModel(fixture("labcore/learned"), options);
  assert.deepEqual([model.backend.name, model.dtype, model.contextLength], ["js", "F32", 16]);
});

Deno.test("loadModel() reports progress to the last byte of a model with rotary positions", async () => {
  for (const name of ["tiny/llama", "tiny/gemma3", "tiny/llama-bf16"]) {
    const seen: number[] = [];
    const totals = new Set<number | undefined>();
    await using _model = await loadModel(fixture(name), {
      device: "js",
      onProgress: ({ loaded, total }) => {
        seen.push(loaded);
        totals.add(total);
      },
    });
    assert.deepEqual([...totals], [seen.at(-1)], name);
    assert.ok(seen.every((loaded, i) => i === 0 || loaded > seen[i - 1]), name);
  }
});

Deno.test("describeCheckpoint() sizes the run that its options ask for", async () => {
  const whole = await describeCheckpoint(LLAMA);
  const half = await describeCheckpoint(LLAMA, { contextLength: 16, dtype: "F16" });
  assert.equal(half.contextLength, 16);
  assert.equal(half.parameters, whole.parameters);
  const changed = whole.memory.with({ contextLength: 16, dtype: "F16" });
  assert.deepEqual(
    [changed.classes, changed.total, changed.largest, changed.chunk],
    [half.memory.classes, half.memory.total, half.memory.largest, half.memory.chunk],
  );
  assert.ok(half.memory.total < whole.memory.total);
});
