import assert from "node:assert/strict";
import { BYTES, FORMATS, numbersIn, storedBytes, wordsOf } from "../../../kernels/formats/mod.ts";
import {
  ORDER_16,
  ORDER_32,
  PANEL_COLUMNS,
  panelLayout,
  panelStreams,
} from "../../../kernels/formats/panels.ts";
import { bytesOf } from "../../../kernels/tensor.ts";

const DTYPES = ["F32", "F16", "BF16"] as const;

Deno.test("places permute the bits of a column's index", () => {
  for (const { places } of [ORDER_32, ORDER_16]) {
    assert.deepEqual([...places].sort((a, b) => a - b), [...Array(PANEL_COLUMNS).keys()]);
    for (const [column, place] of places.entries()) {
      const bits = [1, 2, 4, 8].filter((bit) => column & bit);
      assert.equal(place, bits.reduce((sum, bit) => sum | places[bit], 0));
    }
  }
});

Deno.test("panelLayout() splits 16-bit panels into quarters when K is a multiple of 16", () => {
  const shape = [40, 32] as const; // three panels
  assert.deepEqual(panelLayout(shape, ORDER_32), {
    parts: 1,
    inputs: 32,
    pitch: 64 * 32,
    apart: 3 * 64 * 32,
  });
  assert.deepEqual(panelLayout(shape, ORDER_16), {
    parts: 4,
    inputs: 8,
    pitch: 8 * 32,
    apart: 3 * 8 * 32,
  });
  assert.deepEqual(panelLayout([40, 30], ORDER_16), {
    parts: 1,
    inputs: 30,
    pitch: 32 * 30,
    apart: 3 * 32 * 30,
  });
});

Deno.test("panelStreams() begins a stream at each quarter of a panel, in one part or four", () => {
  const quarter = 8 * PANEL_COLUMNS;
  assert.deepEqual(panelStreams([40, 32], ORDER_32), {
    length: 8,
    starts: [0, 1, 2, 3].map((i) => 4 * i * quarter),
  });
  const { apart } = panelLayout([40, 32], ORDER_16);
  assert.deepEqual(panelStreams([40, 32], ORDER_16), {
    length: 8,
    starts: [0, apart, 2 * apart, 3 * apart],
  });
});

for (const dtype of DTYPES) {
  const { bytes, block, view, decode, encode } = FORMATS[dtype];

  Deno.test(`encode() and decode() stay within views of a larger buffer (${dtype})`, () => {
    const values = Float32Array.of(9, 0.5, -2, 384, 9).subarray(1, 4);
    const buffer = new Uint8Array(16 + 3 * bytes).fill(0xaa);
    const stored = buffer.subarray(8, 8 + 3 * bytes);
    encode!(stored, values);
    assert.deepEqual([...buffer.subarray(0, 8)], Array(8).fill(0xaa));
    assert.deepEqual([...buffer.subarray(8 + 3 * bytes)], Array(8).fill(0xaa));
    const numbers = new Float32Array(5);
    decode(numbers.subarray(1, 4), stored);
    assert.deepEqual([...numbers], [0, 0.5, -2, 384, 0]);
    if (view) assert.deepEqual(view(stored), values);
  });

  Deno.test(`storedBytes() and numbersIn() are inverse (${dtype})`, () => {
    assert.equal(storedBytes(dtype, 6 * block), 6 * bytes);
    assert.equal(numbersIn(dtype, 6 * bytes), 6 * block);
    const words = wordsOf(dtype, bytesOf(new Float32Array(6)));
    assert.equal(words.BYTES_PER_ELEMENT, BYTES[dtype]);
    assert.equal(words.length, 24 / bytes);
  });
}
