/**
 * The whole road against PyTorch, for any backend: logits, greedy ids with and without the
 * cache, past the window, every storage dtype, LabCore's models from the export and from the
 * trainer's own checkpoint.
 *
 * @module
 */
import assert from "node:assert/strict";
import { openCheckpoint } from "../../engine/checkpoint/checkpoint.ts";
import { loadModel } from "../../engine/load.ts";
import type { Device } from "../../kernels/mod.ts";
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

/** Declares the tests of one backend. */
export function testGoldens(device: Device): void {
  for (const name of ["learned", "rope66", "rope-bias"]) {
    const golden = readJson<LabcoreGolden>(`labcore/${name}/golden.json`);
    const open = () => loadModel(fixture(`labcore/${name}`), { device });

    Deno.test(`${device}: logits() equals PyTorch's on labcore/${name}`, async () => {
      await using model = await open();
      const { ids, logits } = await goldenTensors(`labcore/${name}`);
      assertClose(await model.logits(ids), logits, TOLERANCE.logits);
    });

    Deno.test(`${device}: labcore/${name} from the trainer's checkpoint is the model of the export`, async () => {
      await using model = await loadModel(fixture(`labcore/${name}/ckpt_last.pt`), { device });
      const { ids, logits } = await goldenTensors(`labcore/${name}`);
      assertClose(await model.logits(ids), logits, TOLERANCE.logits);
      assert.deepEqual(await greedy(model, golden.prompt, golden.n_new), golden.greedy_kv_on);
      const without = await greedy(model, golden.prompt, golden.n_new, { useKvCache: false });
      assert.deepEqual(without, golden.greedy_kv_off);
    });

    Deno.test(`${device}: generate() draws PyTorch's greedy ids on labcore/${name}, cache on, past the window`, async () => {
      await using model = await open();
      assert.deepEqual(await greedy(model, golden.prompt_ids, golden.n_new), golden.greedy_kv_on);
      assert.deepEqual(await greedy(model, golden.prompt, golden.n_new), golden.greedy_kv_on);
    });

    Deno.test(`${device}: generate() draws PyTorch's greedy ids on labcore/${name}, cache off, past the window`, async () => {
      await using model = await open();
      const ids = await greedy(model, golden.prompt_ids, golden.n_new, { useKvCache: false });
      assert.deepEqual(ids, golden.greedy_kv_off);
    });

    Deno.test(`${device}: generate() draws PyTorch's ids on labcore/${name} under a repetition penalty`, async () => {
      await using model = await open();
      const ids = await greedy(model, golden.prompt_ids, golden.n_new, { repetitionPenalty: 1.3 });
      assert.deepEqual(ids, golden["greedy_kv_on_repetition_1.3"]);
    });
  }

  for (const name of ["gpt2", "gpt2-hub", "gpt2-f16"]) {
    const golden = readJson<{ prompt_ids: number[]; greedy_ids: number[] }>(
      `tiny/${name}/golden.json`,
    );

    Deno.test(`${device}: logits() and generate() equal PyTorch's on tiny/${name}`, async () => {
      await using model = await loadModel(fixture(`tiny/${name}`), { device });
      assert.equal(model.dtype, name === "gpt2-f16" ? "F16" : "F32");
      const { ids, logits } = await goldenTensors(`tiny/${name}`);
      assertClose(await model.logits(ids), logits, TOLERANCE.logits);
      for (const useKvCache of [true, false]) {
        const drawn = await greedy(model, golden.prompt_ids, 40, { useKvCache });
        assert.deepEqual(drawn, golden.greedy_ids);
      }
    });
  }
}
