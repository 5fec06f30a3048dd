/**
 * Models on an adapter with WebGPU's least limits, scaled down with the model.
 *
 * @module
 */
import assert from "node:assert/strict";
import { loadModel } from "../../engine/load.ts";
import { instrumentsOf, type Model } from "../../engine/model.ts";
import { assertClose, TOLERANCE } from "../testing.ts";
import { Spy } from "./spy.ts";

/** A model; its widest panel has 32 rows of 256 inputs. */
export const CONFIG = {
  family: "gpt2",
  vocab_size: 200,
  block_size: 8,
  n_layer: 1,
  n_head: 4,
  n_embd: 64,
};

/**
 * Bytes of a binding, in place of 128 MiB: little more than the widest panel, so that the table
 * and the matrices of the MLP take several.
 */
const SMALL = { F32: 40 << 10, F16: 20 << 10, Q8_0: 10 << 10 } as const;

/** An adapter with bindings of at most so many bytes, and kernels for a GPU. */
export class SmallAdapter implements Disposable {
  /** Most bytes that a bind group had at one of its bindings. */
  most = 0;
  /** Bytes of workgroup memory of the device. */
  workgroupBytes = 0;
  readonly #spy = new Spy();
  readonly #undo: (() => void)[] = [];

  constructor(bytes: number, software: boolean) {
    this.#replace(GPUSupportedLimits.prototype, "maxStorageBufferBindingSize", bytes);
    if (!software) {
      this.#replace(GPUAdapterInfo.prototype, "description", "A card");
      this.#replace(GPUAdapterInfo.prototype, "isFallbackAdapter", false);
    }
    this.#spy.on(GPUDevice, "createBindGroup", (device, _group, [descriptor]) => {
      this.workgroupBytes = (device as GPUDevice).limits.maxComputeWorkgroupStorageSize;
      for (const { resource } of (descriptor as GPUBindGroupDescriptor).entries) {
        const { buffer, offset = 0, size } = resource as GPUBufferBinding;
        if (buffer.label === "staging") continue; // chunks of a file, of a few MiB
        this.most = Math.max(this.most, size ?? buffer.size - offset);
      }
    });
  }

  #replace(prototype: object, name: string, value: unknown): void {
    const original = Object.getOwnPropertyDescriptor(prototype, name)!;
    Object.defineProperty(prototype, name, { get: () => value, configurable: true });
    this.#undo.push(() => Object.defineProperty(prototype, name, original));
  }

  [Symbol.dispose](): void {
    this.#spy[Symbol.dispose]();
    for (const undo of this.#undo) undo();
  }
}

/** Logits after each of `ids`, from a prefill and from decode steps. */
async function logitsOf(model: Model, ids: readonly number[]): Promise<Float32Array[]> {
  const { run } = instrumentsOf(model);
  const last = (count: number) => {
    const part = ids.slice(0, count);
    return run(part, (runner) => runner.lastLogits(part));
  };
  return [await last(ids.length - 1), await last(1), await last(ids.length)];
}

/** A format of weights, and whether its kernels are for a software adapter. */
type SmallCase = readonly [dtype: keyof typeof SMALL, software: boolean];

/** All formats with both kinds of kernels. */
export const SMALL_CASES: readonly SmallCase[] = (["F32", "F16", "Q8_0"] as const).flatMap(
  (dtype) => [false, true].map((software) => [dtype, software] as const),
);

/** Declares a test of a model for each case. */
export function testSmallModels(cases: readonly SmallCase[], ignore: boolean): void {
  for (const [dtype, software] of cases) {
    const kernels = software ? "a software adapter" : "a GPU";
    Deno.test({
      name:
        `a model of ${dtype} is right when its table and matrices exceed one binding of ${kernels}`,
      ignore,
      async fn() {
        const bytes = SMALL[dtype];
        const ids = [199, 3, 150, 31, 32, 164, 7];
        await using js = await loadModel({ config: CONFIG }, { device: "js", dtype });
        const expected = await logitsOf(js, ids);
        using adapter = new SmallAdapter(bytes, software);
        const options = { device: "webgpu", dtype, tune: false } as const;
        await using model = await loadModel({ config: CONFIG }, options);
        const got = await logitsOf(model, ids);
        for (const [i, logits] of got.entries()) {
          assertClose(logits, expected[i], TOLERANCE.logits, `${i}`);
        }
        for (const [i, again] of (await logitsOf(model, ids)).entries()) {
          assert.deepEqual(again, got[i], "the same bits");
        }
        assert.ok(adapter.most > bytes / 2 && adapter.most <= bytes, `${adapter.most}`);
        assert.equal(adapter.workgroupBytes, 16 << 10);
      },
    });
  }
}
