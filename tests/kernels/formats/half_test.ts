import assert from "node:assert/strict";
import { computedHalves, HALVES } from "../../../kernels/formats/half.ts";

const computed = computedHalves();

/** Every F16, finite and not. */
const BITS = Uint16Array.from({ length: 1 << 16 }, (_, bits) => bits);

Deno.test("computedHalves() reads every F16 as the runtime does, in both byte orders", () => {
  const view = new DataView(new ArrayBuffer(2));
  for (const bits of BITS) {
    for (const littleEndian of [true, false]) {
      view.setUint16(0, bits, littleEndian);
      const expected = view.getFloat16(0, littleEndian);
      assert.ok(Object.is(computed.get(view, 0, littleEndian), expected), `${bits}`);
      assert.ok(Object.is(HALVES.get(view, 0, littleEndian), expected), `${bits}`);
    }
  }
});

Deno.test("computedHalves() rounds as the runtime does: ties, neighbours of ties, overflow", () => {
  const one = new Float16Array(1);
  const numbers = new Float16Array(BITS.buffer);
  const check = (x: number) => {
    one[0] = x;
    assert.ok(Object.is(computed.round(x), one[0]), `${x}: ${computed.round(x)}, not ${one[0]}`);
  };
  for (let bits = 0; bits < 0x7c00; bits++) {
    const next = bits === 0x7bff ? 65536 : numbers[bits + 1];
    const tie = (numbers[bits] + next) / 2;
    for (const x of [tie, tie * (1 + 2 ** -52), tie * (1 - 2 ** -53)]) {
      check(x);
      check(-x);
    }
  }
  const others = [0, -0, NaN, Infinity, -Infinity, 65519.99, 65520, 1e300, 5e-324, 2 ** -25];
  others.forEach(check);
});

Deno.test("both forms widen and narrow the same bits, and set the same bytes", () => {
  const values = Float32Array.from(BITS, (bits) => (bits - 30_000.3) / 7);
  const [a, b] = [HALVES, computed].map((halves) => {
    const bytes = new Uint8Array(2 * values.length);
    halves.narrow(bytes, values);
    halves.set(new DataView(bytes.buffer), 6, 1 / 3);
    const widened = new Float32Array(values.length);
    halves.widen(widened, bytes);
    return { bytes, widened };
  });
  assert.deepEqual(a, b);
  assert.ok(Math.abs(a.widened[3] - 1 / 3) < 1e-4);
});
