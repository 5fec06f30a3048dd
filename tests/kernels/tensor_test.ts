import assert from "node:assert/strict";
import { bytesOf, sizeOf } from "../../kernels/tensor.ts";

Deno.test("sizeOf() multiplies the extents when there are several, one or none", () => {
  assert.equal(sizeOf([2, 3, 4]), 24);
  assert.equal(sizeOf([7]), 7);
  assert.equal(sizeOf([]), 1);
  assert.equal(sizeOf([5, 0]), 0);
});

Deno.test("bytesOf() shares the memory of the array when it is a view", () => {
  const data = Uint16Array.of(1, 0x0203, 4).subarray(1, 2);
  const bytes = bytesOf(data);
  assert.deepEqual([...bytes], [3, 2]);
  bytes[0] = 9;
  assert.equal(data[0], 0x0209);
});
