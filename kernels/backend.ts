/**
 * Contract between model and device: record a forward pass once, replay it for every token.
 *
 * `docs/backends.md` says how each backend implements it.
 *
 * @module
 */
import type { Recorder } from "./calls.ts";
import type { Memory } from "./memory.ts";
import type { Segment, Step } from "./step.ts";
import type { Weight, WeightDtype } from "./formats/mod.ts";
import type { Dtype, FillRows, HostArray, MemoryClass, StoredOrder, Tensor } from "./tensor.ts";

export type { Recorder, Segment, Step };

/** Name of a backend. */
export type BackendName = "webgpu" | "wasm" | "js";

/** Names of the backends, the fastest on most machines first. */
export const BACKEND_NAMES: readonly BackendName[] = ["webgpu", "wasm", "js"];

/** Sizes of a model's tensors, from which the scratch of its passes follows. */
export interface TensorSizes {
  /** Bytes of all weights and tensors together. */
  readonly total: number;
  /** T: rows of the largest pass. */
  readonly rows: number;
  /** Bytes of the widest tensor [T, K] of that pass. */
  readonly widest: number;
}

/** Holds tensors and runs recorded passes over them. Dispose of it to free them all. */
export interface Backend extends AsyncDisposable {
  /** Which one it is. */
  readonly name: BackendName;
  /** Threads that compute, the calling one among them. */
  readonly threads: number;
  /** The adapter's or the processor's name, as far as it is known. */
  readonly description: string;
  /** Whether its device is a GPU: free memory shows only when it is allocated. */
  readonly onGpu: boolean;
  /** Whether that GPU is emulated by the processor: its tensors are in the host's memory. */
  readonly software?: boolean;
  /** Multiply-adds ×2 per second that may be expected; the decoder sizes prefill chunks by it. */
  readonly nominalFlops: number;
  /** Steps worth queueing before a read; default 1, where a step is done when `run` returns. */
  readonly readAhead?: number;
  /** Tracked bytes of every buffer; all zero after dispose. */
  readonly memory: Memory;

  /**
   * Bytes that the passes of a model take at most beside its tensors (scratch of plans and threads,
   * padding), counted as activations; missing where they take none.
   */
  scratchBytes?(sizes: TensorSizes): number;
  /**
   * Checks for room for `bytes` more before anything is loaded; missing where only the host's
   * memory is used.
   * @param largest bytes of the largest tensor among them, weights apart.
   * @throws {DeviceError} If there is less, naming `what` and the bytes that are free.
   */
  expectFree?(what: string, bytes: number, largest?: number): Promise<void>;
  /**
   * A zeroed tensor. If the device runs out of memory, the next `read` throws.
   * @throws {RangeError} If it is larger than one buffer of this backend.
   */
  tensor(shape: readonly number[], dtype: Dtype, kind: MemoryClass): Tensor;
  /**
   * A weight [N, K], laid out as this backend reads it fastest. `fill` is asked for the rows as
   * they are stored (N rows of K under "NK", K rows of N under "KN"), in order, into one bounded
   * scratch buffer.
   * @throws {RangeError} If the weight cannot fit this backend, before anything is allocated.
   */
  weight(
    shape: readonly [N: number, K: number],
    dtype: WeightDtype,
    fill: FillRows,
    options: { readonly stored: StoredOrder },
  ): Promise<Weight>;
  /**
   * Copies elements to `t` from element `offset` on; steps queued before still see the old values.
   * Of a 16-bit tensor, whole pairs: `offset` is even, and so is the end, if not the tensor's.
   * @throws {TypeError} If `data` is not the kind of array that holds the tensor's dtype.
   */
  write(t: Tensor, data: HostArray, offset?: number): void;
  /**
   * Elements `start` … `start + count` (default all). Waits for everything queued before, and
   * throws its errors.
   */
  read(t: Tensor, start?: number, count?: number): Promise<HostArray>;
  /**
   * Runs `build` against a recorder and compiles its calls.
   * @throws {RangeError} If the operands of a call do not fit, naming the operation.
   */
  record(build: (k: Recorder) => void): Promise<Plan>;
  /**
   * As `record`, with the same kernels in every run of a program; missing where `record` never
   * chooses kernels by measuring.
   */
  recordFixed?(build: (k: Recorder) => void): Promise<Plan>;
  /**
   * Runs a pass some dozen times, as a plan of `build` would run, and measures each kind of kernel.
   * It writes to its operands as a plan does, and throws what `record` and `read` throw.
   */
  profile(build: (k: Recorder) => void, step: Step | Segment): Promise<KernelTime[]>;
  /** The generated code of the plans in use; missing where plans are not generated code. */
  shaders?(): KernelText[];
}

/** A generated kernel of the plans in use; calls that differ only in their operands share one. */
export interface KernelText {
  /** The operation; "program" for a whole WebAssembly module, which calls its kernels in order. */
  readonly op: string;
  /** The kind of kernel as a profile names it: the operation, a product with its shape. */
  readonly name: string;
  /** WGSL, or WebAssembly's text format with flat instructions. */
  readonly language: "wgsl" | "wat";
  /** Calls in one run of each plan in use. */
  readonly calls: number;
  /** Bytes that were compiled: of the shader's text, or of the functions' binary code. */
  readonly bytes: number;
  /** The code, a kernel's with the functions that it calls. */
  readonly text: string;
}

/** Time, bytes and operations of one kind of kernel in one run of a pass. */
export interface KernelTime {
  /** The operation, a product with its inputs and outputs; fused ones joined by " + ". */
  readonly name: string;
  /** Number of calls. */
  readonly calls: number;
  /** Milliseconds of all its calls: the median of several runs. */
  readonly ms: number;
  /** Bytes of all its calls: of their operands, each moved once. */
  readonly bytes: number;
  /** Multiplications and additions of all its calls. */
  readonly flops: number;
}

/** A recorded pass. Disposing of it frees its own scratch; it runs no more. */
export interface Plan extends Disposable {
  /**
   * Queues the pass over a step; a lone segment is a step of one. Creates no object, computes no
   * shape; the next `read` throws the device's errors.
   * @throws {RangeError} If a step has more than one segment, or one of another sequence than 0,
   *   or writes rows or slots beyond the tensors that the plan was recorded with.
   */
  run(step: Step | Segment): void;
}
