import assert from "node:assert/strict";
import { nextTokenProbabilities, type SamplingOptions } from "../../engine/sampler.ts";
import { assertClose, readJson, TOLERANCE } from "../testing.ts";

interface Case {
  logits: number[];
  temperature: number;
  top_k: number | null;
  top_p: number;
  repetition_penalty: number;
  generated: number[];
  probs: number[];
}

Deno.test("nextTokenProbabilities() equals LabCore's script in 80 cases", () => {
  const { cases } = readJson<{ cases: Case[] }>("labcore/sampling.json");
  assert.equal(cases.length, 80);
  for (const [i, c] of cases.entries()) {
    const probabilities = nextTokenProbabilities(Float32Array.from(c.logits), c.generated, {
      temperature: c.temperature,
      topK: c.top_k ?? 0,
      topP: c.top_p,
      repetitionPenalty: c.repetition_penalty,
    });
    assertClose(probabilities, c.probs, TOLERANCE.probability, `case ${i}`);
    c.probs.forEach((p, id) => assert.equal(probabilities[id] > 0, p > 0, `case ${i}, id ${id}`));
  }
});

Deno.test("nextTokenProbabilities() refuses bad options and infinite logits", () => {
  const logits = new Float32Array([1, 2, 3]);
  assert.throws(() => nextTokenProbabilities(logits, [], { topP: 2 }), /topP/);
  assert.throws(() => nextTokenProbabilities(new Float32Array([1, NaN]), []), /finite/);
});

Deno.test("nextTokenProbabilities() is 1 at the lowest id of the largest logit when greedy", () => {
  const p = nextTokenProbabilities(new Float32Array([1, 3, 3, 0]), [], { temperature: 0 });
  assert.deepEqual([...p], [0, 1, 0, 0]);
});

Deno.test("nextTokenProbabilities() keeps the likeliest id when topP is near 0", () => {
  const logits = new Float32Array([1, 2.5, 3, 2.999, -4]);
  for (const topP of [0, 1e-46, 1e-9]) {
    for (const temperature of [0.1, 0.9, 5]) {
      const p = nextTokenProbabilities(logits, [], { topP, topK: 0, temperature });
      assert.deepEqual([...p], [0, 0, 1, 0, 0], `topP ${topP}, temperature ${temperature}`);
    }
    const penalised = { topP, topK: 0, repetitionPenalty: 2 };
    assert.deepEqual([...nextTokenProbabilities(logits, [2], penalised)], [0, 0, 0, 1, 0]);
  }
  const flat = Float32Array.from({ length: 50257 }, (_, id) => id === 7 ? 1e-3 : 0);
  for (const topP of [0, 1e-9]) {
    const p = nextTokenProbabilities(flat, [], { topP, topK: 0 });
    assert.deepEqual([p[7], p.filter((value) => value > 0).length], [1, 1]);
  }
});

Deno.test("nextTokenProbabilities() gives no NaN when scaled logits exceed F32", () => {
  const cases: [logits: number[], generated: number[], SamplingOptions, expected: number[]][] = [
    [[3e38, 2.9e38, -3e38], [], { temperature: 0.7, topK: 0 }, [1, 0, 0]],
    [[2.9e38, 3e38, 3e38], [], { temperature: 0.7, topK: 2 }, [0, 0.5, 0.5]],
    [[2.9e38, 3e38, 0], [], { temperature: 1e-6, topK: 0, topP: 0.5 }, [0, 1, 0]],
    [[-3.1e38, -3e38, -3.2e38], [], { temperature: 0.5, topK: 0 }, [0, 1, 0]],
    [[3e38, 2e38, 1], [1], { temperature: 1, topK: 0, repetitionPenalty: 0.5 }, [0, 1, 0]],
    [[2e38, 3e38, 1], [0, 1], { temperature: 0, repetitionPenalty: 0.5 }, [0, 1, 0]],
    [[1, 2, 3], [1], { temperature: 1, repetitionPenalty: 1e-300 }, [0, 1, 0]],
    [[3e38, 2e38, 1], [0], { temperature: 1, repetitionPenalty: 1e-300 }, [1, 0, 0]],
    [[3, 3, -3e38], [], { temperature: 0.1, topK: 0 }, [0.5, 0.5, 0]],
  ];
  for (const [logits, generated, options, expected] of cases) {
    const p = nextTokenProbabilities(Float32Array.from(logits), generated, options);
    assert.deepEqual([...p], expected, JSON.stringify([logits, options]));
  }
});

Deno.test("nextTokenProbabilities() refuses arguments of the wrong type in one sentence", () => {
  const call = nextTokenProbabilities as (...args: unknown[]) => unknown;
  const logits = new Float32Array([1, 2, 3]);
  const cases: [args: unknown[], name: string, message: RegExp][] = [
    [[[1, 2, 3], []], "TypeError", /^Cannot give .*logits to be a Float32Array, got a list$/],
    [[undefined, []], "TypeError", /got undefined$/],
    [[logits, undefined], "TypeError", /token ids to be a list of numbers, got undefined$/],
    [[logits, [1, undefined]], "RangeError", /id undefined: expected an integer from 0 to 2$/],
    [[logits, [3]], "RangeError", /id 3: /],
    [[logits, [], { topK: "40" }], "TypeError", /topK to be a whole number .*, got "40"$/],
    [[logits, [], { temperature: 1n }], "TypeError", /temperature to be a number .*, got 1n$/],
  ];
  for (const [args, name, message] of cases) assert.throws(() => call(...args), { name, message });
});
