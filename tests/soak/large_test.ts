/** Memory of a model of 10⁹ parameters: at most 1.1 times the bytes of its weights. */
import assert from "node:assert/strict";
import { BILLION, type Resident } from "../../bench/resident.ts";
import { readArchitecture } from "../../engine/architecture/mod.ts";
import { specTree, weightSpecs } from "../../engine/weights/mod.ts";
import { BYTES } from "../../kernels/formats/mod.ts";
import { sizeOf } from "../../kernels/tensor.ts";
import { runDeno } from "../process.ts";
import { frame, inTempFolder } from "../safetensors.ts";

/** Maximum ratio of memory to the weights' bytes, without KV cache and activations. */
const MAX_RATIO = 1.1;

/** Memory of a process that runs `bench/resident.ts`. */
async function residentOf(...args: string[]): Promise<Resident> {
  const script = new URL("../../bench/resident.ts", import.meta.url).pathname;
  const { code, stdout, stderr } = await runDeno(["run", "-A", "--no-check", script, ...args]);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout) as Resident;
}

/** Writes the model's folder; the weights are a sparse file of zeros. Returns their bytes. */
async function writeZeros(folder: string): Promise<number> {
  const header: Record<string, unknown> = {};
  let end = 0;
  const put = (name: string, shape: readonly number[]) => {
    const begin = end;
    end += BYTES.BF16 * sizeOf(shape);
    header[name] = { dtype: "BF16", shape, data_offsets: [begin, end] };
  };
  for (
    const { names, shape, runs } of weightSpecs(specTree(readArchitecture(BILLION, "a billion")))
  ) {
    const rows = runs ?? [{ names, of: shape[0] }];
    for (const { names: [name], of } of rows) put(name, [of, ...shape.slice(1)]);
  }
  const head = frame(JSON.stringify(header));
  await Deno.writeFile(`${folder}/model.safetensors`, head);
  await Deno.truncate(`${folder}/model.safetensors`, head.length + end);
  await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify(BILLION));
  return end;
}

function assertSmall(of: string, idle: Resident, loaded: Resident): void {
  const { weights, kvCache, activations, tracked, rss, peak } = loaded;
  const beside = kvCache + activations;
  const figures = {
    "peak tracked": tracked,
    resident: rss - idle.rss,
    ...peak && { "peak resident": peak - idle.peak },
  };
  for (const [what, bytes] of Object.entries(figures)) {
    const ratio = (bytes - beside) / weights;
    const text = `${of}, ${what}: ${ratio.toFixed(3)}× the weights`;
    assert.ok(ratio <= MAX_RATIO, text);
    assert.ok(ratio >= 0.99, text); // all weights are in memory and were counted
    console.log(text);
  }
}

Deno.test("loadModel() takes at most 1.1 times the bytes of 10⁹ BF16 parameters", async () => {
  const idle = await residentOf("idle");
  const random = await residentOf("billion");
  assertSmall("random weights", idle, random);
  await inTempFolder(async (folder) => {
    const bytes = await writeZeros(folder);
    const { blocks, size } = await Deno.stat(`${folder}/model.safetensors`);
    if (blocks === null || blocks * 512 > size / 2) {
      console.warn("SKIPPED: the same from a file, since the file system has no sparse files");
      return;
    }
    const loaded = await residentOf("billion", folder);
    // Norms and biases are kept in F32, and the rotary table is added to the learned weights.
    assert.ok(Math.abs(loaded.weights / bytes - 1) < 0.001, `${loaded.weights} of ${bytes}`);
    assert.equal(loaded.weights, random.weights);
    assertSmall("a file", idle, loaded);
  });
});
