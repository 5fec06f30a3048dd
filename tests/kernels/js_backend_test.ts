import assert from "node:assert/strict";
import fc from "../fast_check.ts";
import type { Backend, Recorder } from "../../kernels/backend.ts";
import { openJsBackend } from "../../kernels/js/backend.ts";
import { ropeTable } from "../../kernels/ops/rope.ts";
import { narrow, type Weight, type WeightDtype } from "../../kernels/formats/mod.ts";
import type { StoredOrder, Tensor } from "../../kernels/tensor.ts";
import { assertClose, fillFrom, randomNumbers, TOLERANCE } from "../testing.ts";
import { kvTwinTests } from "./twins_kv.ts";

/** Sizes in these tests; all differ, so that no wrong shape fits by chance. */
const [T, C, N, V, H, G, D, S, P, R] = [3, 10, 11, 13, 4, 2, 6, 7, 8, 4];

/** Operands that fit each other. */
interface Operands {
  readonly x: Tensor; // [T, C]
  readonly ids: Tensor; // [T] I32
  readonly y: Tensor; // [T, N]
  readonly gate: Tensor; // [T, N]
  readonly bias: Tensor; // [N]
  readonly ln: Tensor; // [C]
  readonly weight: Weight; // [N, C]
  readonly qkv: Tensor; // [T, (H + 2G)·D]
  readonly q: Tensor; // [T, H·D]
  readonly out: Tensor; // [T, H·D]
  readonly k: Tensor; // [G, S, D]
  readonly v: Tensor; // [G, S, D]
  readonly table: Tensor; // [P, R]
  readonly headNorm: Tensor; // [D]
  readonly logits: Tensor; // [1, V]
  readonly settings: Tensor; // [4]
  readonly counter: Tensor; // [3] U32
  readonly seen: Tensor; // [V] U32
  readonly drawn: Tensor; // [5] I32
}

async function operands(b: Backend): Promise<Operands> {
  const f32 = (...shape: number[]) => b.tensor(shape, "F32", "activations");
  return {
    x: f32(T, C),
    ids: b.tensor([T], "I32", "activations"),
    y: f32(T, N),
    gate: f32(T, N),
    bias: f32(N),
    ln: f32(C),
    weight: await b.weight([N, C], "F32", () => {}, { stored: "NK" }),
    qkv: f32(T, (H + 2 * G) * D),
    q: f32(T, H * D),
    out: f32(T, H * D),
    k: f32(G, S, D),
    v: f32(G, S, D),
    table: f32(P, R),
    headNorm: f32(D),
    logits: f32(1, V),
    settings: f32(4),
    counter: b.tensor([3], "U32", "activations"),
    seen: b.tensor([V], "U32", "activations"),
    drawn: b.tensor([5], "I32", "activations"),
  };
}

/** Each operation with all its operands. */
const CALLS = {
  embed: (k: Recorder, o: Operands) => k.embed(o.x, o.weight, o.ids),
  addPosition: (k: Recorder, o: Operands) => k.addPosition(o.x, o.weight),
  norm: (k: Recorder, o: Operands) => k.norm(o.x, o.x, normOf(o.ln)),
  matmul: (k: Recorder, o: Operands) =>
    k.matmul(o.y, o.x, o.weight, { bias: o.bias, gate: o.gate }),
  writeKv: (k: Recorder, o: Operands) =>
    k.writeKv(o.q, o, o.qkv, {
      table: o.table,
      qNorm: normOf(o.headNorm),
      kNorm: normOf(o.headNorm),
    }),
  attention: (k: Recorder, o: Operands) => k.attention(o.out, o.q, o),
  sample: (k: Recorder, o: Operands) => k.sample(o.ids, o.logits, o),
} as const;

function normOf(weight: Tensor): { kind: "rms"; weight: Tensor; bias: Tensor; eps: number } {
  return { kind: "rms", weight, bias: weight, eps: 1e-5 };
}

/** Replacement of an operand, and the operand that the message must name. */
interface WrongCase {
  readonly op: keyof typeof CALLS;
  readonly operand: keyof Operands;
  readonly shape: readonly number[];
  readonly dtype?: "F32" | "F16" | "I32" | "U32";
  /** Default the operand itself. */
  readonly named?: string;
}

const WRONG: readonly WrongCase[] = [
  { op: "embed", operand: "x", shape: [T, C + 1], named: "y" },
  { op: "embed", operand: "x", shape: [T, C], dtype: "F16", named: "y" },
  { op: "embed", operand: "ids", shape: [T + 1] },
  { op: "embed", operand: "ids", shape: [T], dtype: "U32" },
  { op: "embed", operand: "ids", shape: [T, 1] },
  { op: "addPosition", operand: "x", shape: [T, C - 1] },
  { op: "addPosition", operand: "x", shape: [T, C], dtype: "I32" },
  { op: "norm", operand: "x", shape: [C] },
  { op: "norm", operand: "x", shape: [1, T, C] },
  { op: "norm", operand: "x", shape: [T, C], dtype: "F16" },
  { op: "norm", operand: "ln", shape: [C + 1], named: "weight" },
  { op: "norm", operand: "ln", shape: [C], dtype: "F16", named: "weight" },
  { op: "matmul", operand: "x", shape: [T, C + 1] },
  { op: "matmul", operand: "x", shape: [T, C], dtype: "F16" },
  { op: "matmul", operand: "y", shape: [T + 1, N] },
  { op: "matmul", operand: "y", shape: [T, C] },
  { op: "matmul", operand: "y", shape: [T, N], dtype: "I32" },
  { op: "matmul", operand: "bias", shape: [N, 1] },
  { op: "matmul", operand: "bias", shape: [N], dtype: "F16" },
  { op: "matmul", operand: "gate", shape: [1, N] },
  { op: "matmul", operand: "gate", shape: [T, N], dtype: "U32" },
  { op: "writeKv", operand: "q", shape: [T + 1, H * D], named: "qkv" },
  { op: "writeKv", operand: "q", shape: [T, H * D + 1], named: "a multiple" },
  { op: "writeKv", operand: "q", shape: [T, (H + 1) * D], named: "a multiple" },
  { op: "writeKv", operand: "q", shape: [T, H * D], dtype: "F16" },
  { op: "writeKv", operand: "qkv", shape: [T, 3 * H * D] },
  { op: "writeKv", operand: "qkv", shape: [T, (H + 2 * G) * D], dtype: "F16" },
  { op: "writeKv", operand: "k", shape: [G, S, D], dtype: "F16", named: "v F16" },
  { op: "writeKv", operand: "k", shape: [G, S, D], dtype: "I32", named: "a cache of F32" },
  { op: "writeKv", operand: "v", shape: [G, S + 1, D] },
  { op: "writeKv", operand: "v", shape: [G, S, D], dtype: "F16" },
  { op: "writeKv", operand: "table", shape: [P, D + 2], named: "an even rotaryDim" },
  { op: "writeKv", operand: "table", shape: [P, 3], named: "an even rotaryDim" },
  { op: "writeKv", operand: "table", shape: [P, R], dtype: "F16" },
  { op: "writeKv", operand: "headNorm", shape: [D + 1], named: "qNorm" },
  { op: "writeKv", operand: "headNorm", shape: [D], dtype: "F16", named: "qNorm" },
  { op: "attention", operand: "out", shape: [T, H * D + 1], named: "y" },
  { op: "attention", operand: "out", shape: [T, H * D], dtype: "F16", named: "y" },
  { op: "attention", operand: "q", shape: [T, H * D + 1], named: "a multiple" },
  { op: "attention", operand: "q", shape: [T, H * D], dtype: "F16" },
  { op: "attention", operand: "k", shape: [G, S, D], dtype: "F16", named: "v F16" },
  { op: "attention", operand: "k", shape: [G, S, D], dtype: "I32", named: "a cache of F32" },
  { op: "attention", operand: "v", shape: [S, G, D] },
  { op: "attention", operand: "v", shape: [G, S, D], dtype: "F16" },
  { op: "sample", operand: "logits", shape: [2, V] },
  { op: "sample", operand: "logits", shape: [1, V], dtype: "F16" },
  { op: "sample", operand: "ids", shape: [T], dtype: "U32" },
  { op: "sample", operand: "ids", shape: [0], dtype: "I32", named: "room for one id" },
  { op: "sample", operand: "settings", shape: [3] },
  { op: "sample", operand: "settings", shape: [4], dtype: "U32" },
  { op: "sample", operand: "counter", shape: [2] },
  { op: "sample", operand: "counter", shape: [3], dtype: "I32" },
  { op: "sample", operand: "seen", shape: [V - 1] },
  { op: "sample", operand: "seen", shape: [V], dtype: "I32" },
  { op: "sample", operand: "drawn", shape: [5], dtype: "U32" },
  { op: "sample", operand: "drawn", shape: [0], dtype: "I32", named: "room for one id" },
];

Deno.test("record() accepts every operation when the operands fit", async () => {
  await using backend = openJsBackend();
  const fitting = await operands(backend);
  for (const call of Object.values(CALLS)) {
    using plan = await backend.record((k) => call(k, fitting));
    plan.run({ rows: T, position: 0, slot: 0, length: T });
  }
});

for (const { op, operand, shape, dtype = "F32", named = operand } of WRONG) {
  Deno.test(`record() refuses ${op} when ${operand} is ${dtype} [${shape}]`, async () => {
    await using backend = openJsBackend();
    const wrong = { [operand]: backend.tensor(shape, dtype, "activations") };
    const given = { ...await operands(backend), ...wrong };
    await refuses(backend, (k) => CALLS[op](k, given), `Cannot record "${op}": expected`, named);
  });
}

Deno.test("record() refuses matmul and attention when y is an input", async () => {
  await using backend = openJsBackend();
  const square = await backend.weight([C, C], "F32", () => {}, { stored: "NK" });
  const o = await operands(backend);
  const another = 'Cannot record "matmul": expected y to be another tensor';
  await refuses(backend, (k) => k.matmul(o.x, o.x, square), another);
  await refuses(backend, (k) => k.matmul(o.y, o.x, o.weight, { gate: o.y }), another);
  await refuses(
    backend,
    (k) => k.attention(o.q, o.q, o),
    'Cannot record "attention": expected y to be another tensor',
  );
});

Deno.test("record() refuses when an option does not fit the operands", async () => {
  await using backend = openJsBackend();
  const o = await operands(backend);
  const { k: k0, v, q, out, x, qkv, table } = o;
  const bias = backend.tensor([C + 1], "F32", "activations");
  await refuses(
    backend,
    (k) => k.norm(x, x, { ...normOf(o.ln), bias }),
    'Cannot record "norm": expected bias',
  );
  await refuses(
    backend,
    (k) => k.attention(out, q, { k: k0, v }, { nKvHead: H }),
    'Cannot record "attention": expected nKvHead',
  );
  await refuses(
    backend,
    (k) => k.writeKv(q, o, qkv, { table, rotaryDim: 2 }),
    'Cannot record "writeKv": expected table',
  );
  await refuses(
    backend,
    (k) => k.writeKv(q, o, qkv, { kNorm: normOf(o.bias) }),
    'Cannot record "writeKv": expected kNorm',
  );
  await refuses(
    backend,
    (k) => k.writeKv(q, o, qkv, { qNorm: { ...normOf(o.headNorm), bias } }),
    'Cannot record "writeKv": expected qNorm.bias',
  );
  await refuses(
    backend,
    (k) => k.writeKv(q, o, qkv, { kNorm: { ...normOf(o.headNorm), bias } }),
    'Cannot record "writeKv": expected kNorm.bias',
  );
});

Deno.test("Plan.run() gives the same rows when a pass is split into chunks", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: T }), { minLength: 1, maxLength: 4 }),
      fc.nat(),
      async (chunks, seed) => {
        const total = chunks.reduce((sum, rows) => sum + rows, 0);
        const ids = Array.from(randomNumbers(total, seed), (v) => Math.floor((v + 1) * N / 2));
        const whole = await openBlock(seed, total);
        const expected = await whole.run(ids, 0);
        const block = await openBlock(seed, T); // one plan, replayed with the step of each chunk
        for (let first = 0, i = 0; i < chunks.length; first += chunks[i++]) {
          const rows = await block.run(ids.slice(first, first + chunks[i]), first);
          assertClose(
            rows,
            expected.slice(first * H * D, (first + chunks[i]) * H * D),
            TOLERANCE.sum,
            `chunk ${i} of ${chunks}`,
          );
        }
      },
    ),
    { numRuns: 40, seed: 1 },
  );
});

/**
 * Embedding, position, norm, projection and attention of a small block, over at most `most` rows.
 */
async function openBlock(
  seed: number,
  most: number,
): Promise<{ run(ids: readonly number[], position: number): Promise<Float32Array> }> {
  const backend = openJsBackend();
  const slots = 4 * T;
  const f32 = (...shape: number[]) => backend.tensor(shape, "F32", "activations");
  const random = (N: number, K: number, at: number) => {
    const rows = randomNumbers(N * K, seed + at);
    return backend.weight([N, K], "F32", fillFrom(rows), { stored: "NK" });
  };
  const wte = await random(N, C, 1);
  const wpe = await random(slots, C, 2);
  const cAttn = await random((H + 2 * G) * D, C, 3);
  const [x, qkv, q, y] = [
    f32(most, C),
    f32(most, (H + 2 * G) * D),
    f32(most, H * D),
    f32(most, H * D),
  ];
  const cache = { k: f32(G, slots, D), v: f32(G, slots, D) };
  const ids = backend.tensor([most], "I32", "activations");
  const [ln, table] = [f32(C), f32(slots, D)];
  backend.write(ln, new Float32Array(C).fill(1));
  backend.write(table, ropeTable({ positions: slots, rotaryDim: D, theta: 100 }));
  const plan = await backend.record((k) => {
    k.embed(x, wte, ids);
    k.addPosition(x, wpe);
    k.norm(x, x, { kind: "rms", weight: ln, eps: 1e-5 });
    k.matmul(qkv, x, cAttn);
    k.writeKv(q, cache, qkv, { table });
    k.attention(y, q, cache);
  });
  return {
    async run(given, position): Promise<Float32Array> {
      const rows = given.length;
      backend.write(ids, Int32Array.from(given));
      plan.run({ rows, position, slot: position, length: position + rows });
      return await backend.read(y, 0, rows * H * D) as Float32Array;
    },
  };
}

Deno.test("Plan.run() reads the last written numbers when it is replayed", async () => {
  await using backend = openJsBackend();
  const ten = fillFrom(Float32Array.of(1, 10));
  const weight = await backend.weight([1, 2], "F32", ten, { stored: "NK" });
  const x = backend.tensor([1, 2], "F32", "activations");
  const y = backend.tensor([1, 1], "F32", "activations");
  using plan = await backend.record((k) => k.matmul(y, x, weight, { residual: true }));
  for (const [written, expected] of [[[1, 2], 21], [[3, 4], 64], [[-1, 0], 63]] as const) {
    backend.write(x, Float32Array.from(written));
    plan.run({ rows: 1, position: 0, slot: 0, length: 1 });
    assert.deepEqual(await backend.read(y), new Float32Array([expected]));
  }
});

Deno.test("write() and read() move a part when given an offset, and read() gives a copy", async () => {
  await using backend = openJsBackend();
  const t = backend.tensor([2, 3], "I32", "activations");
  assert.deepEqual(await backend.read(t), new Int32Array(6));
  backend.write(t, new Int32Array([1, 2, 3]), 2);
  assert.deepEqual(await backend.read(t), new Int32Array([0, 0, 1, 2, 3, 0]));
  const part = await backend.read(t, 3, 2);
  assert.deepEqual(part, new Int32Array([2, 3]));
  part[0] = 9;
  assert.deepEqual(await backend.read(t, 3), new Int32Array([2, 3, 0]));
});

for (const dtype of ["F32", "F16", "BF16"] as const) {
  Deno.test(`weight() gives the same product and rows when ${dtype} is stored NK and KN`, async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: 1, max: 20 }),
        fc.nat(),
        async (N, K, seed) => {
          await using backend = openJsBackend();
          const rows = narrow(randomNumbers(N * K, seed), dtype); // [N, K]
          const turned = rows.map((_, i) => rows[(i % N) * K + Math.floor(i / N)]); // [K, N]
          const straight = await fromRows(backend, [N, K], dtype, rows, "NK");
          const across = await fromRows(backend, [N, K], dtype, turned, "KN");
          const x = backend.tensor([2, K], "F32", "activations");
          const ids = backend.tensor([2], "I32", "activations");
          backend.write(x, randomNumbers(2 * K, seed + 1));
          backend.write(ids, new Int32Array([N - 1, 0]));
          const results = [];
          for (const weight of [straight, across]) {
            assert.deepEqual(weight.shape, [N, K]);
            assert.equal(weight.dtype, dtype);
            const y = backend.tensor([2, N], "F32", "activations");
            const embedded = backend.tensor([2, K], "F32", "activations");
            using plan = await backend.record((k) => {
              k.matmul(y, x, weight);
              k.embed(embedded, weight, ids);
            });
            plan.run({ rows: 2, position: 0, slot: 0, length: 2 });
            results.push([await backend.read(y), await backend.read(embedded)]);
          }
          assert.deepEqual(results[0], results[1]);
        },
      ),
      { numRuns: 50, seed: 1 },
    );
  });
}

/** 1 MiB of scratch, and the bytes of the finished weight. */
const MIB = 1 << 20;

for (const stored of ["NK", "KN"] as const) {
  Deno.test(`weight() requests rows in order through bounded scratch when a large one is ${stored}`, async () => {
    await using backend = openJsBackend();
    const [N, K] = [1500, 1100]; // 6.3 MiB
    const [rows, width] = stored === "NK" ? [N, K] : [K, N];
    let next = 0;
    let largest = 0;
    const weight = await backend.weight([N, K], "F32", async (row, count, into) => {
      await Promise.resolve();
      assert.equal(row, next);
      assert.equal(into.length, 4 * count * width);
      next += count;
      largest = Math.max(largest, into.byteLength);
      const numbers = new Float32Array(into.buffer, into.byteOffset, count * width);
      for (let i = 0; i < numbers.length; i++) numbers[i] = row + Math.floor(i / width);
    }, { stored });
    assert.equal(next, rows);
    assert.ok(largest <= MIB, `${largest} bytes at once`);
    assert.ok(
      largest > MIB / 2,
      `no more calls than the scratch needs, got ${largest} bytes at once`,
    );
    const { weights, staging } = backend.memory.classes;
    assert.equal(weights.current, 4 * N * K);
    assert.equal(staging.current, 0);
    assert.ok(staging.peak <= MIB);

    // Number (n, k) of the weight identifies its place: n, or 0, 1, 2 … under KN.
    const ids = backend.tensor([1], "I32", "activations");
    const y = backend.tensor([1, K], "F32", "activations");
    using plan = await backend.record((k) => k.embed(y, weight, ids));
    for (const n of [0, 1, 699, N - 1]) {
      backend.write(ids, new Int32Array([n]));
      plan.run({ rows: 1, position: 0, slot: 0, length: 1 });
      assert.deepEqual(
        await backend.read(y),
        Float32Array.from({ length: K }, (_, k) => stored === "NK" ? n : k),
      );
    }
  });
}

Deno.test("weight() frees its scratch when fill throws", async () => {
  await using backend = openJsBackend();
  const fill = () => {
    throw new TypeError("the file ended");
  };
  await assert.rejects(backend.weight([3, 4], "F16", fill, { stored: "KN" }), TypeError);
  assert.equal(backend.memory.classes.staging.current, 0);
});

Deno.test("Backend.memory counts each class separately, with its peak, and is zero when disposed", async () => {
  const backend = openJsBackend();
  const { memory } = backend;
  backend.tensor([2, 3], "F32", "activations");
  backend.tensor([5], "U32", "activations");
  backend.tensor([2, 4, 8], "F16", "kvCache");
  await backend.weight([6, 7], "BF16", () => {}, { stored: "NK" });
  const current = () => Object.values(memory.classes).map((figure) => figure.current);
  assert.deepEqual(current(), [84, 128, 44, 0]); // weights, kvCache, activations, staging
  assert.equal(memory.current, 256);
  assert.equal(memory.peak, 256);

  await backend.weight([6, 7], "F32", () => {}, { stored: "KN" });
  const scratch = memory.classes.staging.peak;
  assert.ok(scratch > 0);
  assert.equal(memory.classes.staging.current, 0);
  assert.equal(memory.current, 256 + 168);
  assert.equal(memory.peak, 256 + 168 + scratch);
  memory.resetPeak();
  assert.equal(memory.peak, 256 + 168);
  assert.equal(memory.classes.staging.peak, 0);

  await backend[Symbol.asyncDispose]();
  assert.deepEqual(current(), [0, 0, 0, 0]);
  assert.equal(memory.current, 0);
  assert.equal(memory.peak, 256 + 168);
});

function fromRows(
  backend: Backend,
  shape: readonly [N: number, K: number],
  dtype: WeightDtype,
  data: Float32Array | Uint16Array,
  stored: StoredOrder,
): Promise<Weight> {
  return backend.weight(shape, dtype, fillFrom(data), { stored });
}

async function refuses(
  backend: Backend,
  build: (k: Recorder) => void,
  start: string,
  named = "",
): Promise<void> {
  await assert.rejects(backend.record(build), (error) => {
    assert.ok(error instanceof RangeError, `${error}`);
    assert.ok(error.message.startsWith(`${start} ${named}`.trim()), error.message);
    return true;
  });
}

kvTwinTests((name, run) =>
  Deno.test(`js: ${name}`, async () => {
    await using backend = openJsBackend();
    await run(backend);
  })
);
