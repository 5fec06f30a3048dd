/**
 * Tests of sampling on every backend, against its typed-array form.
 *
 * @module
 */
import assert from "node:assert/strict";
import type { Backend } from "../../kernels/backend.ts";
import { NOT_FINITE, sampleJs } from "../../kernels/ops/sample/mod.ts";
import { randomNumbers } from "../testing.ts";
import { put, runOnce, stepOf } from "./twins.ts";

interface SampleCase {
  V: number;
  settings: readonly [temperature: number, topK: number, topP: number, penalty: number];
  seed?: number;
  draws?: number;
  logits?: (i: number) => number;
}

/** Draws on both backends from the same state, and compares all state on the device. */
async function checkSampleCase(backend: Backend, test: SampleCase): Promise<void> {
  const { V, settings, seed = 1, draws = 6, logits } = test;
  const R = 4; // fewer than draws, so that the ring wraps
  const numbers = logits
    ? Float32Array.from({ length: V }, (_, i) => logits(i))
    : randomNumbers(V, seed).map((v) => 8 * v);
  const host = {
    settings: new Float32Array(settings),
    counter: new Uint32Array([seed, 0x9e3779b9, 0]),
    seen: new Uint32Array(V),
    drawn: new Int32Array(R),
  };
  const device = {
    settings: put(backend, host.settings, [4]),
    counter: put(backend, host.counter, [3], "U32"),
    seen: put(backend, host.seen, [V], "U32"),
    drawn: put(backend, host.drawn, [R], "I32"),
  };
  const from = put(backend, numbers, [1, V]);
  const ids = backend.tensor([2], "I32", "activations");
  const expected = new Int32Array(2);
  using plan = await backend.record((k) => k.sample(ids, from, device));
  for (let draw = 0; draw < draws; draw++) {
    plan.run(stepOf(1));
    sampleJs(expected, numbers, host);
    if (draw % R === R - 1) assert.deepEqual(await backend.read(device.drawn), host.drawn);
  }
  const what = JSON.stringify(test);
  assert.deepEqual(await backend.read(device.drawn), host.drawn, what);
  assert.deepEqual(await backend.read(ids), expected, what);
  assert.deepEqual(await backend.read(device.counter), host.counter, what);
  assert.deepEqual(await backend.read(device.seen), host.seen, what);
}

/** Registers the tests; `test` opens a backend for each. */
export function sampleTwinTests(
  test: (name: string, run: (backend: Backend) => Promise<void>) => void,
): void {
  test("sample() takes the lowest id of the largest logit when it is greedy", async (backend) => {
    for (const V of [1, 2, 65, 396, 1000, 2500]) {
      await checkSampleCase(backend, { V, settings: [0, 0, 1, 1] });
      await checkSampleCase(backend, { V, settings: [0, 0, 1, 1.3] });
      await checkSampleCase(backend, { V, settings: [0, 0, 1, 1], logits: (i) => (i * 7) % 5 });
      await checkSampleCase(backend, {
        V,
        settings: [0, 0, 1, 1],
        logits: (i) => i === 0 ? -0 : 0,
      });
      await checkSampleCase(backend, { V, settings: [0, 0, 1, 1], logits: (i) => -1 - (i % 3) });
    }
  });

  test("sample() draws the ids of sampleJs() when settings vary", async (backend) => {
    const settings: SampleCase["settings"][] = [
      [1, 0, 1, 1],
      [0.7, 0, 1, 1],
      [5, 0, 1, 1],
      [1, 1, 1, 1],
      [3, 40, 1, 1],
      [3, 1e6, 1, 1],
      [3, 0, 0.9, 1],
      [3, 0, 0, 1],
      [1, 0, 0.5, 1.2],
      [2, 50, 0.95, 1.1],
    ];
    for (const V of [1, 2, 65, 396, 1000, 2500]) {
      for (const setting of settings) {
        await checkSampleCase(backend, { V, settings: setting, seed: V });
      }
    }
  });

  test("sample() keeps equal logits together when they are at a threshold", async (backend) => {
    const logits = (i: number) => Math.floor(i / 10) % 7;
    for (const V of [396, 2500]) {
      for (let seed = 0; seed < 5; seed++) {
        for (const settings of [[2, 15, 1, 1], [2, 0, 0.4, 1], [2, 30, 0.6, 1]] as const) {
          await checkSampleCase(backend, { V, settings, logits, seed });
        }
      }
    }
  });

  test(
    "sample() draws the ids of sampleJs() when it draws hundreds of times",
    async (backend) => {
      await checkSampleCase(backend, { V: 65, settings: [4, 0, 1, 1], draws: 300 });
      await checkSampleCase(backend, { V: 65, settings: [4, 20, 0.9, 1.1], draws: 300 });
    },
  );

  test("sample() draws the ids of sampleJs() when the vocabulary is GPT-2's", async (backend) => {
    await checkSampleCase(backend, { V: 50257, settings: [2, 0, 1, 1] });
    await checkSampleCase(backend, { V: 50257, settings: [2, 200, 0.9, 1.1] });
    await checkSampleCase(backend, { V: 50257, settings: [0.9, 40, 1, 1] });
  });

  test("sample() draws the ids of sampleJs() when the vocabulary is Llama 3's", async (backend) => {
    const V = 128256;
    const shapes: Record<string, (i: number) => number> = {
      equal: () => -7.5,
      "all in one bin of 1/16": (i) => 20 + ((i * 7919) % V) / V / 32,
      "Zipf's law": (i) => -1.2 * Math.log(1 + (i + 1000) % V),
    };
    for (const logits of Object.values(shapes)) {
      const all: SampleCase["settings"][] = [
        [0.9, 40, 1, 1],
        [2, 0, 0.95, 1.1],
        [1, 0, 1e-9, 1],
        [1, 2 * V, 0.5, 1],
      ];
      for (const settings of all) await checkSampleCase(backend, { V, settings, logits, draws: 1 });
    }
  });

  test("sample() keeps the order of logits that exceed F32 when scaled", async (backend) => {
    const most = 3.4028234663852886e38;
    const shapes: Record<string, (i: number) => number> = {
      "above it": (i) => i % 3 === 1 ? 2e38 + i * 1e34 : -most,
      "below it": (i) => -most + ((i * 7919) % 1201) * 1e34,
      "both": (i) => [most, -most, 0, 3e38][i % 4],
      "masked": (i) => i % 9 ? -most : Math.sin(i),
    };
    for (const V of [65, 2500]) {
      for (const logits of Object.values(shapes)) {
        for (
          const [temperature, penalty] of [[0.5, 1], [1e-9, 1], [0, 0.5], [0.5, 4], [1, 1e-30]]
        ) {
          const settings = [temperature, 0, 1, penalty] as const;
          await checkSampleCase(backend, { V, settings, logits });
          await checkSampleCase(backend, { V, settings: [temperature, 3, 0.9, penalty], logits });
        }
      }
    }
  });

  test("sample() follows its settings when they change between draws", async (backend) => {
    const V = 2500;
    const numbers = randomNumbers(V, 1).map((v) => 4 * v);
    const host = {
      settings: new Float32Array(4),
      counter: new Uint32Array([1, 2, 0]),
      seen: new Uint32Array(V),
      drawn: new Int32Array(8),
    };
    const device = {
      settings: backend.tensor([4], "F32", "activations"), // zeros: greedy
      counter: put(backend, host.counter, [3], "U32"),
      seen: put(backend, host.seen, [V], "U32"),
      drawn: put(backend, host.drawn, [8], "I32"),
    };
    const logits = put(backend, numbers, [1, V]);
    const ids = backend.tensor([1], "I32", "activations");
    using plan = await backend.record((k) => k.sample(ids, logits, device));
    const changes = [[1, 0, 1, 2], [0, 0, 1, 2], [2, 40, 1, 1], [2, 0, 0.9, 1], [0, 40, 0.9, 3]];
    for (const settings of [null, ...changes]) {
      if (settings) {
        host.settings.set(settings);
        backend.write(device.settings, host.settings);
      }
      plan.run(stepOf(1));
      sampleJs(new Int32Array(1), numbers, host);
    }
    assert.deepEqual(await backend.read(device.drawn), host.drawn);
  });

  test("sample() gives NOT_FINITE when one logit is not finite", async (backend) => {
    const V = 2500;
    const bad = [0x7fc00000, 0xffc00001, 0x7f800001, 0x7f800000, 0xff800000];
    for (const [i, bits] of bad.entries()) {
      for (const temperature of [0, 1]) {
        const logits = randomNumbers(V, 1);
        new Uint32Array(logits.buffer)[[0, 31, 1024, 2047, V - 1][i]] = bits;
        const counter = put(backend, new Uint32Array([1, 2, 5]), [3], "U32");
        const seen = backend.tensor([V], "U32", "activations");
        const drawn = backend.tensor([4], "I32", "activations");
        const ids = backend.tensor([1], "I32", "activations");
        const settings = put(backend, new Float32Array([temperature, 40, 0.9, 1]), [4]);
        const from = put(backend, logits, [1, V]);
        await runOnce(backend, 1, (k) => k.sample(ids, from, { settings, counter, seen, drawn }));
        const what = bits.toString(16);
        assert.deepEqual(await backend.read(ids), new Int32Array([NOT_FINITE]), what);
        assert.deepEqual(await backend.read(drawn), new Int32Array([0, NOT_FINITE, 0, 0]), what);
        assert.deepEqual(await backend.read(counter), new Uint32Array([1, 2, 6]), what);
        assert.deepEqual(await backend.read(seen), new Uint32Array(V), what);
      }
    }
  });
}
