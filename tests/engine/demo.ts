/**
 * The bundled model against PyTorch, for any backend.
 *
 * @module
 */
import assert from "node:assert/strict";
import { loadModel } from "../../engine/load.ts";
import type { Device } from "../../kernels/mod.ts";
import { assertClose, greedy, readJson, TOLERANCE } from "../testing.ts";

/** Its folder. */
export const DEMO = new URL("../../bench/demo", import.meta.url).pathname;

/** Facts of its golden. */
export interface DemoGolden {
  prompt: string;
  validation_text: string;
  F16: {
    last_logits: number[];
    greedy_kv_on: number[];
    greedy_kv_off: number[];
    first_512_of_validation_mean_nll: number;
  };
}

/** Declares the tests of one backend. */
export function testDemo(device: Device): void {
  Deno.test(`${device}: the demo gives PyTorch's logits and 600 greedy ids, past its window`, async () => {
    await using model = await loadModel(DEMO, { device });
    const { prompt, F16 } = readJson<DemoGolden>("demo/golden.json");
    const logits = await model.logits(model.tokenizer.encode(prompt));
    assertClose(logits.subarray(-65), F16.last_logits, TOLERANCE.logits);
    assert.deepEqual(await greedy(model, prompt, 600), F16.greedy_kv_on);
  });

  Deno.test(`${device}: the demo gives PyTorch's mean loss on 512 characters`, async () => {
    await using model = await loadModel(DEMO, { device });
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
}
