/** Tensor types of GGUF files against gguf-py, bit for bit; `make_types.py` writes the fixtures. */
import assert from "node:assert/strict";
import { openCheckpoint } from "../../../../engine/checkpoint/checkpoint.ts";
import { TYPES } from "../../../../engine/checkpoint/gguf/types.ts";
import { STORED_FORMATS } from "../../../../kernels/formats/stored.ts";
import { fixture } from "../../../testing.ts";

/** A folder with more blocks than the fixtures. */
const FOLDER = Deno.env.get("WGSLM_GGUF_TYPES") ?? fixture("gguf");

for (const file of ["types", "types-big"]) {
  Deno.test(`read() decodes every type as gguf-py does, bit for bit (${file}.gguf)`, async () => {
    using golden = await openCheckpoint(`${FOLDER}/types.golden.safetensors`);
    using checkpoint = await openCheckpoint(`${FOLDER}/${file}.gguf`);
    const names = checkpoint.tensors().map(({ name, dtype }) => {
      assert.equal(dtype, name);
      return name;
    });
    assert.deepEqual(names.toSorted(), Object.values(TYPES).map(({ name }) => name).toSorted());
    for (const name of names) {
      const [actual, expected] = [await checkpoint.read(name), await golden.read(name)];
      assert.equal(actual.length, expected.length);
      const wrong = actual.findIndex((value, i) => !Object.is(value, expected[i]));
      assert.equal(wrong, -1, `${name}[${wrong}]: ${actual[wrong]}, expected ${expected[wrong]}`);
      assert.ok(new Set(actual).size > 4, name);
    }
  });
}

Deno.test("every number of a type lies within its block", () => {
  for (const { name, words } of Object.values(TYPES)) {
    for (const [at, bytes, count = 1] of words) {
      assert.ok(at + bytes * count <= STORED_FORMATS[name].bytes, name);
    }
  }
});
