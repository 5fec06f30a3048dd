/**
 * Tests of models whose cache is in F16 or Q8_0, for each backend.
 *
 * @module
 */
import assert from "node:assert/strict";
import { loadModel } from "../../engine/load.ts";
import type { KvDtype } from "../../kernels/formats/kv.ts";
import type { Device } from "../../kernels/mod.ts";
import { assertClose, fixture, greedy, readJson } from "../testing.ts";

/** Most that logits of the tiny models move: about twice what was seen (2.7e-3 and 2.1e-2). */
const MOVED: Readonly<Record<string, number>> = { F16: 6e-3, Q8_0: 5e-2 };

/** Ids of a vocabulary of 64 and more. */
const IDS = Array.from({ length: 40 }, (_, i) => (7 * i + 3) % 61);

/** Declares the tests of one backend. */
export function testKvDtypes(device: Device): void {
  for (const [name, kvDtype] of [["llama", "F16"], ["gemma", "Q8_0"]] as const) {
    Deno.test(`${device}: a cache of ${kvDtype} moves logits of tiny/${name} by little`, async () => {
      const open = (device: Device, kvDtype: KvDtype) =>
        loadModel(fixture(`tiny/${name}`), { device, kvDtype, contextLength: 64 });
      await using plain = await open("js", "F32");
      await using oracle = await open("js", kvDtype);
      await using model = await open(device, kvDtype);
      assert.equal(model.kvDtype, kvDtype);
      assert.deepEqual(model.notes.filter((note) => note.includes("cache")), []);
      const logits = await model.logits(IDS);
      const [exact, rounded] = [await plain.logits(IDS), await oracle.logits(IDS)];
      assertClose(logits, exact, { atol: MOVED[kvDtype], rtol: 0 });
      // A number next to a tie may round to either side on another backend.
      assertClose(logits, rounded, { atol: MOVED[kvDtype] / 2, rtol: 0 });
      assert.notDeepEqual(rounded, exact);
      assert.deepEqual(await greedy(model, IDS, 12), await greedy(oracle, IDS, 12));
    });
  }

  Deno.test(`${device}: a cache of F16 slides past LabCore's window as one of F32`, async () => {
    const golden = readJson<{ prompt_ids: number[]; n_new: number; greedy_kv_on: number[] }>(
      "labcore/rope66/golden.json",
    );
    await using model = await loadModel(fixture("labcore/rope66"), { device, kvDtype: "Q8_0" });
    assert.equal(model.kvDtype, "F16");
    assert.ok(model.notes.includes(
      "The cache is F16: Q8_0 needs a head size that 32 divides, not 66.",
    ));
    assert.ok(golden.prompt_ids.length + golden.n_new > model.contextLength);
    assert.deepEqual(await greedy(model, golden.prompt_ids, golden.n_new), golden.greedy_kv_on);
  });
}
