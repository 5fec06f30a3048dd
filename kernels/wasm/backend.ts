/**
 * The WebAssembly backend: 128-bit SIMD, assembled while a plan is recorded.
 *
 * A plan is a module: one function for each kernel that differs, however often it is called, and `run`, which calls them in
 * order with the addresses of their operands. Nothing in it belongs to the thread that made it: whoever has the module and the
 * memory can run it.
 *
 * @module
 */
import type { Backend, Plan, Recorder, Step } from "../backend.ts";
import { DeviceError } from "../errors.ts";
import { checkMatmul } from "../matmul/mod.ts";
import { matmulWasm } from "../matmul/wasm.ts";
import { Memory } from "../memory.ts";
import { checkNorm, normWasm } from "../norm.ts";
import { checkSample } from "../sample/mod.ts";
import { sampleWasm, sampleWasmScratch } from "../sample/wasm.ts";
import {
  BYTES,
  type Dtype,
  type FillRows,
  type HostArray,
  type MemoryClass,
  sizeOf,
  type StoredOrder,
  type Tensor,
  type Weight,
  type WeightDtype,
} from "../tensor.ts";
import {
  call,
  f32x4,
  type Func,
  type Local,
  ModuleBuilder,
  type Value,
  type ValueType,
} from "./assembler.ts";
import { HOST_MATH, importMath } from "./math.ts";
import { type Block, LinearMemory } from "./memory.ts";
import { packPanels, panelsLength, rowsAtATime } from "./panels.ts";

/** What may be forced; left out, the processor decides. */
export interface WasmOptions {
  /** Whether a product and its sum may be fused; twice as fast where it is so. */
  readonly relaxed?: boolean;
}

interface WasmTensor extends Tensor {
  readonly block: Block;
}

interface WasmWeight extends Weight {
  readonly block: Block;
}

/**
 * Opens the WebAssembly backend.
 * @throws {DeviceError} when there is no SIMD here, or no relaxed SIMD and it is asked for.
 */
// deno-lint-ignore require-await -- a promise by contract, so that what is wrong rejects
export async function openWasmBackend(options: WasmOptions = {}): Promise<Backend> {
  if (!runsHere((v) => f32x4.add(v, v))) throw missing("128-bit SIMD");
  const relaxed = options.relaxed ?? runsHere((v) => f32x4.relaxedMadd(v, v, v));
  if (relaxed && !runsHere((v) => f32x4.relaxedMadd(v, v, v))) throw missing("relaxed SIMD");
  return new WasmBackend(relaxed);
}

/** Whether this engine knows an operation. */
function runsHere(operation: (v: Local<"v128">) => Value<"v128">): boolean {
  const m = new ModuleBuilder();
  m.define(["v128"], "v128", (_, v) => operation(v));
  return WebAssembly.validate(m.toBytes());
}

function missing(what: string): DeviceError {
  return new DeviceError(
    `Cannot open "wasm": expected a WebAssembly engine with ${what}; use --device js`,
  );
}

class WasmBackend implements Backend {
  readonly name = "wasm";
  readonly threads = 1;
  readonly description: string;
  readonly nominalFlops: number;
  readonly memory = new Memory();
  readonly #relaxed: boolean;
  #linear = new LinearMemory(this.memory);
  readonly #blocks = new Set<Block>();

  constructor(relaxed: boolean) {
    this.#relaxed = relaxed;
    this.description = `WebAssembly SIMD${relaxed ? ", fused multiply-add" : ""}`;
    this.nominalFlops = relaxed ? 40e9 : 20e9;
  }

  tensor(shape: readonly number[], dtype: Dtype, kind: MemoryClass): Tensor {
    return {
      shape,
      dtype,
      block: this.#allocate(sizeOf(shape) * BYTES[dtype], kind),
    } as WasmTensor;
  }

  async weight(
    shape: readonly [N: number, K: number],
    dtype: WeightDtype,
    fill: FillRows,
    { stored }: { stored: StoredOrder },
  ): Promise<Weight> {
    const length = panelsLength(shape);
    const block = this.#allocate(length * BYTES[dtype], "weights");
    const [N, K] = shape;
    const scratchBytes = rowsAtATime(shape, dtype, stored) * (stored === "NK" ? K : N) *
      BYTES[dtype];
    const view = () => this.#linear.view(block, dtype, 0, length) as Float32Array | Uint16Array;
    this.memory.add("staging", scratchBytes);
    try {
      await packPanels(view, shape, dtype, fill, stored);
    } catch (error) {
      this.#free(block);
      throw error;
    } finally {
      this.memory.add("staging", -scratchBytes);
    }
    const weight: WasmWeight = { shape, dtype, block };
    return weight;
  }

  write(t: Tensor, data: HostArray, offset = 0): void {
    const to = this.#view(t, offset, data.length);
    if (data.constructor !== to.constructor) {
      throw new TypeError(`Cannot write to a tensor of ${t.dtype} from a ${data.constructor.name}`);
    }
    to.set(data);
  }

  // deno-lint-ignore require-await -- a promise by contract; here a run is over when it returns
  async read(t: Tensor, start = 0, count = sizeOf(t.shape) - start): Promise<HostArray> {
    return this.#view(t, start, count).slice();
  }

  async record(build: (k: Recorder) => void): Promise<Plan> {
    const scratch: Block[] = [];
    const free = () => {
      for (const block of scratch.splice(0)) this.#free(block);
    };
    try {
      const recorder = new WasmRecorder(this.#relaxed, (bytes) => {
        const block = this.#allocate(bytes, "activations");
        scratch.push(block);
        return block;
      });
      build(recorder);
      const { instance } = await WebAssembly.instantiate(recorder.toBytes(), {
        env: { memory: this.#linear.wasm, ...HOST_MATH },
      });
      const run = instance.exports.run as (
        rows: number,
        position: number,
        slot: number,
        length: number,
      ) => void;
      return {
        run({ rows, position, slot, length }: Step): void {
          run(rows, position, slot, length);
        },
        [Symbol.dispose]: free,
      };
    } catch (error) {
      free();
      throw error;
    }
  }

  // deno-lint-ignore require-await -- a promise by contract
  async [Symbol.asyncDispose](): Promise<void> {
    for (const block of this.#blocks) this.#free(block);
    // Linear memory cannot shrink; it goes when nothing holds it.
    this.#linear = new LinearMemory(this.memory);
  }

  /** What lies behind a tensor is another's: a range is checked here as a typed array of its own would check it. */
  #view(t: Tensor, start: number, count: number): HostArray {
    const size = sizeOf(t.shape);
    if (start < 0 || start + count > size) {
      throw new RangeError(
        `Cannot reach a tensor's elements: expected a range within ${size}, got ${start} … ${
          start + count
        }`,
      );
    }
    return this.#linear.view((t as WasmTensor).block, t.dtype, start, count);
  }

  #allocate(bytes: number, kind: MemoryClass): Block {
    const block = this.#linear.allocate(bytes, kind);
    this.#blocks.add(block);
    return block;
  }

  /** Does nothing to a block that is free: a plan may be disposed after its backend. */
  #free(block: Block): void {
    if (this.#blocks.delete(block)) this.#linear.free(block);
  }
}

/** A kernel and the addresses that it is called with; all of them take the number of rows last, or not at all. */
interface Entry {
  readonly kernel: Func<readonly ValueType[], "void">;
  readonly operands: readonly number[];
  readonly takesRows: boolean;
}

class WasmRecorder implements Recorder {
  readonly #module = new ModuleBuilder();
  readonly #math = importMath(this.#module);
  readonly #kernels = new Map<string, Func<readonly ValueType[], "void">>();
  readonly #entries: Entry[] = [];

  constructor(
    readonly relaxed: boolean,
    readonly allocate: (bytes: number) => Block,
  ) {}

  norm: Recorder["norm"] = (y, x, options) => {
    const { C } = checkNorm(y, x, options);
    const { weight, bias, ...rest } = options;
    const kernel = this.#kernel(
      ["norm", C, !!bias, rest],
      () => normWasm(this.#module, C, options),
    );
    this.#call(kernel, [y, x, weight, bias], true);
  };

  matmul: Recorder["matmul"] = (y, x, weight, options = {}) => {
    const { N, K } = checkMatmul(y, x, weight, options);
    const { bias, gate, ...rest } = options;
    const shape = { T: x.shape[0], N, K, dtype: weight.dtype, relaxed: this.relaxed };
    const kernel = this.#kernel(
      ["matmul", shape, !!bias, !!gate, rest],
      () => matmulWasm(this.#module, this.#math, { ...shape, options }),
    );
    this.#call(kernel, [y, x, weight, bias, gate], true);
  };

  sample: Recorder["sample"] = (ids, logits, sampling) => {
    const { V, R } = checkSample(ids, logits, sampling);
    const { settings, counter, seen, drawn } = sampling;
    const bytes = sampleWasmScratch(V);
    const scratch = [this.allocate(bytes.keys), this.allocate(bytes.masses)];
    const kernel = this.#kernel(
      ["sample", V, R],
      () => sampleWasm(this.#module, this.#math, V, R),
    );
    this.#call(kernel, [ids, logits, settings, counter, seen, drawn, ...scratch], false);
  };

  embed: Recorder["embed"] = () => notYet("embed");
  addPosition: Recorder["addPosition"] = () => notYet("addPosition");
  writeKv: Recorder["writeKv"] = () => notYet("writeKv");
  attention: Recorder["attention"] = () => notYet("attention");

  toBytes(): Uint8Array<ArrayBuffer> {
    const run = this.#module.define(["i32", "i32", "i32", "i32"], "void", (f, rows) => {
      for (const { kernel, operands, takesRows } of this.#entries) {
        f.do(call(kernel, ...operands, ...(takesRows ? [rows] : [])));
      }
    });
    this.#module.export("run", run);
    return this.#module.toBytes();
  }

  /** One function for all calls that differ only in their operands. */
  #kernel(
    key: readonly unknown[],
    define: () => Func<readonly ValueType[], "void">,
  ): Func<readonly ValueType[], "void"> {
    const text = JSON.stringify(key);
    const kernel = this.#kernels.get(text) ?? define();
    this.#kernels.set(text, kernel);
    return kernel;
  }

  /** An operand that is left out has address 0. */
  #call(
    kernel: Func<readonly ValueType[], "void">,
    operands: readonly (Tensor | Weight | Block | undefined)[],
    takesRows: boolean,
  ): void {
    this.#entries.push({ kernel, operands: operands.map(addressOf), takesRows });
  }
}

function addressOf(operand: Tensor | Weight | Block | undefined): number {
  if (!operand) return 0;
  return "address" in operand
    ? operand.address
    : (operand as WasmTensor | WasmWeight).block.address;
}

function notYet(op: string): never {
  throw new DeviceError(
    `Cannot record "${op}" on wasm: expected an operation that it knows; use --device js`,
  );
}
