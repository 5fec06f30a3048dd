import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createHasher, PlainHasher } from "../../../engine/host/hash.ts";

Deno.test("PlainHasher equals the crypto module for every length and cut around a block", () => {
  const bytes = Uint8Array.from({ length: 300 }, (_, i) => i * 37);
  for (const name of ["sha1", "sha256"] as const) {
    for (let length = 0; length < 200; length++) {
      const message = bytes.subarray(0, length);
      const expected = createHash(name).update(message).digest("hex");
      const cut = length * 7 % (length + 1);
      for (const hasher of [new PlainHasher(name), createHasher(name)]) {
        hasher.update(message.subarray(0, cut));
        hasher.update(message.subarray(cut));
        assert.equal(hasher.digest(), expected, `${name} of ${length} bytes`);
      }
    }
  }
});
