/**
 * The WebAssembly backend: 128-bit SIMD, assembled while a plan is recorded, on as many
 * threads as are worth having.
 *
 * A plan is a module: one function for each kernel that differs, however often it is called,
 * and `run`, which calls them in order with the addresses of their operands. Nothing in it
 * belongs to the thread that made it: whoever has the module and the memory can run it, and
 * `pool.ts` has all threads do so.
 *
 * @module
 */
import type { Backend, KernelText, KernelTime, Plan, Recorder, TensorSizes } from "../backend.ts";
import { onlySegment, type Segment, type Step, type StepRoom } from "../step.ts";
import { type Call, record, roomOf } from "../calls.ts";
import { DeviceError, messageOf } from "../errors.ts";
import { type ComputeHost, WEB_HOST } from "../host.ts";
import { Memory, nudgeGc } from "../memory.ts";
import { addUpTexts, type Code, kernelTexts } from "../kernel_text.ts";
import { laps, partsOf, profileRuns } from "../profile.ts";
import {
  BYTES,
  FORMATS,
  numbersIn,
  storedBytes,
  type Weight,
  type WeightDtype,
} from "../formats/mod.ts";
import {
  type Dtype,
  type FillRows,
  type HostArray,
  type MemoryClass,
  sizeOf,
  type StoredOrder,
  type Tensor,
} from "../tensor.ts";
import { functionText, type LocalNames, moduleText, readModule } from "../asm/text.ts";
import { f32x4, type Local, ModuleBuilder, type Value, vectors } from "../asm/assembler.ts";
import type { Run } from "./control.ts";
import { type Block, LIMIT_BYTES, LinearMemory } from "./memory.ts";
import { Packer } from "./packer.ts";
import { canShareMemory, canSleep, Pool } from "./pool.ts";
import { probeThreads, threadsToTry } from "./probe.ts";
import { defineRun, type Entry } from "./program.ts";
import { WasmLowering } from "./lowering.ts";

/** What may be forced; left out, the machine decides. */
export interface WasmOptions {
  /**
   * Threads that compute, the calling one among them; default by a short probe. One where
   * memory cannot be shared.
   */
  readonly threads?: number;
  /** Whether a product and its sum may be fused; twice as fast where it is so. */
  readonly relaxed?: boolean;
  /** Whether threads may share memory. */
  readonly shared?: boolean;
  /** Whether the calling thread may sleep while it waits for others. */
  readonly callerSleeps?: boolean;
  /** The platform; default by web standards. */
  readonly host?: ComputeHost;
}

/** Threads that can be asked for. */
const MAX_THREADS = 64;

interface WasmTensor extends Tensor {
  readonly block: Block;
}

interface WasmWeight extends Weight {
  readonly block: Block;
}

/** Whether this engine has the vectors that every kernel is made of. */
export function wasmRunsHere(): boolean {
  return typeof WebAssembly === "object" && knows((v) => v.plus(v));
}

/** Whether it has a product and a sum in one. */
export function wasmFuses(): boolean {
  return knows((v) => f32x4.relaxedMadd(v, v, v));
}

/**
 * Opens the WebAssembly backend.
 * @throws {DeviceError} when there is no SIMD here, or no relaxed SIMD and it is asked for, or
 * the threads do not start.
 * @throws {RangeError} on a number of threads that cannot be.
 */
export async function openWasmBackend(options: WasmOptions = {}): Promise<Backend> {
  const { threads, host = WEB_HOST } = options;
  if (
    threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= MAX_THREADS)
  ) {
    throw new RangeError(
      `Cannot open "wasm": expected 1 to ${MAX_THREADS} threads, got ${threads}`,
    );
  }
  if (!wasmRunsHere()) throw missing("128-bit SIMD");
  const relaxed = options.relaxed ?? wasmFuses();
  if (relaxed && !wasmFuses()) throw missing("relaxed SIMD");
  const canShare = options.shared ?? canShareMemory();
  const memory = new Memory();
  const wanted = canShare ? threads ?? threadsToTry(host.cores) : 1;
  const denied = wanted > 1 ? host.threadsDenied?.() : undefined;
  if (wanted === 1 || denied) {
    const note = denied && `runs on one thread: ${denied}`;
    const linear = new LinearMemory(memory, false);
    return new WasmBackend(memory, linear, null, { ...options, relaxed }, note);
  }
  const linear = new LinearMemory(memory, true);
  const pool = await Pool.start(linear.wasm, wanted, host);
  try {
    if (threads === undefined) await pool.dismiss(await probeThreads(pool, linear));
  } catch (error) {
    await pool.close();
    throw error;
  }
  return new WasmBackend(memory, linear, pool, { ...options, relaxed });
}

/** Whether this engine knows an operation. */
function knows(operation: (v: Local<"v128">) => Value<"v128">): boolean {
  const m = new ModuleBuilder();
  m.define(vectors("v"), "v128", (_, { v }) => operation(v));
  return WebAssembly.validate(m.toBytes());
}

function missing(what: string): DeviceError {
  return new DeviceError(
    `Cannot open "wasm": expected a WebAssembly engine with ${what}; use --device js`,
  );
}

class WasmBackend implements Backend {
  readonly name = "wasm";
  readonly onGpu = false;
  readonly threads: number;
  readonly description: string;
  readonly nominalFlops: number;
  readonly #relaxed: boolean;
  readonly #callerSleeps: boolean;
  readonly #pool: Pool | null;
  /** None after dispose: the memory goes with its last holder. */
  #linear: LinearMemory | null;
  #packer: Promise<Packer> | null = null;
  readonly #blocks = new Set<Block>();
  /** The plans in use, each with its code as text. */
  readonly #plans = new Map<WasmPlan, () => KernelText[]>();
  /** What ended the work of this backend. */
  #failure: DeviceError | null = null;

  constructor(
    readonly memory: Memory,
    linear: LinearMemory,
    pool: Pool | null,
    { relaxed, callerSleeps = canSleep() }: WasmOptions,
    readonly note?: string,
  ) {
    this.#linear = linear;
    this.#pool = pool;
    this.#relaxed = !!relaxed;
    this.#callerSleeps = callerSleeps;
    this.threads = pool?.threads ?? 1;
    this.description = `WebAssembly SIMD${relaxed ? ", fused multiply-add" : ""}`;
    this.nominalFlops = (relaxed ? 40e9 : 20e9) * this.threads;
  }

  /**
   * Each thread packs the rows [T, K] of one product at a time, and may widen a panel of 16 rows of
   * K. Scratch of plans, the last panel of a weight and whole cache lines take the rest: the bound
   * was 1 to 7 MiB above what GPT-2's shape and Llama's took on 1, 2 and 8 threads.
   */
  scratchBytes({ total, rows, widest }: TensorSizes): number {
    const perThread = widest + 16 * widest / rows;
    return 3 * 2 ** 18 + Math.ceil(total / 128) + this.threads * perThread;
  }

  // deno-lint-ignore require-await -- a promise by contract, so that what is wrong rejects
  async expectFree(what: string, bytes: number): Promise<void> {
    const gib = (n: number) => (n / 2 ** 30).toFixed(1);
    if (bytes <= LIMIT_BYTES) return;
    throw new DeviceError(
      `Cannot load "${what}" on wasm: expected at most ${
        gib(LIMIT_BYTES)
      } GiB (all that WebAssembly's memory holds), got ${
        gib(bytes)
      } GiB; a 16-bit dtype or a smaller context takes less, and "js" has no such limit`,
    );
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
    // F16 panels hold no infinity, no NaN and no number of 64 or more: such
    // a weight is kept in F32.
    const weight = await this.#pack(shape, dtype, fill, stored) ??
      await this.#pack(shape, "F32", decoded(dtype, fill), stored);
    return weight!;
  }

  /** Null when panels of the dtype cannot hold one of the numbers. */
  async #pack(
    shape: readonly [N: number, K: number],
    dtype: WeightDtype,
    fill: FillRows,
    stored: StoredOrder,
  ): Promise<WasmWeight | null> {
    const linear = this.#alive();
    const { parts, apart } = FORMATS[dtype].wasm.layout(shape);
    const block = this.#allocate(parts * apart, "weights");
    const packing = { block, shape, dtype, stored };
    let scratch: Block | null = null;
    let fits = false;
    try {
      const packer = await (this.#packer ??= Packer.open(linear, this.#pool));
      scratch = this.#allocate(Packer.scratchBytes(packing, linear.shared), "staging");
      fits = await packer.pack(packing, scratch, fill);
      this.#alive(); // the block is no longer its own after a dispose
      if (this.#failure || this.#pool?.failed) throw await this.#failed();
      return fits ? { shape, dtype, block } : null;
    } catch (error) {
      if (this.#pool?.failed && error instanceof WebAssembly.RuntimeError) {
        this.#failure ??= failedHere(error);
      }
      this.#pool?.settle();
      fits = false;
      throw error;
    } finally {
      if (!fits) this.#free(block);
      if (scratch) this.#free(scratch);
    }
  }

  write(t: Tensor, data: HostArray, offset = 0): void {
    const to = this.#view(t, offset, data.length);
    if (data.constructor !== to.constructor) {
      throw new TypeError(`Cannot write to a tensor of ${t.dtype} from a ${data.constructor.name}`);
    }
    to.set(data);
  }

  async read(t: Tensor, start = 0, count = sizeOf(t.shape) - start): Promise<HostArray> {
    if (this.#failure || this.#pool?.failed) throw await this.#failed();
    return this.#view(t, start, count).slice();
  }

  async record(build: (k: Recorder) => void): Promise<Plan> {
    return (await this.#record(build)).plan;
  }

  /** Has the plan's program call back when each of its entries is done. */
  async profile(build: (k: Recorder) => void, step: Step | Segment): Promise<KernelTime[]> {
    const marks: number[] = [];
    const recorded = await this.#record(build, () => void marks.push(performance.now()));
    using plan = recorded.plan;
    const segment = onlySegment(step, plan.room);
    return await profileRuns(partsOf(recorded.calls, recorded.lowered, segment), async () => {
      marks.length = 0;
      const start = performance.now();
      plan.run(segment);
      if (this.#failure || this.#pool?.failed) throw await this.#failed();
      return laps(start, marks);
    });
  }

  /** `mark` is called after each entry of a run, on this thread. */
  async #record(build: (k: Recorder) => void, mark?: () => void): Promise<Recorded> {
    if (this.#failure || this.#pool?.failed) throw await this.#failed();
    const linear = this.#alive();
    const calls = record(build);
    const scratch: Block[] = [];
    const free = () => {
      for (const block of scratch.splice(0)) this.#free(block);
    };
    try {
      const target = new WasmLowering({
        relaxed: this.#relaxed,
        shared: linear.shared,
        threads: this.threads,
        pages: linear.pages,
        allocate: (bytes) => {
          const block = this.#allocate(bytes, "activations");
          scratch.push(block);
          return block;
        },
      });
      const imported = mark && target.module.import("mark", {}, "void");
      const lowered = target.lower(calls);
      defineRun(target.module, lowered.flat(), {
        threads: this.threads,
        callerSleeps: this.#callerSleeps,
        mark: imported,
      });
      const bytes = target.module.toBytes();
      const { names } = target.module;
      const texts = () => programTexts({ bytes, names }, calls, lowered);
      const plan = await this.#compile(bytes, { room: roomOf(calls), texts, free, mark });
      return { plan, calls, lowered };
    } catch (error) {
      free();
      throw error;
    }
  }

  /** The plan of a module's program. */
  async #compile(
    bytes: Uint8Array<ArrayBuffer>,
    { room, texts, free, mark }: PlanParts,
  ): Promise<WasmPlan> {
    const pool = this.#pool;
    const module = await WebAssembly.compile(bytes);
    const env = { memory: this.#alive().wasm, mark: () => mark?.() };
    const run = (await WebAssembly.instantiate(module, { env })).exports.run as Run;
    const number = pool ? await pool.load(module) : 0;
    this.#alive();
    const plan = new WasmPlan(
      room,
      pool ? (step) => pool.run(number, run, step) : runAlone(run),
      (error) => this.#failure ??= failedHere(error),
      () => {
        pool?.drop(number);
        this.#plans.delete(plan);
        free();
      },
    );
    this.#plans.set(plan, texts);
    return plan;
  }

  shaders(): KernelText[] {
    return addUpTexts([...this.#plans.values()].flatMap((texts) => texts()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const plan of this.#plans.keys()) plan[Symbol.dispose]();
    for (const block of this.#blocks) this.#free(block);
    if (!this.#linear) return;
    this.#linear = null;
    this.#packer = null;
    await this.#pool?.close();
    nudgeGc();
  }

  /**
   * What lies behind a tensor is another's: a range is checked here as a typed array
   * of its own would check it.
   */
  #view(t: Tensor, start: number, count: number): HostArray {
    const size = sizeOf(t.shape);
    if (start < 0 || start + count > size) {
      throw new RangeError(
        `Cannot reach a tensor's elements: expected a range within ${size}, got ${start} … ${
          start + count
        }`,
      );
    }
    return this.#alive().view((t as WasmTensor).block, t.dtype, start, count);
  }

  #allocate(bytes: number, kind: MemoryClass): Block {
    const block = this.#alive().allocate(bytes, kind);
    this.#blocks.add(block);
    return block;
  }

  /** Does nothing to a block that is free: a plan may be disposed after its backend. */
  #free(block: Block): void {
    if (this.#blocks.delete(block)) this.#linear?.free(block);
  }

  #alive(): LinearMemory {
    if (!this.#linear) throw new DeviceError(`Cannot use "wasm": it was disposed of`);
    return this.#linear;
  }

  async #failed(): Promise<DeviceError> {
    return this.#failure ??= await this.#pool!.failure();
  }
}

/** The kernels of a module, each with the functions that it calls, and the module as a whole. */
function programTexts(
  { bytes, names }: { readonly bytes: Uint8Array; readonly names: LocalNames },
  calls: readonly Call[],
  lowered: readonly (readonly Entry[])[],
): KernelText[] {
  const module = readModule(bytes, names);
  const codes = new Map<number, Code>();
  const codeOf = ({ kernel: { index } }: Entry): Code => {
    const code = codes.get(index) ?? functionText(module, index);
    codes.set(index, code);
    return code;
  };
  const program = { op: "program", name: "program", language: "wat", calls: 1 } as const;
  return [
    ...kernelTexts(calls, lowered, "wat", codeOf),
    { ...program, bytes: bytes.length, text: moduleText(bytes, names) },
  ];
}

/** What a plan has beside its module. */
interface PlanParts {
  readonly room: StepRoom;
  readonly texts: () => KernelText[];
  /** Frees its scratch. */
  readonly free: () => void;
  /** Called after each entry of a run. */
  readonly mark?: () => void;
}

/** A plan, with the calls that it was made of and the entries of each. */
interface Recorded {
  readonly plan: WasmPlan;
  readonly calls: readonly Call[];
  readonly lowered: readonly (readonly Entry[])[];
}

/** A recorded pass. It lets go of its program, and so of the memory, when it is disposed of. */
class WasmPlan implements Plan {
  #run: ((segment: Segment) => void) | null;

  constructor(
    readonly room: StepRoom,
    run: (segment: Segment) => void,
    readonly fail: (error: unknown) => void,
    readonly release: () => void,
  ) {
    this.#run = run;
  }

  run(step: Step | Segment): void {
    const segment = onlySegment(step, this.room);
    try {
      this.#run?.(segment);
    } catch (error) {
      this.fail(error);
    }
  }

  [Symbol.dispose](): void {
    if (!this.#run) return;
    this.#run = null;
    this.release();
  }
}

/** Rows of a format as F32. */
function decoded(dtype: WeightDtype, fill: FillRows): FillRows {
  let stored = new Uint8Array(0); // one for all pieces
  return async (row, count, into) => {
    const bytes = storedBytes(dtype, numbersIn("F32", into.length));
    if (stored.length < bytes) stored = new Uint8Array(bytes);
    const rows = stored.subarray(0, bytes);
    await fill(row, count, rows);
    const numbers = new Float32Array(into.buffer, into.byteOffset, into.length / BYTES.F32);
    FORMATS[dtype].decode(numbers, rows);
  };
}

function runAlone(run: Run): (segment: Segment) => void {
  return ({ rows, position, slot, length }) => void run(0, 0, rows, position, slot, length);
}

function failedHere(error: unknown): DeviceError {
  return new DeviceError(
    `Cannot go on with "wasm": the calling thread failed (${
      messageOf(error)
    }); open the backend again`,
    { cause: error },
  );
}
