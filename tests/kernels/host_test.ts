/** Tests of backends on a given platform. */
import assert from "node:assert/strict";
import { DeviceError } from "../../kernels/errors.ts";
import { type ComputeHost, WEB_HOST } from "../../kernels/host.ts";
import { measureWebGpu, openBackend, probeWebGpu } from "../../kernels/mod.ts";
import { FakeGpu } from "./fake_gpu.ts";

/** The default platform with some members replaced. */
function hostWith(change: Partial<ComputeHost>): ComputeHost {
  const { gpu, cores, startWorker, keepAlive } = WEB_HOST;
  return { gpu, cores, startWorker, keepAlive, ...change };
}

Deno.test("openBackend() starts the host's workers and lets the process end without them", async () => {
  const alive: boolean[] = [];
  const started: Worker[] = [];
  const host = hostWith({
    startWorker: () => {
      started.push(WEB_HOST.startWorker());
      return started.at(-1)!;
    },
    keepAlive: (worker, value) => {
      assert.ok(started.includes(worker));
      WEB_HOST.keepAlive(worker, value);
      alive.push(value);
    },
  });
  {
    await using backend = await openBackend("wasm", { threads: 3, host });
    assert.equal(backend.threads, 3);
    assert.equal(started.length, 2);
    assert.deepEqual(alive.slice(0, 2), [false, false]);
  }
  const count = (value: boolean) => alive.filter((one) => one === value).length;
  assert.equal(count(false), started.length + count(true));
});

Deno.test("openBackend() takes one thread when the host has one processor", async () => {
  const startWorker = () => assert.fail("a worker is started");
  await using backend = await openBackend("wasm", { host: hostWith({ cores: 1, startWorker }) });
  assert.equal(backend.threads, 1);
});

Deno.test("openBackend() takes the host's GPU, or none when the host has none", async () => {
  const none = hostWith({ gpu: undefined });
  using fake = new FakeGpu({ software: false, subgroups: true });
  {
    const gpu = navigator.gpu;
    await using backend = await openBackend("webgpu", { tune: false, host: hostWith({ gpu }) });
    assert.equal(backend.description, "fake GPU");
    assert.ok(fake.shaders.size > 0);
  }
  // Other members are looked up on the default platform when used.
  await using auto = await openBackend("auto", { tune: false });
  assert.equal(auto.name, "webgpu");
  assert.equal(await probeWebGpu(none), null);
  for (const opening of [openBackend("webgpu", { host: none }), measureWebGpu(none)]) {
    await assert.rejects(opening, (error) => error instanceof DeviceError);
  }
  await using cpu = await openBackend("auto", { threads: 1, host: none });
  assert.equal(cpu.name, "wasm");
});

Deno.test("openBackend() opens wasm on one thread, with a note, where threads are denied", async () => {
  const startWorker = () => assert.fail("a worker is started");
  const host = hostWith({ cores: 4, startWorker, threadsDenied: () => "a reason; a next step" });
  for (const threads of [undefined, 2]) {
    await using backend = await openBackend("wasm", { host, threads });
    assert.equal(backend.threads, 1);
    assert.equal(backend.note, "runs on one thread: a reason; a next step");
  }
  await using asked = await openBackend("wasm", { host, threads: 1 });
  assert.equal(asked.note, undefined);
});
