/**
 * A device that is lost between two dispatches of an operation: of each, in all its forms.
 */
import assert from "node:assert/strict";
import type { Backend } from "../../kernels/backend.ts";
import { type Call, OPERATIONS, type Recorder } from "../../kernels/calls.ts";
import { DeviceError } from "../../kernels/errors.ts";
import { openWebGpuBackend } from "../../kernels/webgpu/backend.ts";
import { ignoreWithoutAdapter } from "../kernels/adapter.ts";
import { Spy } from "../kernels/spy.ts";

const ignore = await ignoreWithoutAdapter("soak/webgpu_lost_test.ts");

const [C, F, H, G, D, S, V] = [64, 96, 4, 2, 64, 700, 2500];

/** A pass of `rows` rows at `length` keys. */
interface Form {
  readonly rows: number;
  readonly length: number;
  build(backend: Backend): Promise<(k: Recorder) => void>;
}

const f32 = (backend: Backend, ...shape: number[]) => backend.tensor(shape, "F32", "activations");
const weight = (backend: Backend, N: number, K: number) =>
  backend.weight([N, K], "BF16", () => {}, { stored: "NK" });
const cacheOf = (backend: Backend) => ({
  k: f32(backend, G, S, D),
  v: f32(backend, G, S, D),
});

/** A form for one row and one for many. */
function forRows(
  build: (backend: Backend, rows: number) => Promise<(k: Recorder) => void>,
): Form[] {
  return [1, 33].map((rows) => ({
    rows,
    length: rows === 1 ? 5 : 600,
    build: (backend) => build(backend, rows),
  }));
}

const attention = forRows((backend, rows) => {
  const [q, y, cache] = [f32(backend, rows, H * D), f32(backend, rows, H * D), cacheOf(backend)];
  return Promise.resolve((k) => k.attention(y, q, cache));
});

/** The products of a gated layer: with norm, gate and cache write folded in for one row. */
const layer = forRows(async (backend, rows) => {
  const heads = (H + 2 * G) * D;
  const [qkv, gate, up, down] = await Promise.all([
    weight(backend, heads, C),
    weight(backend, F, C),
    weight(backend, F, C),
    weight(backend, C, F),
  ]);
  const [x, n] = [f32(backend, rows, C), f32(backend, rows, C)];
  const [q, all] = [f32(backend, rows, H * D), f32(backend, rows, heads)];
  const [g, f] = [f32(backend, rows, F), f32(backend, rows, F)];
  const norm = { kind: "rms", weight: f32(backend, C), eps: 1e-5 } as const;
  const cache = cacheOf(backend);
  return (k) => {
    k.norm(n, x, norm);
    k.matmul(all, n, qkv);
    k.writeKv(q, cache, all);
    k.norm(n, x, norm);
    k.matmul(g, n, gate);
    k.matmul(f, n, up, { gate: g, activation: "silu" });
    k.matmul(x, f, down, { residual: true });
    k.discard(n, all, g, f);
  };
});

/** Every operation; the type demands a new one here. */
const FORMS: Readonly<Record<Call["op"], Form[]>> = {
  embed: forRows(async (backend, rows) => {
    const table = await weight(backend, V, C);
    const ids = backend.tensor([rows], "I32", "activations");
    const y = f32(backend, rows, C);
    return (k) => k.embed(y, table, ids);
  }),
  addPosition: forRows(async (backend, rows) => {
    const table = await weight(backend, S, C);
    const x = f32(backend, rows, C);
    return (k) => k.addPosition(x, table);
  }),
  norm: forRows((backend, rows) => {
    const [x, y, g] = [f32(backend, rows, C), f32(backend, rows, C), f32(backend, C)];
    return Promise.resolve((k) => k.norm(y, x, { kind: "rms", weight: g, eps: 1e-5 }));
  }),
  // With split-K for many inputs.
  matmul: [
    ...layer,
    ...forRows(async (backend, rows) => {
      const [x, y] = [f32(backend, rows, 4096), f32(backend, rows, 32)];
      const wide = await weight(backend, 32, 4096);
      return (k) => k.matmul(y, x, wide);
    }),
  ],
  writeKv: forRows((backend, rows) => {
    const [q, qkv] = [f32(backend, rows, H * D), f32(backend, rows, (H + 2 * G) * D)];
    const cache = cacheOf(backend);
    return Promise.resolve((k) => k.writeKv(q, cache, qkv));
  }),
  // Of few keys, and of splits with a reduce.
  attention: [...attention, { ...attention[0], length: 600 }],
  // By one workgroup, and by many.
  sample: [65, V].map((ids) => ({
    rows: 1,
    length: 5,
    build: (backend) => {
      const u32 = (count: number) => backend.tensor([count], "U32", "activations");
      const settings = f32(backend, 4);
      backend.write(settings, new Float32Array([0.9, 40, 0.9, 1]));
      const drawn = backend.tensor([64], "I32", "activations");
      const sampling = { settings, counter: u32(3), seen: u32(ids), drawn };
      const next = backend.tensor([1], "I32", "activations");
      const logits = f32(backend, 1, ids);
      return Promise.resolve((k) => k.sample(next, logits, sampling));
    },
  })),
};

/** Runs a form, loses its device between two runs, and expects one sentence. */
async function loseDuring({ rows, length, build }: Form, software: boolean): Promise<void> {
  let device: GPUDevice | undefined;
  using _spy = new Spy().on(GPUDevice, "createBuffer", (self) => device = self as GPUDevice);
  await using backend = await openWebGpuBackend({ software, tune: false });
  const some = f32(backend, 4);
  using plan = await backend.record(await build(backend));
  const step = { rows, position: length - rows, slot: length - rows, length };
  plan.run(step);
  await backend.read(some); // what ran so far was valid
  plan.run(step);
  device?.destroy();
  plan.run(step);
  for (let i = 0; i < 2; i++) {
    await assert.rejects(
      backend.read(some),
      (error: Error) =>
        error instanceof DeviceError &&
        /^Cannot reach the device of webgpu: lost .*; open the backend again, or choose "cpu"$/
          .test(error.message),
    );
  }
}

for (const op of OPERATIONS) {
  Deno.test({
    name: `a device lost during ${op}() rejects with one sentence, in each of its forms`,
    ignore,
    async fn() {
      assert.ok(FORMS[op].length >= 2);
      for (const form of FORMS[op]) {
        for (const software of [false, true]) await loseDuring(form, software);
      }
    },
  });
}
