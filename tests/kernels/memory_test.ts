import assert from "node:assert/strict";
import fc from "../fast_check.ts";
import { collectGarbage, Memory } from "../../kernels/memory.ts";
import type { MemoryClass } from "../../kernels/tensor.ts";

Deno.test("Memory.add() keeps the peak of the sum apart when classes peak at other times", () => {
  const memory = new Memory();
  memory.add("staging", 100);
  memory.add("staging", -100);
  memory.add("weights", 70);
  assert.equal(memory.current, 70);
  assert.equal(memory.peak, 100);
  assert.deepEqual(memory.classes, {
    weights: { current: 70, peak: 70 },
    kvCache: { current: 0, peak: 0 },
    activations: { current: 0, peak: 0 },
    staging: { current: 0, peak: 100 },
  });
});

Deno.test("Memory.resetPeak() starts from the bytes in use when buffers are held", () => {
  const memory = new Memory();
  memory.add("kvCache", 40);
  memory.add("activations", 60);
  memory.add("activations", -50);
  memory.resetPeak();
  assert.equal(memory.peak, 50);
  assert.deepEqual(memory.classes.kvCache, { current: 40, peak: 40 });
  assert.deepEqual(memory.classes.activations, { current: 10, peak: 10 });
  memory.add("activations", 5);
  assert.equal(memory.peak, 55);
  assert.equal(memory.classes.kvCache.peak, 40);
});

Deno.test("Memory.add() agrees with a log of all sums when buffers come and go", () => {
  const classes: readonly MemoryClass[] = ["weights", "kvCache", "activations", "staging"];
  const step = fc.record({ kind: fc.constantFrom(...classes), bytes: fc.nat({ max: 1000 }) });
  fc.assert(
    fc.property(fc.array(step), fc.array(fc.boolean()), (made, freed) => {
      const memory = new Memory();
      const log: Record<MemoryClass | "all", number[]> = {
        weights: [0],
        kvCache: [0],
        activations: [0],
        staging: [0],
        all: [0],
      };
      const change = (kind: MemoryClass, bytes: number): void => {
        memory.add(kind, bytes);
        for (const sums of [log[kind], log.all]) sums.push(sums[sums.length - 1] + bytes);
      };
      for (const [i, { kind, bytes }] of made.entries()) {
        change(kind, bytes);
        if (freed[i]) change(kind, -bytes);
      }
      assert.equal(memory.current, log.all.at(-1));
      assert.equal(memory.peak, Math.max(...log.all));
      for (const kind of classes) {
        assert.deepEqual(memory.classes[kind], {
          current: log[kind].at(-1),
          peak: Math.max(...log[kind]),
        });
      }
    }),
    { numRuns: 200, seed: 1 },
  );
});

Deno.test("collectGarbage() collects objects without references", async () => {
  const made = (() => Array.from({ length: 100 }, () => new WeakRef({})))();
  await new Promise((resolve) => setTimeout(resolve)); // a WeakRef holds its object until then
  collectGarbage();
  assert.deepEqual(made.filter((ref) => ref.deref()), []);
});
