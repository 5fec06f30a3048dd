/**
 * Machine limits of the WebAssembly backend (roofline): read bandwidth and multiply-add rate.
 *
 * Kernel times are compared with these limits. They are measured on the backend's thread pool, with
 * kernels that only read, or only multiply and add.
 *
 * @module
 */
import type { Segment } from "../step.ts";
import { bestPerSec, type DeviceLimits, type LimitMeter } from "../meter.ts";
import { type ComputeHost, WEB_HOST } from "../host.ts";
import { Memory, nudgeGc } from "../memory.ts";
import { call, ints, ModuleBuilder, v128, vectors } from "../asm/assembler.ts";
import { wasmFuses } from "./features.ts";
import type { Run } from "./control.ts";
import { defineKernel, type Items, type Kernel } from "../asm/kernel.ts";
import { multiplyAdd } from "../asm/math.ts";
import { LinearMemory } from "./memory.ts";
import { canShareMemory, canSleep, Pool } from "./pool.ts";
import { defineRun } from "./program.ts";
import { checksBounds } from "./simd.ts";

const STEP: Segment = { rows: 1, position: 0, slot: 0, length: 1 };

/** Default number of bytes to read: exceeds all but the largest caches. */
const READ_BYTES = 512 * 2 ** 20;
/** Bytes of a work item: about one panel of a weight. */
const ITEM_BYTES = 2 ** 16;

/** Work items of a multiply-add run, and rounds of twelve vectors per item. */
const [MADD_ITEMS, MADD_ROUNDS] = [64, 40_000];

/** A run whose time gives a limit. */
export interface LimitPlan {
  run(): void;
}

/** Bytes that `measureWasm` reads, and milliseconds of each of its two measurements. */
const [MEASURED_BYTES, MEASURED_MS] = [256 * 2 ** 20, 120];

/**
 * Measures the limits of `threads` threads, in about half a second.
 * @throws {DeviceError} If a thread does not start.
 */
export async function measureWasm(threads: number, host?: ComputeHost): Promise<DeviceLimits> {
  await using meter = await openWasmMeter(threads, { host, bytes: MEASURED_BYTES });
  return await meter.measure(MEASURED_MS);
}

/**
 * Opens a meter of the limits of `threads` threads: a pool and a memory of its own.
 * @param options platform, and bytes to read.
 * @throws {DeviceError} If a thread does not start.
 */
export async function openWasmMeter(
  threads: number,
  { host, bytes }: { readonly host?: ComputeHost; readonly bytes: number },
): Promise<LimitMeter> {
  const limits = await Limits.open(threads, host);
  try {
    const reading = await limits.reading(Math.ceil(bytes / ITEM_BYTES) * ITEM_BYTES);
    const multiplying = await limits.multiplying(wasmFuses());
    return {
      measure: async (ms) => ({
        readBytesPerSec: await bestPerSec(reading.run, reading.bytes, ms),
        flopsPerSec: await bestPerSec(multiplying.run, multiplying.operations, ms),
      }),
      [Symbol.asyncDispose]: () => limits[Symbol.asyncDispose](),
    };
  } catch (error) {
    await limits[Symbol.asyncDispose]();
    throw error;
  }
}

/** A thread pool and a memory to measure limits on. */
export class Limits implements AsyncDisposable {
  private constructor(readonly linear: LinearMemory, readonly pool: Pool) {}

  static async open(threads: number, host = WEB_HOST): Promise<Limits> {
    const simd = checksBounds(host.engineFlags?.() ?? []) ? "128" : "256, unchecked";
    const linear = new LinearMemory(new Memory(), canShareMemory(), simd);
    return new Limits(linear, await Pool.start(linear.wasm, linear.shared ? threads : 1, host));
  }

  /** A run that reads `bytes`, a multiple of `ITEM_BYTES`. */
  async reading(bytes = READ_BYTES): Promise<LimitPlan & { bytes: number }> {
    const block = this.linear.allocate(bytes, "staging");
    const sums = this.linear.allocate(16 * bytes / ITEM_BYTES, "staging");
    // Touch every page: the system maps untouched pages to one page of zeros.
    this.linear.view(block, "F32", 0, bytes / 4).fill(1);
    const items = { count: bytes / ITEM_BYTES, perRow: false };
    const run = await this.plan(
      [items],
      [block.address, sums.address],
      (m) => defineReading(m, bytes),
    );
    return { run, bytes };
  }

  /** A run of multiply-adds in registers, and its number of operations: two per multiply-add. */
  async multiplying(relaxed: boolean): Promise<LimitPlan & { operations: number }> {
    const sums = this.linear.allocate(16 * MADD_ITEMS, "staging");
    const items = { count: MADD_ITEMS, perRow: false };
    const run = await this.plan([items], [sums.address], (m) => defineMultiplying(m, relaxed));
    return { run, operations: 2 * 4 * 12 * MADD_ROUNDS * MADD_ITEMS };
  }

  /** A plan that calls one kernel once per element of `items`. */
  async plan(
    items: readonly Items[],
    operands: readonly number[],
    define: (m: ModuleBuilder) => Kernel,
  ): Promise<() => void> {
    const m = new ModuleBuilder(this.linear);
    const kernel = define(m);
    const entries = items.map((items) => ({ kernel, operands, items }));
    defineRun(m, entries, { threads: this.pool.threads, callerSleeps: canSleep() });
    const module = await WebAssembly.compile(m.toBytes());
    const env = { memory: this.linear.wasm };
    const program = (await WebAssembly.instantiate(module, { env })).exports.run as Run;
    const plan = await this.pool.load(module);
    return () => this.pool.run(plan, program, STEP);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pool.close();
    nudgeGc();
  }
}

/**
 * Streams read in parallel: memory serves several streams faster than one, and long streams faster
 * than short ones.
 */
const STREAMS = 8;

/**
 * Sums the vectors of an item: one piece of each stream. The pieces of the next item follow.
 */
function defineReading(m: ModuleBuilder, bytes: number): Kernel {
  const piece = ITEM_BYTES / STREAMS;
  const sumItem = m.define(ints("from", "to"), "void", (f, { from, to }) => {
    const end = f.local("int", "end");
    const sums = f.array("v128", "sum", STREAMS);
    end.set(from.plus(piece));
    f.for(from, from, end, 64, () => {
      for (const [stream, sum] of sums.entries()) {
        for (let at = stream * bytes / STREAMS, i = 0; i < 64; i += 16) {
          sum.set(sum.plus(v128.load(from, at + i)));
        }
      }
    });
    const [total, ...others] = sums;
    for (const sum of others) total.set(total.plus(sum));
    f.store(to, total);
  });
  return defineKernel(m, ["block", "to"], (f, { block, to, begin, end }) => {
    f.for(begin, begin, end, 1, () => {
      const from = block.plus(begin.times(piece));
      f.do(call(sumItem, { from, to: to.plus(begin.shl(4)) }));
    });
  });
}

/** Twelve independent chains of multiply-adds. */
function defineMultiplying(m: ModuleBuilder, relaxed: boolean): Kernel {
  const madd = multiplyAdd(relaxed);
  return defineKernel(m, ["to"], (f, { to, begin, end }) => {
    const round = f.local("int", "round");
    const { a, b } = f.locals(vectors("a", "b"));
    const sums = f.array("v128", "sum", 12);
    a.set(0.999);
    b.set(0.001);
    f.for(begin, begin, end, 1, () => {
      f.for(round, 0, MADD_ROUNDS, 1, () => {
        for (const sum of sums) sum.set(madd(a, b, sum));
      });
      for (const sum of sums) f.store(to.plus(begin.shl(4)), sum);
    });
  });
}
