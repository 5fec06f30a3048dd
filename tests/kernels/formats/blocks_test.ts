import assert from "node:assert/strict";
import {
  dtypeForRows,
  dtypeOf,
  FORMATS,
  isBlocked,
  narrow,
  numbersIn,
  storedBytes,
  type WeightDtype,
} from "../../../kernels/formats/mod.ts";
import { randomNumbers, readJson } from "../../testing.ts";

/** What gguf-py makes of the same numbers and bytes; `make_blocks.py` writes it. */
interface BlockCases {
  /** Bits of the F32 numbers. */
  readonly values: readonly number[];
  readonly blocks: Readonly<
    Record<string, { encoded: string; stored: string; decoded: readonly number[] }>
  >;
}

const { values, blocks } = readJson<BlockCases>("kernels/blocks.json");
const NUMBERS = new Float32Array(Uint32Array.from(values).buffer);

for (const [name, { encoded, stored, decoded }] of Object.entries(blocks)) {
  const dtype = name as WeightDtype;
  const { encode, decode } = FORMATS[dtype];

  Deno.test(`encode() returns gguf-py's bytes (${name})`, () => {
    const into = new Uint8Array(storedBytes(dtype, NUMBERS.length));
    encode!(into, NUMBERS);
    assert.equal(into.toHex(), encoded);
  });

  Deno.test(`decode() returns gguf-py's numbers, bit for bit (${name})`, () => {
    const bytes = Uint8Array.fromHex(`ff${stored}ff`).subarray(1, -1); // at an odd offset
    const numbers = new Float32Array(numbersIn(dtype, bytes.length));
    decode(numbers, bytes);
    assert.deepEqual(new Uint32Array(numbers.buffer), Uint32Array.from(decoded));
  });

  Deno.test(`dtypeForRows() keeps ${name} for whole blocks and takes another for other rows`, () => {
    const { block } = FORMATS[dtype];
    assert.ok(isBlocked(dtype));
    assert.equal(dtypeForRows(dtype, 3 * block), dtype);
    assert.equal(dtypeForRows(dtype, 3 * block + 16), "F16");
  });
}

Deno.test("encode() of K types returns ggml's bytes", () => {
  const { values, blocks } = readJson<{ values: string; blocks: Record<string, string> }>(
    "kernels/k_blocks.json",
  );
  const numbers = new Float32Array(Uint8Array.fromHex(values).buffer);
  for (const [dtype, expected] of Object.entries(blocks)) {
    assert.equal((narrow(numbers, dtype as WeightDtype) as Uint8Array).toHex(), expected, dtype);
  }
});

/** Root mean square of the error over that of the numbers. */
function errorOf(dtype: WeightDtype, numbers: Float32Array): number {
  const decoded = new Float32Array(numbers.length);
  FORMATS[dtype].decode(decoded, narrow(numbers, dtype) as Uint8Array);
  const sum = (terms: Float32Array) => terms.reduce((total, v) => total + v * v, 0);
  return Math.sqrt(sum(decoded.map((v, i) => v - numbers[i])) / sum(numbers));
}

Deno.test("encode() of K types loses less than simple blocks of the same number of bits", () => {
  // Sums of four uniform numbers, about normal.
  const parts = [1, 2, 3, 4].map((seed) => randomNumbers(64 * 256, seed));
  const numbers = parts[0].map((_, i) => parts.reduce((sum, part) => sum + part[i], 0));
  assert.ok(errorOf("Q4_K", numbers) < errorOf("Q4_1", numbers));
  assert.ok(errorOf("Q5_K", numbers) < errorOf("Q5_1", numbers));
  assert.ok(errorOf("Q6_K", numbers) < errorOf("Q5_1", numbers) / 2);
  assert.ok(errorOf("Q8_0", numbers) < errorOf("Q6_K", numbers) / 2);
});

Deno.test("encode() of K types keeps zeros, equal numbers, and numbers of one sign", () => {
  for (const dtype of ["Q4_K", "Q5_K", "Q6_K"] as const) {
    for (const number of [0, 0.25, -0.25]) {
      const numbers = new Float32Array(256).fill(number);
      const decoded = new Float32Array(256).fill(9);
      FORMATS[dtype].decode(decoded, narrow(numbers, dtype) as Uint8Array);
      for (const v of decoded) assert.ok(Math.abs(v - number) < 1e-3, `${dtype} ${number}: ${v}`);
    }
  }
});

Deno.test("dtypeOf() gives the dtype of an alias, and any other name itself", () => {
  assert.deepEqual((["Q8", "Q4", "Q4_0", "F16"] as const).map(dtypeOf), [
    "Q8_0",
    "Q4_1",
    "Q4_0",
    "F16",
  ]);
});
