/**
 * Lowering to WebGPU: from the calls of a pass to shaders and the buffers at their bindings.
 *
 * @module
 */
import { type Call, type Forms, lower } from "../calls.ts";
import { expectThat } from "../errors.ts";
import type { Weight } from "../formats/mod.ts";
import { attentionDispatches } from "../ops/attention/wgsl.ts";
import {
  type GpuDispatch,
  type GpuPart,
  type GpuTarget,
  type Operand,
  scratchOf,
} from "../ops/contract.ts";
import { addPositionDispatches, embedDispatches } from "../ops/embed.ts";
import { writeKvDispatches } from "../ops/kv_cache/wgsl.ts";
import type { MatmulCall } from "../ops/matmul/mod.ts";
import type { Tile } from "../ops/matmul/tiles.ts";
import { matmulDispatches } from "../ops/matmul/wgsl.ts";
import { normDispatches } from "../ops/norm.ts";
import { sampleDispatches } from "../ops/sample/wgsl.ts";
import { type Gpu, GpuTensor } from "./device.ts";
import type { Binding, ShaderCall } from "./pipeline.ts";
import type { Tiles } from "./tuner.ts";
import { GpuWeight } from "./weights.ts";

/** Dispatches of each operation. */
const DISPATCHES: Forms<WebGpuLowering, readonly GpuDispatch[]> = {
  embed: embedDispatches,
  addPosition: addPositionDispatches,
  norm: normDispatches,
  matmul: (call, target) =>
    matmulDispatches(call, target, target.tiles.of(call.weight, call.x.shape[0], !!call.norm)),
  writeKv: writeKvDispatches,
  attention: attentionDispatches,
  sample: sampleDispatches,
};

/** Target of a pass: properties of the device, and the scratch that the pass allocates. */
export class WebGpuLowering implements GpuTarget {
  readonly software: boolean;
  readonly subgroups: boolean;
  readonly smallestSubgroup: number;
  /** Scratch buffers, owned by the plan. */
  readonly buffers: GPUBuffer[] = [];
  readonly #gpu: Gpu;
  /** Scratch for partial sums, by bytes. */
  readonly #partials = new Map<number, Operand>();

  constructor(gpu: Gpu, readonly tiles: Tiles) {
    this.#gpu = gpu;
    this.software = gpu.software;
    this.subgroups = gpu.features.has("subgroups");
    this.smallestSubgroup = this.subgroups ? gpu.smallestSubgroup : 1;
  }

  /**
   * Lowers a call to its dispatches.
   * @throws {RangeError} If a written buffer is bound twice, which WebGPU refuses.
   * @throws {TypeError} If an operand belongs to another backend.
   */
  lower(call: Call): ShaderCall[] {
    return bind(lower(call, DISPATCHES, this));
  }

  /** Lowers a product with a given tile, to time it. */
  product(call: MatmulCall, tile: Tile): ShaderCall[] {
    return bind(matmulDispatches(call, this, tile));
  }

  parts(weight: Operand): GpuPart[] {
    const { shape: [, K], parts } = weightOf(weight.of as Weight);
    return parts.map(({ first, count, buffer }) => ({
      first,
      count,
      // A block of the weight's dtype is not an element of a tensor's: the shader gives it a type.
      operand: { ...weight, of: new GpuTensor([count, K], "U32", buffer) },
    }));
  }

  scratch(bytes: number): Operand {
    const buffer = this.#gpu.storage(bytes, "activations");
    this.buffers.push(buffer);
    return scratchOf(new GpuTensor([bytes / 4], "U32", buffer, 0, bytes, 0));
  }

  firstOf({ of }: Operand): () => number {
    if (!(of instanceof GpuTensor)) throw foreign();
    return () => of.first;
  }

  partials(bytes: number): Operand {
    // Powers of two, so that products of similar sizes share one buffer.
    const size = 2 ** Math.ceil(Math.log2(bytes));
    let partials = this.#partials.get(size);
    if (!partials) this.#partials.set(size, partials = this.scratch(size));
    return partials;
  }
}

/** The buffers at the bindings of dispatches. */
function bind(dispatches: readonly GpuDispatch[]): ShaderCall[] {
  return dispatches.map((dispatch) => {
    const bindings = dispatch.operands.map(bindingOf);
    expectThat(
      dispatch.op,
      areDistinct(bindings),
      "no written tensor to be another operand, too",
    );
    return shareBuffers({ ...dispatch, operands: bindings });
  });
}

/**
 * Makes a dispatch's bindings of a buffer read-write if it writes one of them: WebGPU refuses a
 * buffer that is bound read-only as well. One barrier, for the whole buffer, then comes before the
 * dispatch, in place of one for each tensor.
 */
function shareBuffers(call: ShaderCall): ShaderCall {
  const written = new Set(call.operands.map((operand) => operand?.written && operand.buffer));
  const operands = call.operands.map((operand) =>
    operand && { ...operand, written: written.has(operand.buffer) }
  );
  const wgsl = call.wgsl.replace(
    /(@group\(1\) @binding\((\d+)\) var<storage, read)>/g,
    (whole, head, binding) => operands[binding]?.written ? `${head}_write>` : whole,
  );
  return { ...call, operands, wgsl };
}

function bindingOf(operand: Operand | undefined): Binding | undefined {
  if (!operand) return undefined;
  const { of, access } = operand;
  if (!(of instanceof GpuTensor)) throw foreign();
  const { buffer, start, bytes, least } = of;
  return { buffer, start, bytes, written: access !== "read", least };
}

/** Whether no written bytes are bound twice, nor any bytes of a written buffer. */
function areDistinct(bindings: readonly (Binding | undefined)[]): boolean {
  const present = bindings.filter((binding) => binding !== undefined);
  const written = new Set(present.map((binding) => binding.written && binding.buffer));
  return present.every((a, i) =>
    !written.has(a.buffer) || present.every((b, j) => i === j || !overlap(a, b))
  );
}

function overlap(a: Binding, b: Binding): boolean {
  const [from, to] = [a, b].map(({ start = 0 }) => start);
  const { bytes = Infinity } = from < to ? a : b;
  return a.buffer === b.buffer && Math.abs(to - from) < bytes;
}

function weightOf(weight: Weight): GpuWeight {
  if (weight instanceof GpuWeight) return weight;
  throw foreign();
}

function foreign(): TypeError {
  return new TypeError("Cannot record on webgpu: expected a tensor of this backend, got another's");
}
