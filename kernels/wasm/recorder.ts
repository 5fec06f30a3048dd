/**
 * From the calls of a forward pass to the kernels of one module: one function for all calls that differ only in their operands.
 *
 * Every kernel takes the addresses of its operands, then rows, position, slot and length of the step, then the work items
 * begin … end − 1 that it is to do; what an item is belongs to the operation.
 *
 * @module
 */
import { checkAttention } from "../ops/attention/mod.ts";
import { attentionWasm } from "../ops/attention/wasm.ts";
import type { Recorder } from "../backend.ts";
import {
  addPositionWasm,
  checkAddPosition,
  checkEmbed,
  embedWasm,
  type TableWasm,
} from "../ops/embed.ts";
import { checkWriteKv } from "../ops/kv_cache/mod.ts";
import { headNorm, writeKvWasm } from "../ops/kv_cache/wasm.ts";
import { checkMatmul } from "../ops/matmul/mod.ts";
import { matmulItems, matmulScratch, matmulWasm } from "../ops/matmul/wasm.ts";
import { checkNorm, normWasm } from "../ops/norm.ts";
import { checkSample } from "../ops/sample/mod.ts";
import { sampleWasm } from "../ops/sample/wasm.ts";
import { sampleWasmScratch } from "../ops/sample/wasm_keys.ts";
import type { Weight } from "../formats/mod.ts";
import type { Tensor } from "../tensor.ts";
import { ModuleBuilder } from "../asm/assembler.ts";
import type { Items, Kernel } from "../asm/kernel.ts";
import { VectorMath } from "../asm/math.ts";
import type { Block } from "./memory.ts";
import type { Entry } from "./program.ts";

export type { Entry };

/** A tensor, a weight or scratch, as it lies in the memory. */
export interface Placed {
  readonly block: Block;
}

/** Stands for scratch of the threads' own, which is made when it is known how much they want. */
type Own = "own";

type Operand = Tensor | Weight | Placed | Own | undefined;

/** What plans are made for. */
export interface WasmRecorderOptions {
  /** Whether a product and its sum may be fused. */
  readonly relaxed: boolean;
  /** Whether threads share the memory. */
  readonly shared: boolean;
  /** Threads that run plans. */
  readonly threads: number;
  /** Pages that the memory has already. */
  readonly pages: number;
  /** Scratch that lives as long as the plan. */
  readonly allocate: (bytes: number) => Block;
}

/** One item for each row. */
const EACH_ROW: Items = { count: 1, perRow: true };

/** Collects the entries of a plan and the module of their kernels. */
export class WasmRecorder implements Recorder {
  readonly #calls: { kernel: Kernel; operands: readonly Operand[]; items: Items }[] = [];
  /** The most that a kernel wants of its thread's own scratch. */
  #ownBytes = 0;
  readonly module: ModuleBuilder;
  readonly #options: WasmRecorderOptions;
  readonly #math: VectorMath;
  readonly #defined = new Map<string, unknown>();

  constructor(options: WasmRecorderOptions) {
    this.#options = options;
    this.module = new ModuleBuilder(options.shared, options.pages);
    this.#math = new VectorMath(this.module, options.relaxed);
  }

  /** Calls so far. */
  get length(): number {
    return this.#calls.length;
  }

  /** All calls, when there will be no more. Scratch of a thread's own is one for all kernels, which run one after the other. */
  finish(): Entry[] {
    const own = this.#scratch(this.#ownBytes * this.#options.threads);
    const address = (operand: Operand) => addressOf(operand === "own" ? own : operand);
    return this.#calls.map(({ kernel, operands, items }) => ({
      kernel,
      operands: operands.map(address),
      items,
    }));
  }

  norm: Recorder["norm"] = (y, x, options) => {
    const { C } = checkNorm(y, x, options);
    const { weight, bias, ...rest } = options;
    const kernel = this.#once(
      ["norm", C, !!bias, rest],
      () => normWasm(this.module, C, options),
    );
    this.#call(kernel, [y, x, weight, bias], EACH_ROW);
  };

  matmul: Recorder["matmul"] = (y, x, weight, options = {}) => {
    const { N, K } = checkMatmul(y, x, weight, options);
    const { bias, gate, ...rest } = options;
    const shape = { T: x.shape[0], N, K, dtype: weight.dtype, relaxed: this.#options.relaxed };
    const kernel = this.#once(
      ["matmul", shape, !!bias, !!gate, rest],
      () => matmulWasm(this.module, this.#math, { ...shape, options }),
    );
    const own = this.#ownScratch(matmulScratch(shape));
    this.#call(kernel, [y, x, weight, bias, gate, own], matmulItems(shape));
  };

  sample: Recorder["sample"] = (ids, logits, sampling) => {
    const { V, R } = checkSample(ids, logits, sampling);
    const { settings, counter, seen, drawn } = sampling;
    const scratch = Object.entries(sampleWasmScratch(V)).map(([name, bytes]) => [
      name,
      this.#scratch(bytes),
    ]);
    const tensors = { ids, logits, settings, counter, seen, drawn, ...Object.fromEntries(scratch) };
    const kernels = this.#once(
      ["sample", V, R],
      () => sampleWasm(this.module, this.#math, V, R),
    );
    for (const { kernel, operands, items } of kernels) {
      this.#call(kernel, operands.map((name) => tensors[name]), items);
    }
  };

  embed: Recorder["embed"] = (y, table, ids, { scale = 1 } = {}) => {
    checkEmbed(y, table, ids);
    const shape = tableShape(table);
    const kernel = this.#once(["embed", shape, scale], () => embedWasm(this.module, shape, scale));
    this.#call(kernel, [y, table, ids], EACH_ROW);
  };

  addPosition: Recorder["addPosition"] = (x, table) => {
    checkAddPosition(x, table);
    const shape = tableShape(table);
    const kernel = this.#once(["addPosition", shape], () => addPositionWasm(this.module, shape));
    this.#call(kernel, [x, table], EACH_ROW);
  };

  writeKv: Recorder["writeKv"] = (q, cache, qkv, options = {}) => {
    const sizes = checkWriteKv(q, cache, qkv, options);
    const { table, interleaved = false, qNorm, kNorm } = options;
    const shape = {
      ...sizes,
      rotaryDim: table ? options.rotaryDim ?? table.shape[1] : 0,
      interleaved,
      qNorm: headNorm(qNorm, sizes),
      kNorm: headNorm(kNorm, sizes),
    };
    const norms = [shape.qNorm, shape.kNorm].map((head) => {
      if (!head) return null;
      const { weight: _, bias, ...rest } = head.norm;
      return [head.wholeRow, !!bias, rest];
    });
    const kernel = this.#once(
      ["writeKv", sizes, shape.rotaryDim, interleaved, norms],
      () => writeKvWasm(this.module, shape),
    );
    const operands = [q, cache.k, cache.v, qkv, table];
    const ofNorms = [qNorm?.weight, qNorm?.bias, kNorm?.weight, kNorm?.bias];
    this.#call(kernel, [...operands, ...ofNorms], EACH_ROW);
  };

  attention: Recorder["attention"] = (y, q, cache, options = {}) => {
    const shape = { ...checkAttention(y, q, cache, options), T: q.shape[0], options };
    // Layers of one shape follow each other, so that they share their scratch as well.
    const { kernels, scratch } = this.#once(["attention", shape], () => {
      const plan = attentionWasm(this.module, this.#math, shape);
      const { queries, spans, own } = plan.scratch;
      return {
        kernels: plan.kernels,
        scratch: {
          queries: this.#scratch(queries),
          spans: this.#scratch(spans),
          own: this.#ownScratch(own),
        },
      };
    });
    const tensors = { y, q, ...cache, ...scratch };
    for (const { kernel, operands, items } of kernels) {
      this.#call(kernel, operands.map((name) => tensors[name]), items);
    }
  };

  #scratch(bytes: number): Placed {
    return { block: this.#options.allocate(bytes) };
  }

  /** Scratch of which each thread has so many bytes for the time of a kernel. */
  #ownScratch(bytes: number): Own {
    this.#ownBytes = Math.max(this.#ownBytes, bytes);
    return "own";
  }

  /** What is defined once for all calls that differ only in their operands. */
  #once<D>(key: readonly unknown[], define: () => D): D {
    const text = JSON.stringify(key);
    const defined = this.#defined.get(text) as D ?? define();
    this.#defined.set(text, defined);
    return defined;
  }

  #call(
    kernel: Kernel,
    operands: readonly Operand[],
    items: Items,
  ): void {
    this.#calls.push({ kernel, operands, items });
  }
}

/** An operand that is left out has address 0. */
function addressOf(operand: Exclude<Operand, Own>): number {
  return operand ? (operand as Placed).block.address : 0;
}

function tableShape({ shape: [V, C], dtype }: Weight): TableWasm {
  return { V, C, dtype };
}
