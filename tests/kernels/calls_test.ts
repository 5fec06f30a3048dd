import assert from "node:assert/strict";
import {
  type Call,
  costOf,
  dependsOn,
  operandsOf,
  overwrites,
  record,
  recordPass,
} from "../../kernels/calls.ts";
import type { Weight } from "../../kernels/formats/mod.ts";
import { fuse } from "../../kernels/fuse.ts";
import { openJsBackend } from "../../kernels/js/backend.ts";
import type { Backend, Recorder } from "../../kernels/mod.ts";
import type { HostTensor } from "../../kernels/ops/contract.ts";
import { bytesOf, type Dtype, type Tensor } from "../../kernels/tensor.ts";
import { WasmLowering } from "../../kernels/wasm/lowering.ts";
import { type Gpu, GpuTensor, openGpu } from "../../kernels/webgpu/device.ts";
import { WebGpuLowering } from "../../kernels/webgpu/lowering.ts";
import { Compiler } from "../../kernels/webgpu/pipeline.ts";
import { StepQueue } from "../../kernels/webgpu/queue.ts";
import { Tiles } from "../../kernels/webgpu/tuner.ts";
import { GpuWeight } from "../../kernels/webgpu/weights.ts";
import { randomNumbers } from "../testing.ts";
import { FakeGpu } from "./fake_gpu.ts";

const [T, C, H, G, D, S, V, P] = [3, 8, 2, 1, 4, 512, 16, 8];

/** A step in the middle of a sequence, over part of the cache. */
const SEGMENT = { rows: T, position: 1, slot: 2, length: 5 };

/** Makes operands on a backend. */
interface Maker {
  tensor(shape: readonly number[], dtype?: Dtype): Tensor;
  weight(N: number, K: number): Weight;
}

/** A build of one call, on existing operands. */
function calling<Op extends keyof Recorder>(op: Op, ...args: Parameters<Recorder[Op]>) {
  return (k: Recorder) => (k[op] as (...args: Parameters<Recorder[Op]>) => void)(...args);
}

/** Each operation with the fewest operands and with all of them, over `rows` rows. */
function makes(make: Maker, rows: number): Record<string, () => (k: Recorder) => void> {
  const f32 = (...shape: number[]) => make.tensor(shape);
  const [wide, ids] = [(width: number) => f32(rows, width), () => make.tensor([rows], "I32")];
  const norm = (width: number, bias: boolean) =>
    ({ kind: "layer", weight: f32(width), ...bias && { bias: f32(width) }, eps: 1e-5 }) as const;
  const cache = () => ({ k: f32(G, S, D), v: f32(G, S, D) });
  const qkv = () => wide((H + 2 * G) * D);
  return {
    embed: () => calling("embed", wide(C), make.weight(V, C), ids(), { scale: 2 }),
    addPosition: () => calling("addPosition", wide(C), make.weight(P, C)),
    norm: () => calling("norm", wide(C), wide(C), norm(C, true)),
    "norm onto y": () => calling("norm", wide(C), wide(C), { ...norm(C, false), residual: true }),
    matmul: () => calling("matmul", wide(V), wide(C), make.weight(V, C)),
    "matmul onto y": () => {
      const options = { bias: f32(V), gate: wide(V), residual: true };
      return calling("matmul", wide(V), wide(C), make.weight(V, C), options);
    },
    writeKv: () => calling("writeKv", wide(H * D), cache(), qkv()),
    "writeKv with norms": () => {
      const options = { table: f32(P, D), qNorm: norm(D, true), kNorm: norm(D, true) };
      return calling("writeKv", wide(H * D), cache(), qkv(), options);
    },
    attention: () => calling("attention", wide(H * D), wide(H * D), cache()),
    sample: () => {
      const [counter, seen] = [make.tensor([3], "U32"), make.tensor([V], "U32")];
      const sampling = { settings: f32(4), counter, seen, drawn: make.tensor([8], "I32") };
      return calling("sample", ids(), f32(1, V), sampling);
    },
  };
}

const NAMES = Object.keys(makes({ tensor: () => assert.fail(), weight: () => assert.fail() }, T));

/** Valid numbers of an operand, different for each seed. Four F32 are a sampler's settings. */
function numbersOf({ shape, dtype }: Tensor | Weight, seed: number): Iterable<number> {
  const count = shape.reduce((n, extent) => n * extent, 1);
  if (dtype === "F32" && shape.length === 1 && count === 4) return [seed % 2 ? 0 : 3, 0, 1, 2];
  if (dtype === "F32") return randomNumbers(count, 1 + seed).map((v) => 3 * v);
  return Array.from({ length: count }, (_, i) => (i * 5 + seed) % (dtype === "U32" ? 2 : V));
}

/** Operands on the typed-array backend, in order of creation. */
class Pool implements Maker {
  readonly made: (Tensor | Weight)[] = [];
  constructor(readonly backend: Backend, readonly weights: readonly Weight[]) {}

  tensor(shape: readonly number[], dtype: Dtype = "F32"): Tensor {
    const tensor = this.backend.tensor(shape, dtype, "activations");
    this.made.push(tensor);
    return tensor;
  }

  weight(N: number, K: number): Weight {
    const weight = this.weights.find(({ shape }) => shape[0] === N && shape[1] === K)!;
    this.made.push(weight);
    return weight;
  }

  /** Numbers of the operands. */
  snapshot(): number[][] {
    return this.made.map((of) => Array.from((of as unknown as HostTensor).data));
  }

  /** Fills the operands, one of them with another seed. */
  fill(other?: number): void {
    for (const [i, of] of this.made.entries()) {
      const { data } = of as unknown as { data: Float32Array | Uint8Array };
      const numbers = [...numbersOf(of, 2 * i + (i === other ? 1 : 0))];
      // A weight is kept as bytes.
      data.set(data instanceof Uint8Array ? bytesOf(new Float32Array(numbers)) : numbers);
    }
  }
}

/** Numbers of each operand before and after four runs; `other` is filled with another seed. */
async function run(pool: Pool, build: (k: Recorder) => void, other?: number) {
  using plan = await pool.backend.record(build);
  pool.fill(other);
  const before = pool.snapshot();
  for (let draw = 0; draw < 4; draw++) plan.run(SEGMENT);
  return { before, after: pool.snapshot() };
}

const differ = (a: readonly number[], b: readonly number[]) =>
  a.some((v, i) => !Object.is(v, b[i]));

/** Observed access of an operand: from two runs that differ in its old numbers. */
function accessOf(
  at: number,
  { before, after }: Awaited<ReturnType<typeof run>>,
  other: Awaited<ReturnType<typeof run>>,
): string {
  const written = differ(before[at], after[at]);
  const kept = differ(after[at], other.after[at]);
  const felt = after.some((numbers, i) => i !== at && differ(numbers, other.after[i]));
  if (!written) return felt ? "read" : "unused";
  return felt || kept ? "update" : "write";
}

for (const name of NAMES) {
  Deno.test(`operandsOf() lists the operands that a call reads and writes: ${name}`, async () => {
    await using backend = openJsBackend();
    const weights = await Promise.all(
      [V, P].map((N) => backend.weight([N, C], "F32", () => {}, { stored: "NK" })),
    );
    const pool = new Pool(backend, weights);
    const build = makes(pool, T)[name]();
    const [call] = record(build);
    const operands = operandsOf(call);
    assert.equal(operands.length, pool.made.length);
    const result = await run(pool, build);
    for (const [i, of] of pool.made.entries()) {
      const really = accessOf(i, result, await run(pool, build, i));
      const listed = operands.find((operand) => operand.of === of)?.access;
      assert.equal(listed, really, `operand ${i}, ${of.dtype} [${of.shape}]`);
      assert.equal(dependsOn(call, of), really !== "write");
      assert.equal(overwrites(call, of), really === "write");
    }
  });
}

/** Operands at distinct addresses, each of them linear memory. */
class Addresses implements Maker {
  next = 64;
  readonly tensor = (shape: readonly number[], dtype: Dtype = "F32"): Tensor => {
    const tensor = { shape, dtype, block: this.allocate() };
    return tensor;
  };
  readonly weight = (N: number, K: number): Weight => {
    const weight = { shape: [N, K] as const, dtype: "F32" as const, block: this.allocate() };
    return weight;
  };
  readonly allocate = () => ({ address: this.next += 64, bytes: 0, kind: "activations" as const });
}

for (const rows of [1, T]) {
  Deno.test(`wasm binds the operands of a call and no others, when it has ${rows} rows`, () => {
    for (const name of NAMES) {
      const memory = new Addresses();
      const [call] = record(makes(memory, rows)[name]());
      const last = memory.next;
      const options = {
        relaxed: false,
        activations: "exact" as const,
        threads: 1,
        memory: { shared: false, pages: 1 },
      };
      const target = new WasmLowering({ ...options, allocate: memory.allocate });
      const bound = target.lower([call]).flat().flatMap(({ operands }) => operands);
      const listed = operandsOf(call).map(({ of }) => (of as unknown as Placed).block.address);
      // Address 0 is a missing operand; scratch is made last.
      const given = bound.filter((address) => address > 0 && address <= last);
      assert.deepEqual(sorted(given), sorted(listed), name);
    }
  });
}

interface Placed {
  readonly block: { readonly address: number };
}

const sorted = (numbers: readonly number[]) => [...new Set(numbers)].sort((a, b) => a - b);

/** Access of each binding as the shader declares it. */
function declared(wgsl: string): Map<number, boolean> {
  const bindings = wgsl.matchAll(/@group\(1\) @binding\((\d+)\) var<storage, (\w+)>/g);
  return new Map([...bindings].map(([, at, access]) => [Number(at), access === "read_write"]));
}

/** Operands on a GPU; weights have two buffers. */
class Buffers implements Maker {
  constructor(readonly gpu: Gpu) {}

  tensor(shape: readonly number[], dtype: Dtype = "F32"): Tensor {
    return new GpuTensor(shape, dtype, this.gpu.storage(4, "activations"));
  }

  weight(N: number, K: number): Weight {
    const [first, count] = [0, N / 2];
    const parts = [first, count].map((first) => ({
      first,
      count,
      buffer: this.gpu.storage(4, "weights"),
    }));
    return new GpuWeight([N, K], "F32", parts);
  }
}

/** Buffers of a call's operands, and whether they are written. */
function buffersOf(call: Call): Map<GPUBuffer, boolean> {
  const buffers = new Map<GPUBuffer, boolean>();
  for (const { of, access } of operandsOf(call)) {
    const all = of instanceof GpuWeight ? of.parts.map((part) => part.buffer) : [];
    if (of instanceof GpuTensor) all.push(of.buffer);
    for (const buffer of all) buffers.set(buffer, buffers.get(buffer) || access !== "read");
  }
  return buffers;
}

/** A pass with every fusion: positions, and a norm whose output is overwritten later. */
function fusedPass(make: Maker): (k: Recorder) => void {
  const [x, n, y] = [make.tensor([1, C]), make.tensor([1, C]), make.tensor([1, V])];
  const [weight, bias] = [make.tensor([C]), make.tensor([C])];
  return (k) => {
    k.embed(x, make.weight(V, C), make.tensor([1], "I32"));
    k.addPosition(x, make.weight(P, C));
    for (let layer = 0; layer < 2; layer++) {
      k.norm(n, x, { kind: "layer", weight, bias, eps: 1e-5 });
      k.matmul(y, n, make.weight(V, C));
    }
  };
}

/** A product with its cache write, and a gated MLP: neighbours that fusion merges, too. */
function fusedLayer(make: Maker): (k: Recorder) => void {
  const [x, q, qkv] = [make.tensor([1, C]), make.tensor([1, 64]), make.tensor([1, 128])];
  const cache = { k: make.tensor([1, 9, 32]), v: make.tensor([1, 9, 32]) };
  const [gate, y] = [make.tensor([1, V]), make.tensor([1, V])];
  const [table, bias] = [make.tensor([9, 32]), make.tensor([V])];
  return (k) => {
    k.matmul(qkv, x, make.weight(128, C));
    k.writeKv(q, cache, qkv, { table });
    k.matmul(gate, x, make.weight(V, C), { bias });
    k.matmul(y, x, make.weight(V, C), { gate, activation: "silu", residual: true });
    k.discard(qkv, gate);
  };
}

/** The fused calls of a pass. */
function fusedCalls(build: (k: Recorder) => void): Call[] {
  const { calls, discarded } = recordPass(build);
  return fuse(calls, { discarded });
}

for (const software of [false, true]) {
  const adapter = software ? "software" : "hardware";
  Deno.test(`webgpu binds the operands of a call as it accesses them, in ${adapter}`, async () => {
    using _ = new FakeGpu({ software, subgroups: true });
    const gpu = await openGpu();
    const queue = new StepQueue(gpu);
    const tiles = new Tiles(gpu, queue, new Compiler(gpu, queue), { tune: false });
    const make = new Buffers(gpu);
    const calls = [1, T].flatMap((rows) =>
      NAMES.flatMap((name) => record(makes(make, rows)[name]()))
    );
    const fused = [...fusedCalls(fusedPass(make)), ...fusedCalls(fusedLayer(make))];
    const ops = ["embed", "matmul", "norm", "matmul", "matmul", "matmul"];
    assert.deepEqual(fused.map(({ op }) => op), ops);
    for (const call of [...calls, ...fused]) {
      const target = new WebGpuLowering(gpu, tiles);
      const listed = buffersOf(call);
      const bound = new Map<GPUBuffer, boolean>();
      for (const { wgsl, operands } of target.lower(call)) {
        const present = operands.flatMap((operand, at) => operand ? [[at, operand] as const] : []);
        const written = new Map(present.map(([at, operand]) => [at, operand.written]));
        assert.deepEqual(written, declared(wgsl), call.op);
        for (const [, { buffer, written }] of present) {
          if (!target.buffers.includes(buffer)) bound.set(buffer, written);
        }
      }
      assert.equal(bound.size, listed.size, call.op);
      for (const [buffer, written] of listed) assert.equal(bound.get(buffer), written, call.op);
    }
  });
}

Deno.test("record() checks each call before the next one is made", () => {
  const made: string[] = [];
  const tensor = (...shape: number[]): Tensor => ({ shape, dtype: "F32" });
  const weight = { shape: [4, 2], dtype: "F32" } as const;
  const build = (k: Recorder) => {
    k.matmul(tensor(1, 4), tensor(1, 2), weight);
    made.push("first");
    k.matmul(tensor(1, 4), tensor(1, 3), weight);
    made.push("second");
  };
  assert.throws(() => record(build), {
    name: "RangeError",
    message: `Cannot record "matmul": expected x F32 [1,2], got F32 [1,3]`,
  });
  assert.deepEqual(made, ["first"]);
});

Deno.test("costOf() omits tensors passed between parts when a kernel is fused", () => {
  const calls = record(fusedPass({
    tensor: (shape, dtype = "F32") => ({ shape, dtype }),
    weight: (N, K) => ({ shape: [N, K], dtype: "BF16" }),
  }));
  const costs = calls.map((call) => costOf(call, { ...SEGMENT, rows: 1 }));
  const [embed, product] = fuse(calls).map((call) => costOf(call, { ...SEGMENT, rows: 1 }));
  assert.deepEqual(embed, {
    name: "embed + addPosition",
    bytes: costs[0].bytes + costs[1].bytes - 2 * 4 * C,
    flops: C,
  });
  assert.deepEqual(product, {
    name: `norm + matmul ${C}→${V}`,
    bytes: costs[2].bytes + costs[3].bytes - 2 * 4 * C,
    flops: costs[2].flops + costs[3].flops,
  });
});

Deno.test("costOf() omits heads and gates that a fused product passes on", () => {
  const build = fusedLayer({
    tensor: (shape, dtype = "F32") => ({ shape, dtype }),
    weight: (N, K) => ({ shape: [N, K], dtype: "BF16" }),
  });
  const segment = { ...SEGMENT, rows: 1 };
  const costs = record(build).map((call) => costOf(call, segment));
  const [heads, gated] = fusedCalls(build).map((call) => costOf(call, segment));
  assert.equal(heads.name, `matmul ${C}→128 + writeKv`);
  assert.equal(heads.bytes, costs[0].bytes + costs[1].bytes - 2 * 4 * 128);
  assert.equal(gated.name, `matmul ${C}→${V} + matmul ${C}→${V}`);
  assert.equal(gated.bytes, costs[2].bytes + costs[3].bytes - 4 * (C + 2 * V));
  assert.equal(gated.flops, costs[2].flops + costs[3].flops);
});
