/**
 * Every family against transformers, for any backend: logits, and greedy ids
 * with and without the cache.
 *
 * @module
 */
import assert from "node:assert/strict";
import { openCheckpoint } from "../../engine/checkpoint/checkpoint.ts";
import { loadModel, type LoadOptions } from "../../engine/load.ts";
import type { Device } from "../../kernels/mod.ts";
import { assertClose, fixture, greedy, readJson, TOLERANCE } from "../testing.ts";

/** What `golden.json` says beside the tensors. */
interface FamilyGolden {
  /** The context that the golden is for, where it is not the model's own. */
  readonly context?: number;
  readonly smallest_top2_margin: number;
}

/**
 * Folders of `tests/fixtures/tiny`; those whose names have a dot reach single
 * options, see `make_goldens.py`.
 */
export const FAMILY_FOLDERS: readonly string[] = [...Deno.readDirSync(fixture("tiny"))]
  .filter(({ isDirectory }) => isDirectory).map(({ name }) => name).sort();

/**
 * Declares the tests of one backend, on one thread by default: to start and probe more takes longer
 * than to run these models. tests/soak/families_wasm_test.ts runs them on more.
 */
export function testFamilies(device: Device, { threads }: LoadOptions = { threads: 1 }): void {
  for (const name of FAMILY_FOLDERS) {
    Deno.test(`${device}: logits() and generate() equal transformers' on tiny/${name}`, async () => {
      const { context: contextLength } = readJson<FamilyGolden>(`tiny/${name}/golden.json`);
      using golden = await openCheckpoint(fixture(`tiny/${name}/golden.safetensors`));
      const [ids, expected] = [[...await golden.read("ids")], [...await golden.read("greedy")]];
      await using model = await loadModel(fixture(`tiny/${name}`), {
        ...{ device, threads, contextLength },
      });
      assertClose(await model.logits(ids), await golden.read("logits"), TOLERANCE.logits);
      for (const useKvCache of [true, false]) {
        const drawn = await greedy(model, ids, expected.length, { useKvCache });
        assert.deepEqual(drawn, expected, useKvCache ? "with the cache" : "without the cache");
      }
    });
  }
}
