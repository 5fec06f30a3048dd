/**
 * Lowering to WASM: the calls of a pass become a module of kernels and the entries of a program.
 *
 * Every kernel takes the addresses of its operands, the step's rows, position, slot and length, and
 * its work items begin … end − 1. The operation defines what an item is. Calls that differ only in
 * their operands share a kernel.
 *
 * @module
 */
import { type MemoryType, ModuleBuilder } from "../asm/assembler.ts";
import type { Simd } from "../asm/join.ts";
import { VectorMath } from "../asm/math.ts";
import { type Call, type Forms, lower } from "../calls.ts";
import { attentionEntries } from "../ops/attention/wasm.ts";
import {
  type Activations,
  type Operand,
  scratchOf,
  type WasmEntry,
  type WasmTarget,
} from "../ops/contract.ts";
import { addPositionEntries, embedEntries } from "../ops/embed.ts";
import { writeKvEntries } from "../ops/kv_cache/wasm.ts";
import { matmulEntries } from "../ops/matmul/wasm.ts";
import { normEntries } from "../ops/norm.ts";
import { sampleEntries } from "../ops/sample/wasm.ts";
import type { Tensor } from "../tensor.ts";
import type { Block } from "./memory.ts";
import type { Entry } from "./program.ts";

/** A tensor, weight or scratch buffer with its block of memory. */
interface Placed {
  readonly block: Block;
}

/** Properties of the backend that plans are specialised on. */
export interface LoweringOptions {
  /** Whether multiply-adds may be fused. */
  readonly relaxed: boolean;
  /** Width of the vectors that kernels are written for; default 128 bits. */
  readonly simd?: Simd;
  /** Precision of x in products with blocks. */
  readonly activations: Activations;
  /** Number of threads that run plans. */
  readonly threads: number;
  /** The memory of the plan's tensors, at its current size. */
  readonly memory: MemoryType;
  /** Allocates scratch that lives as long as the plan. */
  readonly allocate: (bytes: number) => Block;
}

/** Each operation's entries. */
const ENTRIES: Forms<WasmTarget, readonly WasmEntry[]> = {
  embed: embedEntries,
  addPosition: addPositionEntries,
  norm: normEntries,
  matmul: matmulEntries,
  writeKv: writeKvEntries,
  attention: attentionEntries,
  sample: sampleEntries,
};

/** Placeholder for thread-local scratch, whose size is known after all calls are lowered. */
const THREAD_SCRATCH: Operand = scratchOf({ shape: [], dtype: "U32" });

/** Lowers calls into one module. */
export class WasmLowering implements WasmTarget {
  readonly module: ModuleBuilder;
  readonly math: VectorMath;
  readonly activations: Activations;
  readonly #options: LoweringOptions;
  /** Kernels defined so far, by operation and constants. */
  readonly #defined = new Map<string, unknown>();
  /** Bytes of thread-local scratch: the maximum over the kernels. */
  #threadBytes = 0;

  constructor(options: LoweringOptions) {
    this.#options = options;
    this.activations = options.activations;
    this.module = new ModuleBuilder(options.memory);
    this.math = new VectorMath(this.module, options.relaxed, options.simd);
  }

  /** Returns the entries of each call. Kernels run one after another, so they share scratch. */
  lower(calls: readonly Call[]): Entry[][] {
    const lowered = calls.map((call) => lower(call, ENTRIES, this));
    const local = this.#options.allocate(this.#threadBytes * this.#options.threads);
    const addressOf = (operand: Operand | undefined) => {
      if (!operand) return 0;
      return operand === THREAD_SCRATCH ? local.address : blockOf(operand).address;
    };
    return lowered.map((entries) =>
      entries.map((entry) => ({ ...entry, operands: entry.operands.map(addressOf) }))
    );
  }

  once<C, D>(op: string, constants: C, define: (constants: C) => D): D {
    const key = keyOf([op, constants]);
    const defined = this.#defined.get(key) as D ?? define(constants);
    this.#defined.set(key, defined);
    return defined;
  }

  scratch(bytes: number): Operand {
    const block = this.#options.allocate(bytes);
    const tensor: Tensor & Placed = { shape: [bytes / 4], dtype: "U32", block };
    return scratchOf(tensor);
  }

  threadScratch(bytes: number): Operand {
    this.#threadBytes = Math.max(this.#threadBytes, bytes);
    return THREAD_SCRATCH;
  }
}

function blockOf({ of }: Operand): Block {
  return (of as unknown as Placed).block;
}

/**
 * A text that is equal if and only if the constants are equal. JSON writes −0 as 0, and NaN and
 * infinities as null, so numbers are written as strings, and strings get a leading quote.
 */
export function keyOf(constants: unknown): string {
  return JSON.stringify(constants, (_, value) => {
    if (typeof value === "number") return Object.is(value, -0) ? "-0" : `${value}`;
    return typeof value === "string" ? `"${value}` : value;
  });
}
