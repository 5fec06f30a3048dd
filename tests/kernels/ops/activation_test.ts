import assert from "node:assert/strict";
import fc from "../../fast_check.ts";
import { type Activation, ACTIVATIONS, erf } from "../../../kernels/ops/activation.ts";
import { assertClose, readJson, TOLERANCE } from "../../testing.ts";

/** Numbers, or the names of those that JSON cannot represent. */
interface Numbers {
  readonly data: readonly (number | string)[];
}

interface ActivationCase {
  readonly name: "erf" | Activation;
  readonly x: Numbers;
  readonly expected: Numbers;
  /** Zeros, infinities and NaN. */
  readonly special: Numbers;
  readonly expectedSpecial: Numbers;
}

for (const golden of readJson<ActivationCase[]>("kernels/activation.json")) {
  const { name, x, expected, special, expectedSpecial } = golden;
  const f = name === "erf" ? erf : ACTIVATIONS[name];
  Deno.test(`${name}() agrees with torch in F64 when x is in [-7, 7], tiny or large`, () => {
    assertClose(x.data.map(Number).map(f), expected.data.map(Number), TOLERANCE.double, name);
  });
  Deno.test(`${name}() agrees with torch when x is zero, infinite or NaN`, () => {
    assert.deepEqual(special.data.map(Number).map(f), expectedSpecial.data.map(Number));
  });
}

Deno.test("erf() is odd and never falls when x is any number", () => {
  const x = fc.double({ min: -7, max: 7, noNaN: true });
  fc.assert(
    fc.property(x, x, (a, b) => {
      assert.equal(erf(-a), -erf(a));
      assert.ok(erf(Math.min(a, b)) <= erf(Math.max(a, b)) + TOLERANCE.double.atol);
    }),
    { numRuns: 2000, seed: 1 },
  );
});
