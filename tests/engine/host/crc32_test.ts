import assert from "node:assert/strict";
import { crc32, tableCrc32 } from "../../../engine/host/crc32.ts";

Deno.test("crc32() returns the check value, also in pieces, by zlib and table", () => {
  const bytes = new TextEncoder().encode("123456789");
  for (const sum of [crc32, tableCrc32]) {
    assert.equal(sum(bytes), 0xcbf43926);
    assert.equal(sum(new Uint8Array()), 0);
    assert.equal(sum(bytes.subarray(4), sum(bytes.subarray(0, 4))), 0xcbf43926);
  }
});
