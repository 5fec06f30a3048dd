import assert from "node:assert/strict";
import { nextTokenProbabilities } from "../../engine/sampler.ts";
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

Deno.test("nextTokenProbabilities() gives what LabCore's script draws from, in all 80 cases", () => {
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

Deno.test("nextTokenProbabilities() refuses what it cannot use", () => {
  const logits = new Float32Array([1, 2, 3]);
  assert.throws(() => nextTokenProbabilities(logits, [], { topP: 2 }), /topP/);
  assert.throws(() => nextTokenProbabilities(new Float32Array([1, NaN]), []), /finite/);
});

Deno.test("nextTokenProbabilities() is one at the lowest of the largest logits when greedy", () => {
  const p = nextTokenProbabilities(new Float32Array([1, 3, 3, 0]), [], { temperature: 0 });
  assert.deepEqual([...p], [0, 1, 0, 0]);
});

Deno.test("nextTokenProbabilities() keeps the likeliest id alone when topP is 0 or next to it", () => {
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
