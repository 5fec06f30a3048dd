/**
 * What the threads of the WebAssembly backend can do at most on this machine: read memory, multiply and add, meet at a barrier.
 * Measured by the backend's own threads, with code that does nothing else.
 *
 * @module
 */
import type { Step } from "../kernels/backend.ts";
import { Memory } from "../kernels/memory.ts";
import { call, f32x4, i32, ModuleBuilder, v128 } from "../kernels/wasm/assembler.ts";
import { canSleep, Pool } from "../kernels/wasm/pool.ts";
import type { Run } from "../kernels/wasm/control.ts";
import { defineKernel, type Items, type Kernel } from "../kernels/wasm/kernel.ts";
import { LinearMemory } from "../kernels/wasm/memory.ts";
import { defineRun } from "../kernels/wasm/program.ts";

const STEP: Step = { rows: 1, position: 0, slot: 0, length: 1 };

/** Bytes that are read: beyond every cache but the largest. */
const READ_BYTES = 512 * 2 ** 20;
/** Bytes of an item: about a panel of a weight. */
const ITEM_BYTES = 2 ** 16;

/** Work items and rounds of eight vectors each in a turn of multiply-adds. */
const [MADD_ITEMS, MADD_ROUNDS] = [64, 40_000];

/** Work that a limit is measured by. */
export interface LimitPlan {
  run(): void;
}

/** A pool of its own. */
export class Limits implements AsyncDisposable {
  private constructor(readonly linear: LinearMemory, readonly pool: Pool) {}

  static async open(threads: number): Promise<Limits> {
    const linear = new LinearMemory(new Memory(), true);
    return new Limits(linear, await Pool.start(linear.wasm, threads));
  }

  /** Reads `READ_BYTES`; the gigabytes of a run. */
  async reading(): Promise<LimitPlan & { bytes: number }> {
    const block = this.linear.allocate(READ_BYTES, "staging");
    const sums = this.linear.allocate(16 * READ_BYTES / ITEM_BYTES, "staging");
    this.linear.view(block, "F32", 0, READ_BYTES / 4).fill(1); // untouched pages would all be the one page of zeros
    const items = { count: READ_BYTES / ITEM_BYTES, perRow: false };
    const run = await this.plan([items], [block.address, sums.address], defineReading);
    return { run, bytes: READ_BYTES };
  }

  /** Multiplies and adds in registers; the operations of a run, two for each multiply-add. */
  async multiplying(relaxed: boolean): Promise<LimitPlan & { operations: number }> {
    const sums = this.linear.allocate(16 * MADD_ITEMS, "staging");
    const items = { count: MADD_ITEMS, perRow: false };
    const run = await this.plan([items], [sums.address], (m) => defineMultiplying(m, relaxed));
    return { run, operations: 2 * 4 * 12 * MADD_ROUNDS * MADD_ITEMS };
  }

  /** So many entries of some items that take `rounds` rounds each. */
  async entries(count: number, items: number, rounds: number): Promise<() => void> {
    const words = this.linear.allocate(64 * items, "staging");
    const all = Array.from({ length: count }, () => ({ count: items, perRow: false }));
    return await this.plan(all, [words.address], (m) => defineWaiting(m, rounds));
  }

  async plan(
    items: readonly Items[],
    operands: readonly number[],
    define: (m: ModuleBuilder) => Kernel,
  ): Promise<() => void> {
    const m = new ModuleBuilder(true);
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
  }
}

/** Adds up the vectors of an item in eight chains. */
function defineReading(m: ModuleBuilder): Kernel {
  const sumItem = m.define(["i32", "i32"], "void", (f, from, to) => {
    const end = f.local("i32");
    const sums = Array.from({ length: 8 }, () => f.local("v128"));
    f.set(end, i32.add(from, ITEM_BYTES));
    f.while(i32.ltU(from, end), () => {
      for (const [i, sum] of sums.entries()) f.set(sum, f32x4.add(sum, v128.load(from, 16 * i)));
      f.set(from, i32.add(from, 16 * sums.length));
    });
    for (const sum of sums) f.set(sums[0], f32x4.add(sums[0], sum));
    f.store(to, sums[0]);
  });
  return defineKernel(m, 2, (f, [block, to], { begin, end }) => {
    f.for(begin, begin, end, 1, () => {
      const from = i32.add(block, i32.mul(begin, ITEM_BYTES));
      f.do(call(sumItem, from, i32.add(to, i32.shl(begin, 4))));
    });
  });
}

/** Twelve chains of multiply-adds. */
function defineMultiplying(m: ModuleBuilder, relaxed: boolean): Kernel {
  return defineKernel(m, 1, (f, [to], { begin, end }) => {
    const round = f.local("i32");
    const [a, b] = [f.local("v128"), f.local("v128")];
    const sums = Array.from({ length: 12 }, () => f.local("v128"));
    f.set(a, f32x4.splat(0.999));
    f.set(b, f32x4.splat(0.001));
    f.for(begin, begin, end, 1, () => {
      f.for(round, 0, MADD_ROUNDS, 1, () => {
        for (const sum of sums) {
          const next = relaxed ? f32x4.relaxedMadd(a, b, sum) : f32x4.add(f32x4.mul(a, b), sum);
          f.set(sum, next);
        }
      });
      for (const sum of sums) f.store(i32.add(to, i32.shl(begin, 4)), sum);
    });
  });
}

/** Counts, so that an item takes a while. */
function defineWaiting(m: ModuleBuilder, rounds: number): Kernel {
  return defineKernel(m, 1, (f, [words], { begin, end }) => {
    const [round, at] = [f.local("i32"), f.local("i32")];
    f.for(begin, begin, end, 1, () => {
      f.set(at, i32.add(words, i32.shl(begin, 6)));
      f.for(round, 0, rounds, 1, () => f.store(at, i32.add(i32.load(at), 1)));
    });
  });
}
