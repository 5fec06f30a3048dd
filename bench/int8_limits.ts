/**
 * Bound of the prefill in 8 bits over Q8_0, relative to F32, on one thread: register tiles of four
 * rows by two vectors of outputs over operands that a cache of the core holds.
 *
 * `deno run -A --v8-flags=--no-liftoff bench/int8_limits.ts`; medians of interleaved rounds.
 *
 *     F32              fused multiply-adds
 *     products         16-bit products in pairs and their sums, with loads and shuffles
 *     with scales      the same, and every 32 inputs the sums scaled and added in F32
 *
 * These are the operations of `kernels/ops/matmul/wasm_block_rows.ts`; the kernel also unpacks
 * panels, quantises x, and stores.
 *
 * @module
 */
import { f32x4, i32x4, ints, ModuleBuilder, v128, vectors } from "../kernels/asm/assembler.ts";
import type { FunctionBuilder, Int, Local } from "../kernels/asm/assembler.ts";
import { spread } from "../kernels/asm/lanes.ts";
import { multiplyAdd } from "../kernels/asm/math.ts";
import { interleave } from "./measuring.ts";

/** A tile: rows, vectors of four outputs, and inputs; its operands take 24 KiB at most. */
const [ROWS, VECTORS, K] = [4, 2, 512];
/** Inputs that share a scale. */
const BLOCK = 32;
/** Addresses of the results, of x, and of the weights. */
const [OUT, X, W] = [2048, 4096, 65536];
const TILES = 2000;

/** Calls `body` with a row's word, a vector of a line, and the index of their sum. */
type Each = (
  line: number,
  body: (x: Local<"v128">, w: Local<"v128">, sum: number) => void,
) => void;

function tileOf(f: FunctionBuilder, x: Local<Int>, w: Local<Int>): Each {
  const { four, one } = f.locals(vectors("four", "one"));
  const weights = f.array("v128", "weight", VECTORS);
  return (line, body) => {
    for (const [j, v] of weights.entries()) v.set(v128.load(w, 16 * (VECTORS * line + j)));
    four.set(v128.load(x, 16 * line));
    for (let row = 0; row < ROWS; row++) {
      one.set(spread(four, row));
      for (const [j, v] of weights.entries()) body(one, v, VECTORS * row + j);
    }
  };
}

/** Lines of 32 inputs: F32 has one per input, products one per pair, and one of scales. */
interface Form {
  readonly lines: number;
  readonly products: boolean;
  readonly scales: boolean;
}
const FORMS = {
  "F32": { lines: BLOCK, products: false, scales: false },
  "products": { lines: BLOCK / 2, products: true, scales: false },
  "with scales": { lines: BLOCK / 2, products: true, scales: true },
} satisfies Record<string, Form>;

/** Defines the product of K inputs of a tile, `count` times. */
function define(m: ModuleBuilder, name: string, { lines, products, scales }: Form): void {
  const madd = multiplyAdd(true);
  const step = lines + Number(scales);
  const run = m.define(ints("count"), "void", (f, { count }) => {
    const { x, w, end } = f.locals(ints("x", "w", "end"));
    const sums = f.array("v128", "sum", ROWS * VECTORS);
    const dots = f.array("v128", "dot", ROWS * VECTORS);
    const eachOf = tileOf(f, x, w);
    f.while(count, () => {
      x.set(X);
      w.set(W);
      end.set(X + K / BLOCK * step * 16);
      f.while(x.lt(end), () => {
        for (let line = 0; line < lines; line++) {
          eachOf(line, (x, w, i) => {
            if (!products) return sums[i].set(madd(w, x, sums[i]));
            const dot = i32x4.dotI16x8S(w, x);
            dots[i].set(scales && line === 0 ? dot : i32x4.add(dots[i], dot));
          });
        }
        if (scales) {
          eachOf(lines, (x, w, i) => {
            sums[i].set(madd(f32x4.convertI32x4S(dots[i]), w.times(x), sums[i]));
          });
        }
        x.advance(16 * step);
        w.advance(16 * VECTORS * step);
      });
      count.set(count.minus(1));
    });
    // A result that nothing uses would not be computed.
    for (const [i, v] of [...sums, ...dots].entries()) f.store(f.int(OUT), v, 16 * i);
  });
  m.export(name, run);
}

const m = new ModuleBuilder({ pages: 2 });
for (const [name, form] of Object.entries(FORMS)) define(m, name, form);
const memory = new WebAssembly.Memory({ initial: 2 });
new Float32Array(memory.buffer).fill(1);
const { instance } = await WebAssembly.instantiate(m.toBytes(), { env: { memory } });
const calls = instance.exports as Record<keyof typeof FORMS, (count: number) => void>;
const times = await interleave({
  "F32": () => calls.F32(TILES),
  "products": () => calls.products(TILES),
  "with scales": () => calls["with scales"](TILES),
});
const count = TILES * ROWS * 4 * VECTORS * K;
for (const [name, ms] of Object.entries(times)) {
  console.log(
    `${name.padEnd(12)} ${(count / ms / 1e6).toFixed(1)} multiply-adds per ns, ` +
      `${(times.F32 / ms).toFixed(2)} of F32`,
  );
}
