import assert from "node:assert/strict";
import {
  dtypeForRows,
  dtypeOf,
  FORMATS,
  isBlocked,
  numbersIn,
  storedBytes,
  type WeightDtype,
} from "../../../kernels/formats/mod.ts";
import { readJson } from "../../testing.ts";

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

Deno.test("dtypeOf() gives the dtype of an alias, and any other name itself", () => {
  assert.deepEqual((["Q8", "Q4", "Q4_0", "F16"] as const).map(dtypeOf), [
    "Q8_0",
    "Q4_1",
    "Q4_0",
    "F16",
  ]);
});
