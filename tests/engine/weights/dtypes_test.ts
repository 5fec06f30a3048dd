import assert from "node:assert/strict";
import { readArchitecture } from "../../../engine/architecture/mod.ts";
import { chooseDtypes, mainDtype } from "../../../engine/weights/dtypes.ts";
import { encodeColumns } from "../../../engine/weights/encode_columns.ts";
import { specTree, weightSpecs } from "../../../engine/weights/specs.ts";
import { FORMATS, narrow, type WeightDtype } from "../../../kernels/formats/mod.ts";
import { bytesOf } from "../../../kernels/tensor.ts";
import { randomNumbers } from "../../testing.ts";

/** GPT-2 with rows of `width` and of four times as many numbers. */
function gpt2(width: number) {
  const record = {
    model_type: "gpt2",
    n_layer: 1,
    n_head: 2,
    n_embd: width,
    n_positions: 8,
    vocab_size: 5,
  };
  return specTree(readArchitecture(record, "config"));
}

Deno.test("chooseDtypes() keeps tables at 8 bits and positions as stored under blocks", () => {
  const specs = gpt2(64);
  const { dtype, notes } = chooseDtypes(specs, "Q4_1", () => "BF16");
  assert.deepEqual(notes, []);
  assert.equal(dtype(specs.wte), "Q8_0");
  assert.equal(dtype(specs.wpe!), "BF16");
  assert.equal(dtype(specs.h[0].cAttn[0].weight), "Q4_1");
  assert.equal(mainDtype({ specs, dtype }), "Q4_1");
});

Deno.test("chooseDtypes() takes F16 for rows that hold no whole blocks, with a note", () => {
  const specs = gpt2(24); // the MLP's inner rows are 96
  const { dtype, notes } = chooseDtypes(specs, "Q8_0", () => "F32");
  assert.equal(dtype(specs.h[0].cAttn[0].weight), "F16");
  assert.equal(dtype(specs.h[0].mlpProj.weight), "Q8_0");
  assert.deepEqual(notes, ["rows of 24 are held in F16: Q8_0 needs whole blocks"]);
});

Deno.test("chooseDtypes() takes a float for a dtype that the backend does not hold", () => {
  const specs = gpt2(64);
  const holds = (kept: WeightDtype) => kept !== "Q4_0";
  const stored = chooseDtypes(specs, "auto", () => "Q4_0", holds);
  const matrices = weightSpecs(specs).filter(({ shape }) => shape.length > 1);
  assert.ok(matrices.every((spec) => stored.dtype(spec) === "F32"));
  const asked = chooseDtypes(specs, "Q4_0", () => "F32", holds);
  assert.equal(asked.dtype(specs.h[0].cAttn[0].weight), "F16");
  assert.deepEqual(asked.notes, ["Q4_0 is widened to F16: this device has no kernels for it"]);
});

Deno.test("chooseDtypes() applies a float to every weight", () => {
  const specs = gpt2(24);
  const { dtype, notes } = chooseDtypes(specs, "BF16", () => "Q4_0");
  assert.ok(weightSpecs(specs).every((spec) => dtype(spec) === "BF16"));
  assert.deepEqual(notes, []);
});

Deno.test("encodeColumns() encodes the transpose of the rows that it reads", async () => {
  const [N, K] = [3, 64];
  for (const dtype of ["Q8_0", "Q4_1"] satisfies WeightDtype[]) {
    const weight = randomNumbers(N * K, 1); // [N, K]
    const fill = (row: number, count: number, into: Uint8Array) => {
      const rows = Float32Array.from(
        { length: count * N },
        (_, i) => weight[(i % N) * K + row + Math.floor(i / N)],
      );
      into.set(bytesOf(rows));
    };
    const rows = await encodeColumns(fill, [N, K], dtype);
    const rowBytes = K / FORMATS[dtype].block * FORMATS[dtype].bytes;
    const encoded = new Uint8Array(2 * rowBytes);
    await rows(1, 2, encoded);
    assert.deepEqual(encoded, (narrow(weight, dtype) as Uint8Array).subarray(rowBytes));
  }
});
