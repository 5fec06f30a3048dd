/** Slots of the step queue: what a dispatch reads of its step when its submit runs. */
import assert from "node:assert/strict";
import type { Chunk } from "../../kernels/formats/mod.ts";
import type { Gpu } from "../../kernels/webgpu/device.ts";
import { type BoundShader, Dispatch } from "../../kernels/webgpu/dispatch.ts";
import { StepQueue } from "../../kernels/webgpu/queue.ts";

/** Numbers of a step, as shaders read them. */
type Numbers = readonly number[];

/** A queue on a device that has a uniform buffer, and records the steps that its submits read. */
function makeQueue(software: boolean) {
  const uniform = new Uint32Array(64 * 256 / 4);
  const read: Numbers[] = [];
  const counts = { writes: 0, submits: 0 };
  const createCommandEncoder = () => {
    const offsets: number[] = [];
    const setBindGroup = (index: number, _group: unknown, bytes: Uint32Array) =>
      void (index === 0 && offsets.push(bytes[0]));
    const pass = { setBindGroup, setPipeline() {}, dispatchWorkgroups() {}, end() {} };
    return { beginComputePass: () => pass, finish: () => offsets };
  };
  const queue = {
    writeBuffer(_: unknown, at: number, data: Uint32Array, from: number) {
      counts.writes++;
      uniform.set(data.subarray(from), at / 4);
    },
    submit([offsets]: number[][]) {
      counts.submits++;
      for (const at of offsets) read.push([...uniform.subarray(at / 4, at / 4 + 4)]);
    },
  };
  const device = {
    createCommandEncoder,
    createBindGroupLayout: () => ({}),
    createBindGroup: () => ({}),
    limits: { maxComputeWorkgroupsPerDimension: 65535 },
    queue,
  };
  const gpu = { device, software, closed: false, buffer: () => ({}), beforeFree() {} };
  return { queue: new StepQueue(gpu as unknown as Gpu), read, counts };
}

const SHADER = { pipeline: {}, operands: {} } as BoundShader;
const DISPATCH = new Dispatch(SHADER, { groups: () => 1 });

const stepAt = (position: number, rows = 1) => ({
  rows,
  position,
  slot: position,
  length: position + rows,
});

for (const software of [true, false]) {
  Deno.test(`each step's dispatches read its own numbers ${software ? "in software" : "on a GPU"}`, () => {
    const { queue, read } = makeQueue(software);
    const wanted: Numbers[] = [];
    let seed = 1;
    const random = (below: number) => (seed = seed * 48271 % 2147483647) % below;
    let position = 0;
    for (let batch = 0; batch < 300; batch++) {
      const steps = 1 + random(random(2) ? 5 : 150);
      for (let i = 0; i < steps; i++) {
        const rows = random(20) === 0 ? 1 + random(9) : 1;
        if (random(30) === 0) position = random(1000);
        if (random(40) === 0) {
          const chunk = { row: random(5000), rows: 1 + random(100) };
          queue.pack(chunk as Chunk, SHADER, 1);
          wanted.push([chunk.row, chunk.rows, 0, 0]);
        }
        queue.run(stepAt(position, rows), [DISPATCH]);
        wanted.push([rows, position, position, position + rows]);
        position += rows;
      }
      queue.flush();
    }
    assert.equal(read.length, wanted.length);
    for (const [i, numbers] of wanted.entries()) {
      assert.deepEqual(read[i], numbers, `dispatch ${i}`);
    }
  });
}

Deno.test("a text's steps are written once per 64, however many submits they take", () => {
  const { queue, counts } = makeQueue(false);
  for (let position = 0; position < 128; position++) {
    queue.run(stepAt(position), [DISPATCH]);
    if (position % 8 === 7) queue.flush();
  }
  assert.deepEqual(counts, { writes: 2, submits: 48 });
});
