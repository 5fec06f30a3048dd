import assert from "node:assert/strict";
import type { ByteSource } from "../../engine/checkpoint/bytes.ts";
import { readSafetensorsHeader } from "../../engine/checkpoint/safetensors.ts";
import { CheckpointError } from "../../engine/errors.ts";
import { threefry } from "../../kernels/sample/mod.ts";
import { fixture } from "../testing.ts";

/** A file in memory that counts what is asked of it. */
function source(bytes: Uint8Array): ByteSource {
  return {
    name: "mutant",
    size: bytes.length,
    read: (offset, into) => {
      if (offset + into.length > bytes.length) throw new CheckpointError("beyond the end");
      into.set(bytes.subarray(offset, offset + into.length));
      return Promise.resolve();
    },
    [Symbol.dispose]: () => {},
  };
}

Deno.test("readSafetensorsHeader() ends every one of 20,000 mutants in tensors within the file or in CheckpointError", async () => {
  const file = await Deno.readFile(fixture("labcore/learned/model.safetensors"));
  const headerEnd = 8 + Number(new DataView(file.buffer).getBigUint64(0, true));
  const digits = new TextEncoder().encode('0123456789-.,:[]{}"\\e ');
  let refused = 0;
  for (let mutant = 0; mutant < 20_000; mutant++) {
    const draw = (n: number, below: number) => threefry(mutant, n, 0, 0) % below;
    let bytes = file.slice();
    for (let n = 0; n <= draw(0, 3); n++) {
      const at = draw(10 * n + 1, headerEnd);
      // Mostly what JSON is made of, so that mutants get past the parser; now and then any byte.
      bytes[at] = draw(10 * n + 2, 4)
        ? digits[draw(10 * n + 3, digits.length)]
        : draw(10 * n + 4, 256);
    }
    if (draw(5, 10) === 0) bytes = bytes.slice(0, draw(6, bytes.length));
    const start = performance.now();
    try {
      const { tensors } = await readSafetensorsHeader(source(bytes));
      for (const { name, offset, byteLength } of tensors.values()) {
        assert.ok(offset >= 8 && offset + byteLength <= bytes.length, `mutant ${mutant}: ${name}`);
      }
    } catch (error) {
      assert.ok(error instanceof CheckpointError, `mutant ${mutant}: ${error}`);
      assert.ok(!error.message.includes("\n"), `mutant ${mutant}: ${error.message}`);
      refused++;
    }
    assert.ok(performance.now() - start < 1000, `mutant ${mutant} took over a second`);
  }
  assert.ok(refused > 10_000, `only ${refused} were refused: the mutants do not reach the checks`);
});
