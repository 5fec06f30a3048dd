/**
 * GGUF models against transformers, for any backend: logits, and greedy ids with and without the
 * cache.
 *
 * @module
 */
import assert from "node:assert/strict";
import { openCheckpoint } from "../../engine/checkpoint/checkpoint.ts";
import { loadModel } from "../../engine/load.ts";
import type { Device } from "../../kernels/mod.ts";
import { assertClose, fixture, greedy, readJson, TOLERANCE } from "../testing.ts";

/** Facts of a file in `golden.json`; see the README beside it. */
export interface GgufGolden {
  readonly golden: string;
  /** How the matrices are stored: "F32", "F16", "BF16", or a quantised type. */
  readonly stored: string;
}

const GOLDENS = readJson<Record<string, GgufGolden>>("gguf/golden.json");

/** The files of `tests/fixtures/gguf` that hold a model. */
export const GGUF_FILES: readonly string[] = Object.keys(GOLDENS);

/** Whether a file's matrices are floats. */
export const isPlain = ({ stored }: GgufGolden) => /^B?F\d+$/.test(stored);

/**
 * Declares the tests of some files on one backend; `cached` lists whether ids are drawn with the
 * cache or without.
 */
export function testGgufs(
  device: Device,
  { files = GGUF_FILES, cached = [true, false] }: {
    readonly files?: readonly string[];
    readonly cached?: readonly boolean[];
  } = {},
): void {
  for (const file of files) {
    Deno.test(`${device}: logits() and generate() equal transformers' on ${file}`, async () => {
      const facts = GOLDENS[file];
      const tolerance = isPlain(facts) ? TOLERANCE.logits : TOLERANCE.quantisedLogits;
      using golden = await openCheckpoint(fixture(`gguf/${facts.golden}`));
      const [ids, expected] = [[...await golden.read("ids")], [...await golden.read("greedy")]];
      const margins = await golden.read("margins");
      await using model = await loadModel(fixture(`gguf/${file}`), { device, threads: 1 });
      assertClose(await model.logits(ids), await golden.read("logits"), tolerance);
      for (const useKvCache of cached) {
        const drawn = await greedy(model, ids, expected.length, { useKvCache });
        const differs = drawn.findIndex((id, i) => id !== expected[i]);
        // Where two logits are within the tolerance, either id is right, and the texts part.
        if (differs >= 0 && margins[differs] < 2 * tolerance.atol) continue;
        assert.deepEqual(drawn, expected, useKvCache ? "with the cache" : "without the cache");
      }
    });
  }
}
