import assert from "node:assert/strict";
import { activateWasm, type Activation, ACTIVATIONS } from "../../../kernels/ops/activation.ts";
import { call, ints, ModuleBuilder, v128, vectors } from "../../../kernels/asm/assembler.ts";
import { VectorMath } from "../../../kernels/asm/math.ts";
import { assertClose, TOLERANCE } from "../../testing.ts";

/** Compiles each function as a loop over the F32 of the memory, in place from byte 0 on. */
async function open(relaxed: boolean) {
  const m = new ModuleBuilder();
  const math = new VectorMath(m, relaxed);
  const activation = (name: Activation) =>
    m.define(vectors("x"), "v128", (f, { x }) => activateWasm(f, math, name, x));
  const funcs = {
    exp: m.define(vectors("x"), "v128", (_, { x }) => math.exp(x)),
    exp2: m.define(vectors("x"), "v128", (f, { x }) => math.exp2(f, x)),
    tanh: m.define(vectors("x"), "v128", (_, { x }) => math.tanh(x)),
    gelu: activation("gelu"),
    geluTanh: activation("geluTanh"),
    silu: activation("silu"),
    relu: activation("relu"),
  };
  for (const [name, func] of Object.entries(funcs)) {
    const each = m.define(ints("end"), "void", (f, { end }) => {
      const at = f.local("i32", "at");
      f.for(at, 0, end, 16, () => f.store(at, call(func, { x: v128.load(at) })));
    });
    m.export(name, each);
  }
  const memory = new WebAssembly.Memory({ initial: 256 });
  const { instance } = await WebAssembly.instantiate(m.toBytes(), { env: { memory } });
  return (name: keyof typeof funcs, xs: Float32Array): Float32Array => {
    const view = new Float32Array(memory.buffer, 0, xs.length);
    view.set(xs);
    (instance.exports[name] as (end: number) => void)(4 * Math.ceil(xs.length / 4) * 4);
    return view.slice();
  };
}

/** Evaluators with separate and with fused multiply-adds. */
const EVALUATORS = [await open(false), await open(true)];

/** Finite F32 of both signs whose bits are multiples of a stride. */
function sampleNumbers(stride: number): Float32Array {
  const bits: number[] = [];
  for (let b = 0; b < 0x7f800000; b += stride) bits.push(b, b | 0x80000000);
  return new Float32Array(Uint32Array.from(bits).buffer);
}

/** Error of an F32, in units in the last place of the exact value. */
function ulp(actual: number, exact: number): number {
  if (Object.is(Math.fround(exact), actual)) return 0;
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(exact))), -126);
  return Math.abs(actual - exact) / 2 ** (exponent - 23);
}

const NUMBERS = sampleNumbers(16381);

const FUNCTIONS = {
  exp: { exact: Math.exp, limit: 2 },
  tanh: { exact: Math.tanh, limit: 3 },
} as const;

for (const [name, { exact, limit }] of Object.entries(FUNCTIONS)) {
  Deno.test(`${name}() is within ${limit} ulp at arguments of every exponent (wasm)`, () => {
    for (const evaluate of EVALUATORS) {
      const ys = evaluate(name as keyof typeof FUNCTIONS, NUMBERS);
      let [worst, at] = [0, 0];
      for (const [i, y] of ys.entries()) {
        const distance = ulp(y, exact(NUMBERS[i]));
        if (!(distance <= worst)) [worst, at] = [distance, NUMBERS[i]];
      }
      assert.ok(worst <= limit, `${worst} ulp at ${at}`);
    }
  });
}

Deno.test("exp2() is within 3 ulp, or 0 near 2⁻¹²⁶ and below, for x ≤ 128 (wasm)", () => {
  const xs = NUMBERS.filter((x) => x <= 128);
  for (const evaluate of EVALUATORS) {
    for (const [i, y] of evaluate("exp2", xs).entries()) {
      const [x, exact] = [xs[i], 2 ** xs[i]];
      if (x <= -125.5 && y === 0) continue;
      assert.ok(ulp(y, exact) <= 3, `${y} at ${x}`);
    }
    const xs2 = new Float32Array([NaN, -Infinity, -3e38, -126, 0, 1, 127, 128]);
    assert.deepEqual([...evaluate("exp2", xs2)], [NaN, 0, 0, 0, 1, 2, 2 ** 127, Infinity]);
  }
});

Deno.test("activateWasm() agrees with the plain activations for |x| < 10⁴", () => {
  const xs = NUMBERS.filter((x) => Math.abs(x) < 1e4);
  for (const evaluate of EVALUATORS) {
    for (const name of Object.keys(ACTIVATIONS) as Activation[]) {
      const ys = evaluate(name, xs);
      // Error relative to max(1, |x|), which is what the following matmul sees.
      const size = xs.map((x) => Math.max(1, Math.abs(x)));
      const expected = Float64Array.from(xs, (x, i) => ACTIVATIONS[name](x) / size[i]);
      const got = Float64Array.from(ys, (y, i) => y / size[i]);
      assertClose(got, expected, TOLERANCE.vectorMath, name);
    }
  }
});

Deno.test("VectorMath returns NaN for NaN, and the limits of functions at infinity", () => {
  const xs = new Float32Array([NaN, Infinity, -Infinity, 0, -0, 3e38, -3e38, 1e-45]);
  for (const evaluate of EVALUATORS) {
    assert.deepEqual([...evaluate("exp", xs)], [NaN, Infinity, 0, 1, 1, Infinity, 0, 1]);
    const ys = Array.from(evaluate("tanh", xs), (y) => y + 0); // −0 becomes 0
    assert.deepEqual(ys.slice(0, 7), [NaN, 1, -1, 0, 0, 1, -1]);
    for (const name of Object.keys(ACTIVATIONS) as Activation[]) {
      const expected = Array.from(xs.subarray(0, 7), (x) => ACTIVATIONS[name](x));
      // `===` lets the signs of zeros differ: F64 and F32 reach zero and infinity at different
      // arguments.
      const ys = Array.from(
        evaluate(name, xs).subarray(0, 7),
        (y, i) => y === expected[i] ? expected[i] : y,
      );
      assert.deepEqual(ys, expected, name);
    }
  }
});
