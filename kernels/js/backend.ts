/**
 * The typed-array backend: runs wherever JavaScript does, on one thread, and is the oracle of the others.
 *
 * A plan is a list of calls of the typed-array forms with their operands bound; running it walks the list.
 *
 * @module
 */
import { attentionJs, checkAttention } from "../ops/attention/mod.ts";
import type { Backend, KernelTime, Plan, Recorder } from "../backend.ts";
import { onlySegment, type Segment, type Step } from "../step.ts";
import { noteCosts } from "../cost.ts";
import { addPositionJs, checkAddPosition, checkEmbed, embedJs } from "../ops/embed.ts";
import { checkWriteKv, type KvCache, writeKvJs } from "../ops/kv_cache/mod.ts";
import { checkMatmul, matmulJs, matmulScratch, type Rows } from "../ops/matmul/mod.ts";
import { Memory } from "../memory.ts";
import { checkNorm, normJs, type NormOptions } from "../ops/norm.ts";
import { laps, profileRuns } from "../profile.ts";
import { checkSample, sampleJs } from "../ops/sample/mod.ts";
import { BYTES, hostArray, type Weight, type WeightDtype } from "../formats/mod.ts";
import {
  type Dtype,
  type FillRows,
  type HostArray,
  type MemoryClass,
  sizeOf,
  type StoredOrder,
  type Tensor,
} from "../tensor.ts";

class JsTensor implements Tensor {
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
    readonly data: Float32Array | Uint16Array,
  ) {}
}

/** Bytes of a file's rows that are turned at a time when they are stored KN. */
const SCRATCH_BYTES = 1 << 20;

/** Opens the typed-array backend. */
export function openJsBackend(description = "typed arrays"): Backend {
  return new JsBackend(description);
}

class JsBackend implements Backend {
  readonly name = "js";
  readonly threads = 1;
  readonly nominalFlops = 4e9;
  readonly memory = new Memory();
  #made: [MemoryClass, number][] = [];

  constructor(readonly description: string) {}

  tensor(shape: readonly number[], dtype: Dtype, kind: MemoryClass): Tensor {
    return new JsTensor(shape, dtype, this.#allocate(sizeOf(shape), dtype, kind));
  }

  async weight(
    shape: readonly [N: number, K: number],
    dtype: WeightDtype,
    fill: FillRows,
    { stored }: { stored: StoredOrder },
  ): Promise<Weight> {
    const [N, K] = shape;
    const data = this.#allocate(N * K, dtype, "weights") as Float32Array | Uint16Array;
    const rowBytes = (stored === "NK" ? K : N) * BYTES[dtype];
    const chunk = Math.max(1, Math.floor(SCRATCH_BYTES / rowBytes));
    if (stored === "NK") {
      for (let n = 0; n < N; n += chunk) {
        const count = Math.min(chunk, N - n);
        await fill(n, count, data.subarray(n * K, (n + count) * K));
      }
    } else {
      const scratch = hostArray(dtype, Math.min(chunk, K) * N) as typeof data;
      this.memory.add("staging", scratch.byteLength);
      try {
        for (let k = 0; k < K; k += chunk) {
          const count = Math.min(chunk, K - k);
          await fill(k, count, scratch.subarray(0, count * N));
          for (let n = 0; n < N; n++) {
            for (let i = 0; i < count; i++) data[n * K + k + i] = scratch[i * N + n];
          }
        }
      } finally {
        this.memory.add("staging", -scratch.byteLength);
      }
    }
    return new JsWeight(shape, dtype, data);
  }

  write(t: Tensor, data: HostArray, offset = 0): void {
    const { data: to, dtype } = t as JsTensor;
    if (data.constructor !== to.constructor) {
      throw new TypeError(`Cannot write to a tensor of ${dtype} from a ${data.constructor.name}`);
    }
    to.set(data, offset);
  }

  // deno-lint-ignore require-await -- a promise by contract; here nothing is queued
  async read(t: Tensor, start = 0, count = sizeOf(t.shape) - start): Promise<HostArray> {
    return (t as JsTensor).data.slice(start, start + count);
  }

  // deno-lint-ignore require-await -- a promise by contract; here nothing is compiled
  async record(build: (k: Recorder) => void): Promise<Plan> {
    const recorder = new JsRecorder();
    build(recorder);
    const calls = recorder.calls;
    return {
      run(step: Step | Segment): void {
        const segment = onlySegment(step);
        for (const call of calls) call(segment);
      },
      [Symbol.dispose](): void {
        calls.length = 0;
      },
    };
  }

  /** Looks at the clock after each call. */
  async profile(build: (k: Recorder) => void, step: Step | Segment): Promise<KernelTime[]> {
    const segment = onlySegment(step);
    const recorder = new JsRecorder();
    const { calls } = recorder;
    const { recorder: noted, parts } = noteCosts(recorder, segment, () => calls.length);
    build(noted);
    return await profileRuns(parts, () => {
      const start = performance.now();
      const marks = calls.map((call) => {
        call(segment);
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

  #allocate(count: number, dtype: Dtype, kind: MemoryClass): HostArray {
    const data = hostArray(dtype, count);
    this.memory.add(kind, data.byteLength);
    this.#made.push([kind, data.byteLength]);
    return data;
  }
}

class JsRecorder implements Recorder {
  readonly calls: ((segment: Segment) => void)[] = [];

  embed: Recorder["embed"] = (y, table, ids, options = {}) => {
    checkEmbed(y, table, ids);
    const [to, from] = [f32(y), ids as JsTensor];
    this.calls.push(({ rows }) =>
      embedJs(to, table as JsWeight, from.data as Int32Array, options, rows)
    );
  };

  addPosition: Recorder["addPosition"] = (x, table) => {
    checkAddPosition(x, table);
    const to = f32(x);
    const row = new Float32Array(table.shape[1]);
    this.calls.push(({ rows, position }) =>
      addPositionJs(to, table as JsWeight, position, rows, row)
    );
  };

  norm: Recorder["norm"] = (y, x, options) => {
    checkNorm(y, x, options);
    const [to, from] = [f32(y), f32(x)];
    const bound = bindNorm(options);
    this.calls.push(({ rows }) => normJs(to, from, bound, rows));
  };

  matmul: Recorder["matmul"] = (y, x, weight, options = {}) => {
    const { K } = checkMatmul(y, x, weight, options);
    const [to, from] = [f32(y), f32(x)];
    const bound = {
      ...options,
      bias: options.bias && f32(options.bias),
      gate: options.gate && f32(options.gate),
    };
    const scratch = matmulScratch(weight.dtype, K);
    this.calls.push(({ rows }) => matmulJs(to, from, weight as JsWeight, bound, rows, scratch));
  };

  writeKv: Recorder["writeKv"] = (q, cache, qkv, options = {}) => {
    const shape = checkWriteKv(q, cache, qkv, options);
    const [to, from, kv] = [f32(q), f32(qkv), bindCache(cache)];
    const bound = {
      rotaryDim: options.rotaryDim ?? options.table?.shape[1],
      interleaved: options.interleaved,
      table: options.table && f32(options.table),
      qNorm: options.qNorm && bindNorm(options.qNorm),
      kNorm: options.kNorm && bindNorm(options.kNorm),
    };
    const key = new Float32Array(shape.G * shape.D);
    this.calls.push((segment) => writeKvJs(to, kv, from, bound, shape, segment, key));
  };

  attention: Recorder["attention"] = (y, q, cache, options = {}) => {
    const shape = checkAttention(y, q, cache, options);
    const [to, from, kv] = [f32(y), f32(q), bindCache(cache)];
    const scores = new Float64Array(shape.S);
    const sums = new Float64Array(shape.D);
    this.calls.push((segment) => attentionJs(to, from, kv, options, shape, segment, scores, sums));
  };

  sample: Recorder["sample"] = (ids, logits, sampling) => {
    const { V } = checkSample(ids, logits, sampling);
    const to = (ids as JsTensor).data as Int32Array;
    const from = f32(logits);
    const bound = {
      settings: f32(sampling.settings),
      counter: (sampling.counter as JsTensor).data as Uint32Array,
      seen: (sampling.seen as JsTensor).data as Uint32Array,
      drawn: (sampling.drawn as JsTensor).data as Int32Array,
    };
    const scratch = { kept: new Float32Array(V), sorted: new Float32Array(V) };
    this.calls.push(() => sampleJs(to, from, bound, scratch));
  };
}

/** The numbers of an F32 tensor; its dtype was checked while recording. */
function f32(t: Tensor): Float32Array {
  return (t as JsTensor).data as Float32Array;
}

function bindNorm(norm: NormOptions): NormOptions<Float32Array> {
  return { ...norm, weight: f32(norm.weight), bias: norm.bias && f32(norm.bias) };
}

function bindCache({ k, v }: KvCache): KvCache<Float32Array> {
  return { k: f32(k), v: f32(v) };
}
