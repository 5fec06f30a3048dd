/**
 * Bound of the prefill in 8 bits over Q8_0, relative to F32, on one thread: register tiles of four
 * rows by two vectors of outputs over operands that a cache of the core holds.
 *
 * `deno run -A --v8-flags=--no-liftoff bench/int8_limits.ts`; medians of interleaved rounds.
 *
 *     F32              fused multiply-adds
 *     products         the kernel's integer products and their sums
 *     with scales      the same, and every 32 inputs the sums scaled and added in F32
 *
 * The code is that of `kernels/ops/matmul/wasm_block_rows.ts`; the whole product also unpacks
 * panels, quantises x, and stores.
 *
 * @module
 */
import { type FunctionBuilder, ints, ModuleBuilder } from "../kernels/asm/assembler.ts";
import { f32PairLoads } from "../kernels/asm/join.ts";
import { multiplyAdd } from "../kernels/asm/math.ts";
import { LINE } from "../kernels/formats/block_panels.ts";
import { wasmOf } from "../kernels/formats/mod.ts";
import { tileOf, unitProduct, wordDots } from "../kernels/ops/matmul/wasm_block_rows.ts";
import { TILE_COLUMNS } from "../kernels/ops/matmul/wasm_epilogue.ts";
import { TILE_ROWS, unitsOf } from "../kernels/ops/matmul/wasm_units.ts";
import { interleave } from "./measuring.ts";

/** Inputs of a tile; its operands take 20 KiB at most. */
const K = 256;
const COLUMNS = TILE_COLUMNS["128"];
/** Addresses of the results, of x, and of the weights. */
const [OUT, X, W] = [2048, 4096, 65536];
const TILES = 4000;

const madd = multiplyAdd(true);
const units = unitsOf(wasmOf("Q8_0").blocks!, { relaxed: true, activations: "int8" });

type Tile = ReturnType<typeof tileOf>;

/** A form: emits the product of a unit of 32 inputs, of `xBytes` and `wBytes`. */
interface Form {
  readonly xBytes: number;
  readonly wBytes: number;
  readonly unit: (f: FunctionBuilder, tile: Tile) => () => void;
}

const OF_UNIT = { xBytes: units.x.bytes, wBytes: units.panelBytes };
const FORMS = {
  "F32": {
    xBytes: 4 * TILE_ROWS * units.inputs,
    wBytes: LINE * units.inputs,
    unit: (_f, { sums, weights, loadLine, eachRow }) => () => {
      for (let line = 0; line < units.inputs; line++) {
        loadLine(line);
        eachRow(line, (x, first) => {
          for (const [j, w] of weights.entries()) {
            sums[first + j].set(madd(w, x, sums[first + j]));
          }
        });
      }
    },
  },
  "products": { ...OF_UNIT, unit: (_f, tile) => wordDots(tile, units, tile.sums) },
  "with scales": { ...OF_UNIT, unit: (f, tile) => unitProduct(f, { madd }, tile, units) },
} satisfies Record<string, Form>;

/** Defines the product of K inputs of a tile, `count` times. */
function define(m: ModuleBuilder, name: string, { xBytes, wBytes, unit }: Form): void {
  const run = m.define(ints("count"), "void", (f, { count }) => {
    const { x, w, end } = f.locals(ints("x", "w", "end"));
    const sums = f.array("v128", "sum", TILE_ROWS * COLUMNS / 4);
    const multiply = unit(f, tileOf(f, { x, w, sums }, COLUMNS, f32PairLoads(f, "128")));
    f.while(count, () => {
      x.set(X);
      w.set(W);
      end.set(X + K / units.inputs * xBytes);
      f.while(x.lt(end), () => {
        multiply();
        x.advance(xBytes);
        w.advance(wBytes);
      });
      count.set(count.minus(1));
      // A result that nothing uses would not be computed.
      for (const [i, v] of sums.entries()) f.store(f.int(OUT), v, 16 * i);
    });
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
const count = TILES * TILE_ROWS * COLUMNS * K;
for (const [name, ms] of Object.entries(times)) {
  console.log(
    `${name.padEnd(12)} ${(count / ms / 1e6).toFixed(1)} multiply-adds per ns, ` +
      `${(times.F32 / ms).toFixed(2)} of F32`,
  );
}
