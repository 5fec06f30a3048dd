/** The whole road against PyTorch: logits, greedy ids with and without the cache, past the window, every storage dtype. */
import assert from "node:assert/strict";
import { openCheckpoint } from "../../engine/checkpoint/checkpoint.ts";
import { loadModel } from "../../engine/model.ts";
import { assertClose, fixture, greedy, readJson, TOLERANCE } from "../testing.ts";

interface LabcoreGolden {
  prompt: string;
  prompt_ids: number[];
  n_new: number;
  greedy_kv_on: number[];
  greedy_kv_off: number[];
  "greedy_kv_on_repetition_1.3": number[];
}

async function goldenTensors(path: string): Promise<{ ids: number[]; logits: Float32Array }> {
  using golden = await openCheckpoint(fixture(`${path}/golden.safetensors`));
  return { ids: [...await golden.read("ids")], logits: await golden.read("logits") };
}

for (const name of ["learned", "rope66", "rope-bias"]) {
  const golden = readJson<LabcoreGolden>(`labcore/${name}/golden.json`);
  const open = () => loadModel(fixture(`labcore/${name}`), { device: "js" });

  Deno.test(`logits() equals PyTorch's on labcore/${name}`, async () => {
    await using model = await open();
    const { ids, logits } = await goldenTensors(`labcore/${name}`);
    assertClose(await model.logits(ids), logits, TOLERANCE.logits);
  });

  Deno.test(`generate() draws PyTorch's greedy ids on labcore/${name}, cache on, past the window`, async () => {
    await using model = await open();
    assert.deepEqual(await greedy(model, golden.prompt_ids, golden.n_new), golden.greedy_kv_on);
    assert.deepEqual(await greedy(model, golden.prompt, golden.n_new), golden.greedy_kv_on);
  });

  Deno.test(`generate() draws PyTorch's greedy ids on labcore/${name}, cache off, past the window`, async () => {
    await using model = await open();
    const ids = await greedy(model, golden.prompt_ids, golden.n_new, { useKvCache: false });
    assert.deepEqual(ids, golden.greedy_kv_off);
  });

  Deno.test(`generate() draws PyTorch's ids on labcore/${name} under a repetition penalty`, async () => {
    await using model = await open();
    const ids = await greedy(model, golden.prompt_ids, golden.n_new, { repetitionPenalty: 1.3 });
    assert.deepEqual(ids, golden["greedy_kv_on_repetition_1.3"]);
  });
}

for (const name of ["gpt2", "gpt2-hub", "gpt2-f16"]) {
  const golden = readJson<{ prompt_ids: number[]; greedy_ids: number[] }>(
    `tiny/${name}/golden.json`,
  );

  Deno.test(`logits() and generate() equal PyTorch's on tiny/${name}`, async () => {
    await using model = await loadModel(fixture(`tiny/${name}`), { device: "js" });
    assert.equal(model.dtype, name === "gpt2-f16" ? "F16" : "F32");
    const { ids, logits } = await goldenTensors(`tiny/${name}`);
    assertClose(await model.logits(ids), logits, TOLERANCE.logits);
    for (const useKvCache of [true, false]) {
      const drawn = await greedy(model, golden.prompt_ids, 40, { useKvCache });
      assert.deepEqual(drawn, golden.greedy_ids);
    }
  });
}

const DEMO = new URL("../../bench/demo", import.meta.url).pathname;
interface DemoGolden {
  prompt: string;
  validation_text: string;
  F16: {
    last_logits: number[];
    greedy_kv_on: number[];
    greedy_kv_off: number[];
    first_512_of_validation_mean_nll: number;
  };
}

Deno.test("the demo gives PyTorch's logits and 600 greedy ids, past its window", async () => {
  await using model = await loadModel(DEMO, { device: "js" });
  const { prompt, F16 } = readJson<DemoGolden>("demo/golden.json");
  const logits = await model.logits(model.tokenizer.encode(prompt));
  assertClose(logits.subarray(-65), F16.last_logits, TOLERANCE.logits);
  assert.deepEqual(await greedy(model, prompt, 600), F16.greedy_kv_on);
});

Deno.test("the demo without the cache draws PyTorch's ids where the window begins to slide", async () => {
  await using model = await loadModel(DEMO, { device: "js" });
  const { prompt, F16 } = readJson<DemoGolden>("demo/golden.json");
  // Without a cache an id follows from the ids before it alone, so the golden's own beginning is as good a prompt.
  const known = 505;
  const ids = [...model.tokenizer.encode(prompt), ...F16.greedy_kv_off.slice(0, known)];
  assert.deepEqual(
    await greedy(model, ids, 6, { useKvCache: false }),
    F16.greedy_kv_off.slice(known, known + 6),
  );
});

Deno.test("the demo is as likely as PyTorch says to write 512 characters of the validation text", async () => {
  await using model = await loadModel(DEMO, { device: "js" });
  const { validation_text: text, F16 } = readJson<DemoGolden>("demo/golden.json");
  const ids = model.tokenizer.encode(text).slice(0, 513);
  const logits = await model.logits(ids.slice(0, 512));
  let sum = 0;
  const rows = Math.min(512, ids.length - 1);
  for (let t = 0; t < rows; t++) {
    const row = logits.subarray(t * 65, (t + 1) * 65);
    const max = Math.max(...row);
    const total = row.reduce((n, s) => n + Math.exp(s - max), 0);
    sum += Math.log(total) + max - row[ids[t + 1]];
  }
  assertClose([sum / rows], [F16.first_512_of_validation_mean_nll], TOLERANCE.logits);
});
