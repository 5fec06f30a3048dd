/**
 * Typed-array backend: one thread of plain JavaScript; the oracle of the other backends.
 *
 * A plan is a list of closures, one per call, bound to its operands; `run` calls them in order.
 *
 * @module
 */
import type { Backend, KernelTime, Plan, Recorder } from "../backend.ts";
import { type Forms, lower, record, roomOf } from "../calls.ts";
import { hostArray, storedBytes, type Weight, type WeightDtype, wordsOf } from "../formats/mod.ts";
import { Memory } from "../memory.ts";
import { bindAttention } from "../ops/attention/mod.ts";
import type { Closure, HostTensor } from "../ops/contract.ts";
import { bindAddPosition, bindEmbed } from "../ops/embed.ts";
import { bindWriteKv } from "../ops/kv_cache/mod.ts";
import { bindMatmul, type Rows } from "../ops/matmul/mod.ts";
import { bindNorm } from "../ops/norm.ts";
import { bindSample } from "../ops/sample/mod.ts";
import { laps, partsOf, profileRuns } from "../profile.ts";
import { onlySegment, type Segment, type Step } from "../step.ts";
import {
  type Dtype,
  type FillRows,
  type HostArray,
  type MemoryClass,
  sizeOf,
  type StoredOrder,
  type Tensor,
} from "../tensor.ts";

/** Binds the call of each operation to its operands. */
const CLOSURES: Forms<void, Closure> = {
  embed: bindEmbed,
  addPosition: bindAddPosition,
  norm: bindNorm,
  matmul: bindMatmul,
  writeKv: bindWriteKv,
  attention: bindAttention,
  sample: bindSample,
};

class JsTensor implements HostTensor {
  constructor(
    readonly shape: readonly number[],
    readonly dtype: Dtype,
    readonly data: HostArray,
  ) {}
}

class JsWeight implements Weight, Rows {
  constructor(
    readonly shape: readonly [N: number, K: number],
    readonly dtype: WeightDtype,
    readonly data: Uint8Array,
  ) {}
}

/** Bytes of KN rows that are transposed at a time. */
const SCRATCH_BYTES = 1 << 20;

/** Opens the typed-array backend; `note` says why it takes the place of a faster one. */
export function openJsBackend(note?: string): Backend {
  return new JsBackend(note);
}

class JsBackend implements Backend {
  readonly name = "js";
  readonly description = "typed arrays";
  readonly onGpu = false;
  readonly threads = 1;
  readonly nominalFlops = 4e9;
  readonly memory = new Memory();
  #made: [MemoryClass, number][] = [];

  constructor(readonly note?: string) {}

  tensor(shape: readonly number[], dtype: Dtype, kind: MemoryClass): Tensor {
    return new JsTensor(shape, dtype, this.#track(hostArray(dtype, sizeOf(shape)), kind));
  }

  async weight(
    shape: readonly [N: number, K: number],
    dtype: WeightDtype,
    fill: FillRows,
    { stored }: { stored: StoredOrder },
  ): Promise<Weight> {
    const [N, K] = shape;
    const data = this.#track(new Uint8Array(storedBytes(dtype, N * K)), "weights");
    const rowBytes = storedBytes(dtype, stored === "NK" ? K : N);
    const chunk = Math.max(1, Math.floor(SCRATCH_BYTES / rowBytes));
    if (stored === "KN") await this.#transpose(data, shape, dtype, fill, chunk);
    else {
      for (let n = 0; n < N; n += chunk) {
        const count = Math.min(chunk, N - n);
        await fill(n, count, data.subarray(n * rowBytes, (n + count) * rowBytes));
      }
    }
    return new JsWeight(shape, dtype, data);
  }

  /** Fills `data` [N, K] from KN rows, `chunk` of them at a time. */
  async #transpose(
    data: Uint8Array,
    [N, K]: readonly [N: number, K: number],
    dtype: WeightDtype,
    fill: FillRows,
    chunk: number,
  ): Promise<void> {
    const scratch = new Uint8Array(storedBytes(dtype, Math.min(chunk, K) * N));
    const [to, from] = [wordsOf(dtype, data), wordsOf(dtype, scratch)];
    this.memory.add("staging", scratch.byteLength);
    try {
      for (let k = 0; k < K; k += chunk) {
        const count = Math.min(chunk, K - k);
        await fill(k, count, scratch.subarray(0, storedBytes(dtype, count * N)));
        for (let n = 0; n < N; n++) {
          for (let i = 0; i < count; i++) to[n * K + k + i] = from[i * N + n];
        }
      }
    } finally {
      this.memory.add("staging", -scratch.byteLength);
    }
  }

  write(t: Tensor, data: HostArray, offset = 0): void {
    const { data: to, dtype } = t as JsTensor;
    if (data.constructor !== to.constructor) {
      throw new TypeError(
        `Cannot write to ${dtype} [${t.shape}]: expected ${to.constructor.name}, ` +
          `got ${data.constructor.name}`,
      );
    }
    to.set(data, offset);
  }

  // deno-lint-ignore require-await -- a promise by contract; this backend queues nothing
  async read(t: Tensor, start = 0, count = sizeOf(t.shape) - start): Promise<HostArray> {
    return (t as JsTensor).data.slice(start, start + count);
  }

  // deno-lint-ignore require-await -- a promise by contract; this backend compiles nothing
  async record(build: (k: Recorder) => void): Promise<Plan> {
    const calls = record(build);
    const room = roomOf(calls);
    const closures = calls.map((call) => lower(call, CLOSURES, undefined));
    return {
      run(step: Step | Segment): void {
        const segment = onlySegment(step, room);
        for (const closure of closures) closure(segment);
      },
      [Symbol.dispose](): void {
        closures.length = 0;
      },
    };
  }

  /** Reads the clock after each call. */
  async profile(build: (k: Recorder) => void, step: Step | Segment): Promise<KernelTime[]> {
    const calls = record(build);
    const segment = onlySegment(step, roomOf(calls));
    const closures = calls.map((call) => lower(call, CLOSURES, undefined));
    return await profileRuns(partsOf(calls, closures.map((one) => [one]), segment), () => {
      const start = performance.now();
      const marks = closures.map((closure) => {
        closure(segment);
        return performance.now();
      });
      return laps(start, marks);
    });
  }

  // deno-lint-ignore require-await -- a promise by contract
  async [Symbol.asyncDispose](): Promise<void> {
    for (const [kind, bytes] of this.#made) this.memory.add(kind, -bytes);
    this.#made = [];
  }

  #track<A extends HostArray | Uint8Array>(data: A, kind: MemoryClass): A {
    this.memory.add(kind, data.byteLength);
    this.#made.push([kind, data.byteLength]);
    return data;
  }
}
