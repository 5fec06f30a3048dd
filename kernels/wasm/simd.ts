/**
 * Width of vectors: 128 bits, or 256 where V8 joins pairs (`asm/join.ts`), found by a probe.
 *
 *     V8's flags                                                     kernels
 *     none of them                                                   128
 *     --experimental-wasm-revectorize                                256, or 128 with a note
 *     --experimental-wasm-revectorize --no-wasm-bounds-checks        256, unchecked, or an error
 *
 * The flags are internal to V8, and joining needs AVX2 and V8's optimising compiler (`--no-liftoff`
 * makes it compile first). So one register tile of matmul is timed in both forms, and their bits
 * are compared. Without bounds checks a process that gains nothing must not go on.
 *
 * @module
 */
import { call, ints, ModuleBuilder } from "../asm/assembler.ts";
import type { Simd } from "../asm/join.ts";
import { VectorMath } from "../asm/math.ts";
import { DeviceError } from "../errors.ts";
import { storeWasm } from "../ops/matmul/wasm_epilogue.ts";
import { packWasm, rowsWasm } from "../ops/matmul/wasm_rows.ts";

/** Flags of V8, as it spells them. */
const [JOIN, CHECK] = ["experimental-wasm-revectorize", "wasm-bounds-checks"];

/** Minimum gain of a tile: a joined one measured 1.4 to 1.9, one that is not joined 0.4 to 0.7. */
const LEAST_GAIN = 1.15;

/**
 * Tiles of a timing (about 0.1 ms), and fewest and most timings of each form. The fastest counts:
 * other programs only slow a run down, and may do so for a while.
 */
const [TILES, LEAST_TIMINGS, MOST_TIMINGS] = [100, 7, 200];

/** The probed tile. */
const [T, N, K] = [5, 16, 256];
/** Addresses of the probe's operands. */
const [W, X, PACKED, Y] = [4096, 32768, 49152, 61440];

/** Result of the probe, with a note for the user. */
export interface FoundSimd {
  readonly simd: Simd;
  readonly note?: string;
}

/** The results by form, cached for the process. */
const known = new Map<string, Promise<boolean>>();

/**
 * Chooses the width.
 * @param flags flags that V8 was started with; empty if they are unknown.
 * @throws {DeviceError} If bounds are not checked, and 256 bits are not faster or not equal.
 */
export async function findSimd(flags: readonly string[], relaxed: boolean): Promise<FoundSimd> {
  const joins = flagOf(flags, JOIN) ?? false;
  if (checksBounds(flags)) {
    if (!joins) return { simd: "128" };
    if (await holds("256", relaxed)) return { simd: "256" };
    const note = `simd 128: --${JOIN} gains nothing here; it needs --no-liftoff and AVX2`;
    return { simd: "128", note };
  }
  if (joins && await holds("256, unchecked", relaxed)) {
    return { simd: "256, unchecked", note: "simd 256, unchecked: no bounds checks in WebAssembly" };
  }
  throw new DeviceError(
    `Cannot open "wasm" with --no-${CHECK}: expected --${JOIN}, --no-liftoff and a processor ` +
      `with AVX2, which together make it faster, got no gain; start without --no-${CHECK}`,
  );
}

/** Whether V8, started with these flags, checks the bounds of accesses to memory. */
export function checksBounds(flags: readonly string[]): boolean {
  return flagOf(flags, CHECK) !== false;
}

/** A boolean flag's last value; undefined if it is not given. V8 also takes `_` and `=false`. */
function flagOf(flags: readonly string[], name: string): boolean | undefined {
  let value: boolean | undefined;
  for (const flag of flags) {
    const [, no, spelled, set] = /^--?(no-?)?([^=]*)(=.*)?$/.exec(flag.replaceAll("_", "-")) ?? [];
    if (spelled === name) value = !no && !/^=(false|0)$/.test(set ?? "");
  }
  return value;
}

/** Whether a tile of this width is faster than one of 128 bits, with the same results. */
function holds(simd: Simd, relaxed: boolean): Promise<boolean> {
  const key = `${simd} ${relaxed}`;
  const found = known.get(key) ?? probe(simd, relaxed);
  known.set(key, found);
  return found;
}

async function probe(simd: Simd, relaxed: boolean): Promise<boolean> {
  const [narrow, wide] = await Promise.all([tileOf("128", relaxed), tileOf(simd, relaxed)]);
  const [narrowBits, wideBits] = [narrow, wide].map(({ bits }) => bits);
  if (!narrowBits.every((word, i) => word === wideBits[i])) return false;
  let [narrowMs, wideMs] = [Infinity, Infinity];
  for (let timing = 1; timing <= MOST_TIMINGS; timing++) {
    narrowMs = Math.min(narrowMs, narrow.time());
    wideMs = Math.min(wideMs, wide.time());
    if (timing >= LEAST_TIMINGS && narrowMs >= LEAST_GAIN * wideMs) return true;
  }
  return false;
}

/** A tile of matmul: its results, and the milliseconds of `TILES` calls. */
async function tileOf(simd: Simd, relaxed: boolean) {
  const m = new ModuleBuilder({ pages: 1 });
  const math = new VectorMath(m, relaxed, simd);
  const precision = { relaxed, simd, activations: "exact" } as const;
  const columns = { width: N, first: 0 };
  const shape = { T, N, K, dtype: "F32", ...precision, options: {}, columns } as const;
  const pack = packWasm(m, K);
  const product = rowsWasm(m, math, storeWasm(m, math, shape), shape);
  const run = m.define(ints("count"), "void", (f, { count }) => {
    f.do(call(pack, { to: PACKED, x: X, rows: T }));
    const operands = { y: Y, x: PACKED, w: W, bias: 0, gate: 0, left: N, rows: T };
    f.while(count, () => {
      f.do(call(product, operands));
      count.set(count.minus(1));
    });
  });
  m.export("run", run);
  const memory = new WebAssembly.Memory({ initial: 1 });
  const numbers = (address: number, count: number) =>
    new Float32Array(memory.buffer, address, count);
  for (const [at, values] of [[W, numbers(W, K * N)], [X, numbers(X, T * K)]] as const) {
    for (let i = 0; i < values.length; i++) values[i] = Math.sin(at + i);
  }
  const module = await WebAssembly.compile(m.toBytes());
  const { exports } = await WebAssembly.instantiate(module, { env: { memory } });
  const calls = exports.run as (count: number) => void;
  const time = () => {
    const start = performance.now();
    calls(TILES);
    return performance.now() - start;
  };
  time();
  return { time, bits: new Uint32Array(memory.buffer, Y, T * N) };
}
