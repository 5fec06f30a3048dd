import assert from "node:assert/strict";
import { FAMILIES } from "../../engine/architecture/families.ts";
import { readArchitecture } from "../../engine/architecture/mod.ts";
import { openCheckpoint } from "../../engine/checkpoint/checkpoint.ts";
import { estimateMemory } from "../../engine/memory.ts";
import { Runner } from "../../engine/runner.ts";
import { checkpointWeights, uploadWeights } from "../../engine/weights/mod.ts";
import { openJsBackend } from "../../kernels/js/backend.ts";
import { fixture, readJson } from "../testing.ts";
import { FAMILY_FOLDERS, testFamilies } from "./families.ts";

testFamilies("js");

Deno.test("every family of transformers has a golden, and most have two", () => {
  const families = FAMILY_FOLDERS.map((name) =>
    readArchitecture(readJson(`tiny/${name}/config.json`), name).family
  );
  const missing = ["gpt2", ...Object.keys(FAMILIES)].filter((name) =>
    !(families as string[]).includes(name)
  );
  assert.deepEqual(missing, []);
  assert.ok(FAMILY_FOLDERS.length >= 46, `${FAMILY_FOLDERS.length} folders`);
});

Deno.test("estimateMemory() equals the tracked bytes of a model of every family", async () => {
  for (const name of FAMILY_FOLDERS) {
    const a = readArchitecture(readJson(`tiny/${name}/config.json`), name);
    await using backend = openJsBackend();
    using checkpoint = await openCheckpoint(fixture(`tiny/${name}`));
    const source = await checkpointWeights(checkpoint, a, "auto");
    const [slots, chunk] = [24, 8];
    const weights = await uploadWeights(backend, a, source, slots + 1, () => {});
    await Runner.create(backend, a, weights, { id: name, slots, chunk });
    const { classes } = estimateMemory(a, source, { contextLength: slots, chunk });
    for (const kind of ["weights", "kvCache", "activations"] as const) {
      assert.equal(classes[kind], backend.memory.classes[kind].current, `${name}: ${kind}`);
    }
  }
});
