/**
 * WebAssembly backend: 128-bit SIMD kernels, assembled when a plan is recorded, on one or more
 * threads.
 *
 * A plan is a module: one function per distinct kernel, and `run`, which calls them in order with
 * the addresses of their operands. A module holds no state of the thread that compiled it, so every
 * thread of the pool (`pool.ts`) instantiates it over the shared memory and runs it.
 *
 * @module
 */
import type { Backend, KernelText, KernelTime, Plan, Recorder, TensorSizes } from "../backend.ts";
import { onlySegment, type Segment, type Step, type StepRoom } from "../step.ts";
import { type Call, record, roomOf } from "../calls.ts";
import { DeviceError, messageOf } from "../errors.ts";
import { type ComputeHost, WEB_HOST } from "../host.ts";
import { Memory, nudgeGc } from "../memory.ts";
import { addUpTexts } from "../kernel_text.ts";
import { laps, partsOf, profileRuns } from "../profile.ts";
import {
  BYTES,
  FORMATS,
  numbersIn,
  storedBytes,
  wasmOf,
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
import type { Int } from "../asm/assembler.ts";
import type { Simd } from "../asm/join.ts";
import type { Activations } from "../ops/contract.ts";
import type { Run } from "./control.ts";
import { type Block, hasWideMemory, LIMIT_BYTES, LinearMemory } from "./memory.ts";
import type { EncodedFrom } from "./encode_panels.ts";
import { encodesHere, Packer } from "./packer.ts";
import { lackForWasm, missing, wasmFuses } from "./features.ts";
import { canShareMemory, canSleep, Pool, whyOneThread } from "./pool.ts";
import { mostThreads, probeThreads, threadsToTry } from "./probe.ts";
import { programTexts, runAlone, WasmPlan } from "./plan.ts";
import { defineRun, type Entry } from "./program.ts";
import { WasmLowering } from "./lowering.ts";
import { findSimd, type FoundSimd } from "./simd.ts";

/** Options of the backend; each defaults to what the machine supports. */
export interface WasmOptions {
  /**
   * Computing threads, including the calling one; default by a short probe (`probe.ts`). Always 1
   * if memory cannot be shared.
   */
  readonly threads?: number;
  /** Whether multiply-adds may be fused (relaxed SIMD): twice as fast on a processor with FMA. */
  readonly relaxed?: boolean;
  /** Width of vectors; default by V8's flags and a probe (`simd.ts`). */
  readonly simd?: Simd;
  /** Whether threads may share memory. */
  readonly shared?: boolean;
  /** Type of addresses; by default 32 bits, until `reserve` asks for more than they reach. */
  readonly address?: Int;
  /** Whether the calling thread may sleep while it waits for other threads. */
  readonly callerSleeps?: boolean;
  /** Precision of x in products with blocked weights; default "exact". */
  readonly activations?: Activations;
  /** The platform; default: web standards only. */
  readonly host?: ComputeHost;
}

/** Maximum of the option `threads`. */
const MAX_THREADS = 64;

interface WasmTensor extends Tensor {
  readonly block: Block;
}

interface WasmWeight extends Weight {
  readonly block: Block;
}

/**
 * Opens the WebAssembly backend.
 * @throws {DeviceError} If the engine lacks SIMD, or relaxed SIMD when it is requested, or if a
 * thread does not start.
 * @throws {RangeError} If `threads` is not an integer from 1 to 64.
 */
export async function openWasmBackend(options: WasmOptions = {}): Promise<Backend> {
  const { threads, host = WEB_HOST, address = "i32" } = options;
  if (
    threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= MAX_THREADS)
  ) {
    throw new RangeError(
      `Cannot open "wasm": expected 1 to ${MAX_THREADS} threads, got ${threads}`,
    );
  }
  const lack = lackForWasm();
  if (lack !== undefined) throw missing(lack);
  const relaxed = options.relaxed ?? wasmFuses();
  if (relaxed && !wasmFuses()) throw missing("WebAssembly with relaxed SIMD");
  const found: FoundSimd = options.simd
    ? { simd: options.simd }
    : await findSimd(host.engineFlags?.() ?? [], relaxed);
  const { simd } = found;
  if (address === "i64" && simd === "256, unchecked") {
    throw new DeviceError(
      'Cannot open "wasm" with 64-bit addresses: expected bounds checks, got none; start without ' +
        "--no-wasm-bounds-checks",
    );
  }
  const settings = { ...options, relaxed, simd };
  const canShare = options.shared ?? canShareMemory();
  const memory = new Memory();
  const asked = threads ?? threadsToTry(host.cores);
  const wanted = canShare ? asked : 1;
  const most = canShare ? threads ?? mostThreads(host.cores) : 1;
  const denied = asked > 1 ? whyOneThread(host, options.shared) : undefined;
  if (wanted === 1 || denied) {
    const notes = [found.note, denied && `runs on one thread: ${denied}`];
    const linear = new LinearMemory(memory, false, simd, address);
    return new WasmBackend(memory, linear, null, denied ? 1 : most, settings, notes);
  }
  const linear = new LinearMemory(memory, true, simd, address);
  const pool = await Pool.start(linear.wasm, wanted, host);
  try {
    if (threads === undefined) await pool.dismiss(await probeThreads(pool, linear));
  } catch (error) {
    await pool.close();
    throw error;
  }
  return new WasmBackend(memory, linear, pool, most, settings, [found.note]);
}

class WasmBackend implements Backend {
  readonly name = "wasm";
  readonly onGpu = false;
  readonly threads: number;
  readonly description: string;
  readonly nominalFlops: number;
  readonly #relaxed: boolean;
  readonly simd: Simd;
  readonly activations: Activations;
  readonly #callerSleeps: boolean;
  /** Threads before the probe, which dismisses more of them on a busy machine. */
  readonly #mostThreads: number;
  readonly #host: ComputeHost;
  readonly #notes: (string | undefined)[];
  #pool: Pool | null;
  /** Null after dispose, so that the GC can free the memory. */
  #linear: LinearMemory | null;
  #packer: Packer | null = null;
  readonly #blocks = new Set<Block>();
  /** Live plans, each with the function that disassembles it. */
  readonly #plans = new Map<WasmPlan, () => KernelText[]>();
  /** The first failure; nothing runs after it. */
  #failure: DeviceError | null = null;

  constructor(
    readonly memory: Memory,
    linear: LinearMemory,
    pool: Pool | null,
    mostThreads: number,
    {
      relaxed,
      simd = "128",
      activations = "exact",
      callerSleeps = canSleep(),
      host = WEB_HOST,
    }: WasmOptions,
    notes: readonly (string | undefined)[],
  ) {
    this.#host = host;
    this.#notes = [...notes];
    this.simd = simd;
    this.#linear = linear;
    this.#pool = pool;
    this.#mostThreads = mostThreads;
    this.#relaxed = !!relaxed;
    this.activations = activations;
    this.#callerSleeps = callerSleeps;
    this.threads = pool?.threads ?? 1;
    const [fused, wide] = [relaxed ? ", fused multiply-add" : "", simd !== "128"];
    this.description = `WebAssembly SIMD${fused}${wide ? `, simd ${simd}` : ""}`;
    this.nominalFlops = (relaxed ? 40e9 : 20e9) * (wide ? 1.5 : 1) * this.threads;
  }

  /**
   * Bound on scratch. Per thread: the packed rows [T, K] of one matmul, and one panel [16, K] as
   * F32. The rest covers scratch of plans, padding of last panels and alignment to cache lines. For
   * the shapes of GPT-2 and Llama on 1, 2 and 8 threads the bound was 1 to 7 MiB above actual use.
   * It counts the threads before the probe, so that two estimates agree on a busy machine too.
   */
  scratchBytes({ total, rows, widest }: TensorSizes): number {
    const perThread = widest + 16 * widest / rows;
    return 3 * 2 ** 18 + Math.ceil(total / 128) + this.#mostThreads * perThread;
  }

  get note(): string | undefined {
    return this.#notes.filter((note) => note).join("; ") || undefined;
  }

  // deno-lint-ignore require-await -- an error of it is a rejection
  async expectFree(what: string, bytes: number): Promise<void> {
    const { address } = this.#alive();
    if (bytes <= LIMIT_BYTES[address]) return;
    const reason = address === "i64" || bytes > LIMIT_BYTES.i64 ? null : this.#whyNarrow();
    if (reason === undefined) return;
    const limit = reason === null ? LIMIT_BYTES.i64 : LIMIT_BYTES[address];
    throw new DeviceError(
      `Cannot load "${what}" on wasm: expected at most ${gib(limit)} GiB (${
        reason ?? "the limit of a WebAssembly memory"
      }), got ${
        gib(bytes)
      } GiB; use a 16-bit dtype, a shorter context, or --device js, which has no such limit`,
    );
  }

  /**
   * Opens a memory of 64-bit addresses if the bytes need one. Idle workers map the weights' pages.
   */
  async reserve(what: string, bytes: number, weights: number): Promise<void> {
    await this.expectFree(what, bytes);
    if (bytes > LIMIT_BYTES[this.#alive().address]) await this.#widen(bytes);
    this.#pool?.mapAhead(...this.#alive().pagesAhead(weights));
  }

  /** Why memory stays at 32-bit addresses; undefined if it may be replaced. */
  #whyNarrow(): string | undefined {
    if (this.simd === "256, unchecked") return "without bounds checks, addresses have 32 bits";
    if (!hasWideMemory(this.#alive().shared)) {
      return "this engine has no WebAssembly memory of 64-bit addresses";
    }
    return this.#blocks.size > 0 ? "32-bit addresses, which a model already uses" : undefined;
  }

  /** Replaces the memory, which is empty, and the threads, which share it. */
  async #widen(bytes: number): Promise<void> {
    const { shared } = this.#alive();
    const linear = new LinearMemory(this.memory, shared, this.simd, "i64");
    await this.#pool?.close();
    this.#pool &&= await Pool.start(linear.wasm, this.threads, this.#host);
    this.#linear = linear;
    this.#packer = null;
    this.#notes.push(`64-bit addresses: the run needs ${gib(bytes)} GiB`);
  }

  readonly encodes = encodesHere;

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
    { stored, from = dtype }: { stored: StoredOrder; from?: WeightDtype },
  ): Promise<Weight> {
    // F16 panels cannot represent infinity, NaN or magnitudes of 64 and more (`formats/f16.ts`):
    // such a weight is kept in F32.
    const encoded = from !== dtype && encodesHere(dtype, from) ? from : undefined;
    const weight = await this.#pack(shape, dtype, fill, stored, encoded) ??
      await this.#pack(shape, "F32", decoded(from, fill), stored);
    return weight!;
  }

  /** Packs a weight into panels; null if they cannot represent one of its numbers. */
  async #pack(
    shape: readonly [N: number, K: number],
    dtype: WeightDtype,
    fill: FillRows,
    stored: StoredOrder,
    from?: EncodedFrom,
  ): Promise<WasmWeight | null> {
    const linear = this.#alive();
    const { parts, apart } = wasmOf(dtype).layout(shape);
    const block = this.#allocate(parts * apart, "weights");
    const packing = { block, shape, dtype, stored, from };
    let scratch: Block | null = null;
    let fits = false;
    try {
      const packer = this.#packer ??= new Packer(linear, this.#pool);
      scratch = this.#allocate(packer.scratchBytes(packing), "staging");
      fits = await packer.pack(packing, scratch, fill);
      this.#alive(); // dispose, while rows were read, has freed the block
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

  /** Times each entry: the program calls back at the end of every entry. */
  async profile(build: (k: Recorder) => void, step: Step | Segment): Promise<KernelTime[]> {
    const ends: number[] = [];
    const recorded = await this.#record(build, () => void ends.push(performance.now()));
    using plan = recorded.plan;
    const segment = onlySegment(step, plan.room);
    return await profileRuns(partsOf(recorded.calls, recorded.lowered, segment), async () => {
      ends.length = 0;
      const start = performance.now();
      plan.run(segment);
      if (this.#failure || this.#pool?.failed) throw await this.#failed();
      return laps(start, ends);
    });
  }

  /** Records, lowers and compiles a plan. `mark` is called on this thread after each entry. */
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
        simd: this.simd,
        activations: this.activations,
        threads: this.threads,
        memory: linear,
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

  /** Compiles a module and wraps its program as a plan. */
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

  /** Checks the range: all tensors share one memory, so an overrun would reach the next tensor. */
  #view(t: Tensor, start: number, count: number): HostArray {
    const size = sizeOf(t.shape);
    if (start < 0 || start + count > size) {
      throw new RangeError(
        `Cannot access a tensor's elements: expected a range within 0 … ${size}, got ${start} … ${
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

  /** Idempotent: a plan may be disposed after its backend. */
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

/** Parts of a plan beside its module. */
interface PlanParts {
  readonly room: StepRoom;
  readonly texts: () => KernelText[];
  /** Frees the plan's scratch. */
  readonly free: () => void;
  /** Called after each entry of a run. */
  readonly mark?: () => void;
}

/** A plan, the calls it was recorded from, and the entries of each call. */
interface Recorded {
  readonly plan: WasmPlan;
  readonly calls: readonly Call[];
  readonly lowered: readonly (readonly Entry[])[];
}

/** Decodes the rows that `fill` reads to F32. */
function decoded(dtype: WeightDtype, fill: FillRows): FillRows {
  let stored = new Uint8Array(0); // reused for all pieces
  return async (row, count, into) => {
    const bytes = storedBytes(dtype, numbersIn("F32", into.length));
    if (stored.length < bytes) stored = new Uint8Array(bytes);
    const rows = stored.subarray(0, bytes);
    await fill(row, count, rows);
    const numbers = new Float32Array(into.buffer, into.byteOffset, into.length / BYTES.F32);
    FORMATS[dtype].decode(numbers, rows);
  };
}

function gib(bytes: number): string {
  return (bytes / 2 ** 30).toFixed(1);
}

function failedHere(error: unknown): DeviceError {
  return new DeviceError(
    `Cannot go on with "wasm": the calling thread failed (${
      messageOf(error)
    }); open the backend again`,
    { cause: error },
  );
}
