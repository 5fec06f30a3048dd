/**
 * Contract between model and device: record a forward pass once, replay it for every token.
 *
 *     record(build) ──▶ Plan ── run(step) ── run(step) ── … ── read(tensor)
 *     once, compiles            queues a step each             waits for all of them
 *
 * Think of a backend as one device with one queue. It owns every tensor and frees all of them when
 * it is disposed; it knows no model, file or text. `docs/backends.md` describes each backend.
 *
 * @module
 */
import type { Recorder } from "./calls.ts";
import type { Memory } from "./memory.ts";
import type { Segment, Step } from "./step.ts";
import type { Weight, WeightDtype } from "./formats/mod.ts";
import type { Dtype, FillRows, HostArray, MemoryClass, StoredOrder, Tensor } from "./tensor.ts";

import type { Activations } from "./ops/contract.ts";

export type { Activations, Recorder, Segment, Step };

/** Name of a backend: GPU shaders, WebAssembly SIMD, or typed arrays. */
export type BackendName = "webgpu" | "wasm" | "js";

/** Names of the backends, fastest on most machines first. */
export const BACKEND_NAMES: readonly BackendName[] = ["webgpu", "wasm", "js"];

/** Sizes of a model's tensors, from which a backend derives the scratch of its passes. */
export interface TensorSizes {
  /** Bytes of all weights and tensors. */
  readonly total: number;
  /** T: rows of the largest pass. */
  readonly rows: number;
  /** Bytes of the widest tensor [T, K] of that pass. */
  readonly widest: number;
}

/** Extents and numbers of a tensor to allocate. */
export interface TensorSpec {
  /** Extents, outermost first. */
  readonly shape: readonly number[];
  /** Of its numbers. */
  readonly dtype: Dtype;
}

/** Holds tensors and runs recorded passes over them. Disposing of it frees all of them. */
export interface Backend extends AsyncDisposable {
  /** Name of this backend. */
  readonly name: BackendName;
  /** Compute threads, including the calling one. */
  readonly threads: number;
  /** Name of the adapter or processor, or a generic one where the platform hides it. */
  readonly description: string;
  /** A sentence for the user on how it was opened, such as with fewer threads; missing if none. */
  readonly note?: string;
  /** Whether the device is a GPU, whose free memory shows only by allocating it. */
  readonly onGpu: boolean;
  /** Whether the CPU emulates that GPU, with tensors in the host's memory. */
  readonly software?: boolean;
  /**
   * Expected FLOP/s (a multiply-add is two); the decoder sizes prefill chunks by it, unless
   * `prefillRows` is given.
   */
  readonly nominalFlops: number;
  /** Rows of a prefill chunk that occupy the device; default by `nominalFlops`, at most 128. */
  readonly prefillRows?: number;
  /** Steps worth queueing before a read; default 1: a step is complete when `run` returns. */
  readonly readAhead?: number;
  /** Tracked bytes of all buffers by class; zero after dispose. */
  readonly memory: Memory;

  /** Bits of vectors: "128", "256", or "256, unchecked" (no bounds checks); missing if unknown. */
  readonly simd?: string;
  /** Precision of x in integer products with blocked weights; missing if products are floats. */
  readonly activations?: Activations;
  /** Whether `weight` quantises rows of dtype `from` to `dtype`; missing if it never does. */
  readonly encodes?: (dtype: WeightDtype, from: WeightDtype) => boolean;
  /** Whether it has kernels for weights of a dtype; missing if for all. */
  readonly holds?: (dtype: WeightDtype) => boolean;
  /**
   * Upper bound of the bytes that a model's passes take beside its tensors (scratch of plans and
   * threads, padding), counted as activations; missing if they take none.
   * @param sizes of the model's tensors.
   */
  scratchBytes?(sizes: TensorSizes): number;
  /**
   * Checks that the device can hold `bytes` more, before anything is loaded; missing on backends
   * that use the host's memory.
   * @param what is about to be loaded: the name in the error.
   * @param bytes to be allocated in all.
   * @param largest bytes of the largest tensor that is not a weight; default 0.
   * @throws {DeviceError} If they do not fit, with the number of free bytes.
   */
  expectFree?(what: string, bytes: number, largest?: number): Promise<void>;
  /**
   * Prepares for a run that is loaded next; missing on backends that gain nothing.
   * @param what is about to be loaded: the name in the error.
   * @param bytes to be allocated in all.
   * @param weights bytes of the weights among them.
   * @throws {DeviceError} As `expectFree`.
   */
  reserve?(what: string, bytes: number, weights: number): Promise<void>;
  /**
   * Allocates a zeroed tensor. If the device runs out of memory, the next `read` throws.
   * @param shape extents, outermost first.
   * @param dtype of its numbers.
   * @param kind the class that its bytes are counted under.
   * @throws {RangeError} If it is larger than one buffer of this backend.
   */
  tensor(shape: readonly number[], dtype: Dtype, kind: MemoryClass): Tensor;
  /**
   * Allocates zeroed tensors in one buffer if it can hold them, which makes the steps that write
   * them cheaper to queue; missing on backends that gain nothing. No call may have one of them as
   * two operands if it writes another.
   * @param specs shape and dtype of each tensor.
   * @param kind the class that their bytes are counted under.
   * @throws {RangeError} If one of them is larger than one buffer of this backend.
   */
  tensorsTogether?(specs: readonly TensorSpec[], kind: MemoryClass): Tensor[];
  /**
   * Uploads a weight [N, K] in the layout that this backend reads fastest.
   * @param shape [N, K] whatever the order in the file.
   * @param dtype of the stored numbers, on both sides.
   * @param fill called in order for chunks of stored rows (N rows of K under "NK", K rows of N
   *   under "KN"); every call may reuse one bounded scratch buffer.
   * @param options the order of the stored rows, and their dtype if the backend quantises them
   *   (`encodes`).
   * @throws {RangeError} If the weight cannot fit this backend, before anything is allocated.
   */
  weight(
    shape: readonly [N: number, K: number],
    dtype: WeightDtype,
    fill: FillRows,
    options: { readonly stored: StoredOrder; readonly from?: WeightDtype },
  ): Promise<Weight>;
  /**
   * Copies `data` to `t` from element `offset` on. Steps queued before still see the old values.
   * @param t destination.
   * @param data elements; 16-bit floats as their bits.
   * @param offset first element, default 0. In a 16-bit tensor it must be even, and so must the end
   *   unless it is the end of the tensor.
   * @throws {TypeError} If `data` is not the array type of the tensor's dtype.
   */
  write(t: Tensor, data: HostArray, offset?: number): void;
  /**
   * Copies elements `start` … `start + count` to the host, after all steps queued before.
   * @param t source.
   * @param start first element, default 0.
   * @param count number of elements, default all from `start` on.
   * @throws {DeviceError} If a step queued before has failed, or the device is lost.
   */
  read(t: Tensor, start?: number, count?: number): Promise<HostArray>;
  /**
   * Runs `build` against a recorder and compiles the calls that it makes.
   * @param build makes the calls of one forward pass, in order.
   * @throws {RangeError} If the operands of a call do not fit each other.
   * @throws {DeviceError} If the device cannot compile or bind one of the kernels.
   */
  record(build: (k: Recorder) => void): Promise<Plan>;
  /**
   * As `record`, but never chooses a kernel by timing it, so that every process runs the same ones;
   * missing if `record` never does.
   * @param build makes the calls of one forward pass, in order.
   */
  recordFixed?(build: (k: Recorder) => void): Promise<Plan>;
  /**
   * Measures each kind of kernel over several runs of a pass. The runs write to the pass's
   * operands, as a plan does.
   * @param build makes the calls of the pass.
   * @param step the rows and positions of every run.
   * @throws {DeviceError} If the device cannot compile or run the pass.
   * @throws {RangeError} If the operands of a call do not fit each other.
   */
  profile(build: (k: Recorder) => void, step: Step | Segment): Promise<KernelTime[]>;
  /** Generated code of the plans in use; missing if plans are not generated code. */
  shaders?(): KernelText[];
}

/** Text of a generated kernel; calls that differ only in their operands share one. */
export interface KernelText {
  /** The operation, or "program" for a whole WebAssembly module, which calls kernels in order. */
  readonly op: string;
  /** Kind of kernel, as in a profile: the operation; a matmul with its shape. */
  readonly name: string;
  /** WGSL, or WebAssembly's text format with flat instructions. */
  readonly language: "wgsl" | "wat";
  /** Operands of the first such call: "x F32 [1, 64], read"; none of a "program". */
  readonly operands: readonly string[];
  /** Calls in one run of each plan in use. */
  readonly calls: number;
  /** Bytes compiled: of the shader's text, or of the functions' binary code. */
  readonly bytes: number;
  /** The code, including the functions that the kernel calls. */
  readonly text: string;
}

/** Time, bytes and FLOPs of one kind of kernel in one run of a pass. */
export interface KernelTime {
  /** Kind of kernel: the operation; a matmul as "matmul K→N"; fused ones joined by " + ". */
  readonly name: string;
  /** Number of calls. */
  readonly calls: number;
  /** Milliseconds of all its calls, median over several runs. */
  readonly ms: number;
  /** Minimum bytes of all its calls: each operand moved once. */
  readonly bytes: number;
  /** Multiplications and additions of all its calls. */
  readonly flops: number;
}

/** A recorded pass. Disposing of it frees its scratch; its tensors stay with the backend. */
export interface Plan extends Disposable {
  /**
   * Queues the pass over a step, without allocating anything. Errors of the device are thrown by
   * the next `read`.
   * @param step rows and positions; a single segment is a step by itself.
   * @throws {RangeError} If a step has more than one segment, or one of another sequence than 0.
   */
  run(step: Step | Segment): void;
}
