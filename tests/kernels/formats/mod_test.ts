import assert from "node:assert/strict";
import fc from "../../fast_check.ts";
import { BYTES, hostArray, narrow, type WeightDtype, widen } from "../../../kernels/formats/mod.ts";
import type { Dtype } from "../../../kernels/tensor.ts";
import { readJson } from "../../testing.ts";

interface TensorCase {
  readonly op: "narrow" | "widen";
  readonly dtype: "F16" | "BF16";
  /** Bits of the F32 numbers. */
  readonly f32: readonly number[];
  /** Bits of the stored numbers. */
  readonly stored: readonly number[];
}

for (const { op, dtype, f32, stored } of readJson<TensorCase[]>("kernels/tensor.json")) {
  Deno.test(`${op}() returns torch's bits for ties, subnormals, infinities, -0 (${dtype})`, () => {
    if (op === "narrow") {
      const values = new Float32Array(Uint32Array.from(f32).buffer);
      assert.deepEqual(narrow(values, dtype), Uint16Array.from(stored));
    } else {
      assert.deepEqual(bitsOf(widenAll(Uint16Array.from(stored), dtype)), Uint32Array.from(f32));
    }
  });
}

/** Every bit pattern of 16 bits. */
const ALL = Uint16Array.from({ length: 1 << 16 }, (_, bits) => bits);
/** The number of every bit pattern. */
const NUMBERS = { F16: widenAll(ALL, "F16"), BF16: widenAll(ALL, "BF16") };

for (const dtype of ["F16", "BF16"] as const) {
  const numbers = NUMBERS[dtype];
  // NaN: exponent all ones, mantissa not zero
  const nans = { F16: 2046, BF16: 254 }[dtype];

  Deno.test(`narrow() inverts widen() for all 65536 patterns of ${dtype}`, () => {
    const back = narrow(numbers, dtype);
    let count = 0;
    for (let bits = 0; bits < ALL.length; bits++) {
      if (Number.isNaN(numbers[bits])) {
        count++;
        assert.ok(Number.isNaN(numbers[back[bits]]), `NaN ${bits.toString(16)} stays NaN`);
      } else {
        assert.equal(back[bits], bits);
      }
    }
    assert.equal(count, nans);
  });

  Deno.test(`narrow() rounds any F32 to the nearest ${dtype}, ties to even`, () => {
    // Patterns of one sign have the order of their numbers, so the neighbours of a number are the
    // patterns ±1.
    const infinity = numbers.indexOf(Infinity);
    fc.assert(
      fc.property(fc.float({ noNaN: true, noDefaultInfinity: true }), (x) => {
        const [bits] = narrow(new Float32Array([x]), dtype);
        const magnitude = bits & 0x7fff;
        assert.equal(bits >>> 15, x < 0 || Object.is(x, -0) ? 1 : 0);
        // The pattern after the largest finite number is infinity: rounding compares with the value
        // that the pattern would have.
        const value = (at: number): number =>
          at === infinity ? 2 * numbers[infinity - 1] - numbers[infinity - 2] : numbers[at];
        const distance = (at: number): number => Math.abs(Math.abs(x) - value(at));
        for (const neighbour of [magnitude - 1, magnitude + 1]) {
          if (neighbour < 0 || neighbour > infinity) continue;
          if (magnitude === infinity && Math.abs(x) >= value(infinity)) continue;
          const [here, there] = [distance(magnitude), distance(neighbour)];
          assert.ok(here < there || here === there && magnitude % 2 === 0, `${x} as ${bits}`);
        }
      }),
      { numRuns: 20000, seed: 1 },
    );
  });

  Deno.test(`widen() reads from \`start\` of a view of a larger buffer (${dtype})`, () => {
    const data = Uint16Array.from([0xdead, 1, 0x3c00, 0xbf80, 0x4200, 0xdead]).subarray(1, 5);
    const into = new Float32Array(4).fill(-1).subarray(1);
    widen(into, data, dtype, 1, 2);
    assert.deepEqual([...into], [numbers[0x3c00], numbers[0xbf80], -1]);
  });
}

Deno.test("narrow() keeps a NaN when BF16 rounding would carry it to infinity or zero", () => {
  const nans = Uint32Array.of(0x7fffffff, 0xffffffff, 0x7f800001, 0xff800001, 0x7fc00000);
  for (const dtype of ["F16", "BF16"] as const) {
    const stored = narrow(new Float32Array(nans.buffer), dtype);
    for (const bits of stored) assert.ok(Number.isNaN(NUMBERS[dtype][bits]), `${dtype} ${bits}`);
  }
});

Deno.test("widen() copies numbers that are F32", () => {
  const into = new Float32Array(3);
  widen(into, new Float32Array([1, -0, 0.1, NaN]), "F32", 1, 3);
  assert.deepEqual(into, new Float32Array([-0, 0.1, NaN]));
});

Deno.test("hostArray() is zeroed and has BYTES[dtype] bytes per element", () => {
  const kinds = {
    F32: Float32Array,
    F16: Uint16Array,
    BF16: Uint16Array,
    I32: Int32Array,
    U32: Uint32Array,
  };
  for (const dtype of Object.keys(kinds) as Dtype[]) {
    const array = hostArray(dtype, 5);
    assert.deepEqual(array, new kinds[dtype](5));
    assert.equal(array.byteLength, 5 * BYTES[dtype]);
  }
});

function widenAll(bits: Uint16Array, dtype: WeightDtype): Float32Array<ArrayBuffer> {
  const into = new Float32Array(bits.length);
  widen(into, bits, dtype, 0, bits.length);
  return into;
}

function bitsOf(values: Float32Array<ArrayBuffer>): Uint32Array {
  return new Uint32Array(values.buffer);
}
