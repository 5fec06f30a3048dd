import assert from "node:assert/strict";
import fc from "../../fast_check.ts";
import type { Backend } from "../../../kernels/backend.ts";
import { openJsBackend } from "../../../kernels/js/backend.ts";
import {
  type Filter,
  filterLogits,
  gumbel,
  NOT_FINITE,
  type Sampling,
  threefry,
} from "../../../kernels/ops/sample/mod.ts";
import type { Tensor } from "../../../kernels/tensor.ts";
import { assertClose, randomNumbers, readJson, TOLERANCE } from "../../testing.ts";

interface ThreefryCase {
  readonly op: "threefry";
  readonly words: readonly {
    readonly key: readonly [number, number];
    readonly counter: readonly [number, number];
    readonly word: number;
  }[];
}

interface GumbelCase {
  readonly op: "gumbel";
  readonly places: readonly (readonly [seed0: number, seed1: number, draw: number, id: number])[];
  readonly expected: { readonly data: readonly number[] };
}

interface DrawsCase {
  readonly op: "draws";
  readonly name: string;
  readonly seed: readonly [low: number, high: number];
  /** Number of earlier draws. */
  readonly first: number;
  readonly temperature: number;
  readonly penalty: number;
  readonly logits: { readonly data: readonly number[] };
  readonly ids: readonly number[];
}

interface LabCoreCase {
  readonly logits: readonly number[];
  readonly temperature: number;
  readonly top_k: number | null;
  readonly top_p: number;
  readonly repetition_penalty: number;
  readonly generated: readonly number[];
  readonly probs: readonly number[];
}

const OFF: Filter = { temperature: 1, topK: 0, topP: 1, repetitionPenalty: 1 };
const STEP = { rows: 1, position: 0, slot: 0, length: 1 };

const goldens = readJson<(ThreefryCase | GumbelCase | DrawsCase)[]>("kernels/sample.json");

for (const { words } of goldens.filter((c) => c.op === "threefry")) {
  Deno.test("threefry() gives Random123's words when keys and counters are known or random", () => {
    for (const { key, counter, word } of words) assert.equal(threefry(...key, ...counter), word);
  });
}

for (const { places, expected } of goldens.filter((c) => c.op === "gumbel")) {
  Deno.test("gumbel() gives the noise of the Python form when the bits are all ones, all zeros or any", () => {
    assertClose(places.map((place) => gumbel(...place)), expected.data, TOLERANCE.kernel);
  });
}

for (
  const [i, golden] of readJson<{ cases: LabCoreCase[] }>("labcore/sampling.json").cases.entries()
) {
  const { temperature, top_k, top_p, repetition_penalty, generated, probs } = golden;
  const settings = `T ${temperature}, k ${top_k}, p ${top_p}, penalty ${repetition_penalty}`;
  Deno.test(`filterLogits() keeps LabCore's distribution when it is case ${i}: ${settings}`, () => {
    const { out, finite } = filtered(golden.logits, generated, {
      temperature,
      topK: top_k ?? 0,
      topP: top_p,
      repetitionPenalty: repetition_penalty,
    });
    assert.ok(finite);
    assert.deepEqual(keptIds(out), keptIds(probs.map((p) => p > 0 ? p : -Infinity)));
    assertClose(softmax(out), probs, TOLERANCE.probability, "probabilities");
  });
}

Deno.test("filterLogits() keeps the lowest id of the largest when greedy", () => {
  const greedy = { ...OFF, temperature: 0 };
  assert.deepEqual(keptIds(filtered([1, 3, 2, 3], [], greedy).out), [1]);
  assert.deepEqual(keptIds(filtered([-5, -5], [], greedy).out), [0]);
  // The penalty comes first and changes the largest.
  assert.deepEqual(keptIds(filtered([1, 3, 2, 3], [1], { ...greedy, repetitionPenalty: 2 }).out), [
    3,
  ]);
});

Deno.test("filterLogits() keeps all that equal the k-th when there are ties", () => {
  const topK = (k: number) => keptIds(filtered([2, 1, 3, 1, 2, 0], [], { ...OFF, topK: k }).out);
  assert.deepEqual(topK(1), [2]);
  assert.deepEqual(topK(2), [0, 2, 4]);
  assert.deepEqual(topK(3), [0, 2, 4]);
  assert.deepEqual(topK(4), [0, 1, 2, 3, 4]);
  for (const off of [0, 6, 7, 1000]) assert.deepEqual(topK(off), [0, 1, 2, 3, 4, 5]);
});

Deno.test("filterLogits() keeps the first id beyond p when it cuts by probability", () => {
  // Probabilities 1/2, 1/4, 1/8, 1/8 in the order of ids 1, 3, 0, 2.
  const logits = [1, 4, 1, 2].map(Math.log);
  const topP = (p: number) => keptIds(filtered(logits, [], { ...OFF, topP: p }).out);
  assert.deepEqual(topP(0), [1]);
  assert.deepEqual(topP(0.49), [1]);
  assert.deepEqual(topP(0.51), [1, 3]);
  assert.deepEqual(topP(0.74), [1, 3]);
  assert.deepEqual(topP(0.76), [0, 1, 2, 3]); // ties stay together
  assert.deepEqual(topP(1), [0, 1, 2, 3]);
});

Deno.test("filterLogits() divides by the penalty when the logit is negative or not", () => {
  const { out } = filtered([2, -2, 2, -2], [0, 1], { ...OFF, repetitionPenalty: 2 });
  assert.deepEqual([...out], [1, -1, 2, -2]);
});

Deno.test("filterLogits() applies temperature, penalty, top-k, top-p in order when all are on", () => {
  // Both divide, so their order cannot be observed; the cuts see both.
  const { out } = filtered([8, 6, 5, 4, -4], [0], {
    temperature: 2,
    repetitionPenalty: 4,
    topK: 3,
    topP: 1,
  });
  assert.deepEqual([...out], [-Infinity, 3, 2.5, 2, -Infinity]);
  // Of the three ids that top-k keeps, 3 has probability over 1/2; of all five it has less, and 2.5
  // would be kept.
  const { out: both } = filtered([8, 6, 5, 4, -4], [0], {
    temperature: 2,
    repetitionPenalty: 4,
    topK: 3,
    topP: 0.5,
  });
  assert.deepEqual([...both], [-Infinity, 3, -Infinity, -Infinity, -Infinity]);
});

Deno.test("filterLogits() returns false when a logit is not finite", () => {
  for (const bad of [NaN, Infinity, -Infinity]) {
    for (const temperature of [0, 1]) {
      assert.equal(filtered([1, 2, bad], [], { ...OFF, temperature }).finite, false);
      assert.equal(filtered([bad, 1], [], { ...OFF, temperature }).finite, false);
    }
  }
});

/**
 * Logits are multiples of 1/2: F32 sums and divisions by powers of two are exact, and ties
 * frequent.
 */
const gridLogits = fc.array(fc.integer({ min: -20, max: 20 }).map((v) => v / 2), {
  minLength: 1,
  maxLength: 30,
});
const gridFilter = fc.record({
  temperature: fc.constantFrom(0, 0.5, 1, 2),
  topK: fc.nat({ max: 31 }),
  topP: fc.double({ min: 0, max: 1.2, noNaN: true }),
  repetitionPenalty: fc.constant(1),
});

Deno.test("filterLogits() keeps the same ids when a constant is added to every logit", () => {
  fc.assert(
    fc.property(gridLogits, gridFilter, fc.integer({ min: -64, max: 64 }), (logits, filter, by) => {
      const there = logits.map((v) => v + by);
      assert.deepEqual(
        keptIds(filtered(there, [], filter).out),
        keptIds(filtered(logits, [], filter).out),
      );
    }),
    { numRuns: 1000, seed: 1 },
  );
});

Deno.test("filterLogits() keeps the ids of its definition when settings are random", () => {
  fc.assert(
    fc.property(gridLogits, gridFilter, (logits, filter) => {
      const { temperature, topK, topP } = filter;
      if (temperature === 0) return;
      const s = logits.map((v) => v / temperature);
      const kth = topK > 0 ? s.toSorted((a, b) => b - a)[topK - 1] ?? -Infinity : -Infinity;
      const afterK = s.map((v) => v >= kth ? v : -Infinity);
      const p = softmax(afterK);
      const expected = [...s.keys()].filter((i) => {
        if (afterK[i] === -Infinity) return false;
        if (topP >= 1) return true;
        return p.reduce((sum, q, j) => s[j] > s[i] ? sum + q : sum, 0) <= topP;
      });
      assert.deepEqual(keptIds(filtered(logits, [], filter).out), expected);
    }),
    { numRuns: 1000, seed: 1 },
  );
});

for (const golden of goldens.filter((c) => c.op === "draws")) {
  Deno.test(`sample() draws the ids of the Python form when it has ${golden.name}`, async () => {
    await using backend = openJsBackend();
    const { seed, first, temperature, penalty, logits, ids } = golden;
    const drawer = open(backend, logits.data, {
      seed,
      first,
      ring: ids.length,
      filter: { ...OFF, temperature, repetitionPenalty: penalty },
    });
    const drawn = await drawer.draw(ids.length);
    assert.deepEqual(drawn, ids);
    assert.deepEqual([...await backend.read(drawer.sampling.counter)], [
      ...seed,
      first + ids.length,
    ]);
    const seen = await backend.read(drawer.sampling.seen);
    assert.deepEqual([...seen], logits.data.map((_, id) => ids.includes(id) ? 1 : 0));
  });
}

Deno.test("sample() repeats its draws when the seed is the same, and not when a word differs", async () => {
  await using backend = openJsBackend();
  const draw = (seed: readonly [number, number]) =>
    open(backend, [...randomNumbers(50, 3)], { seed, filter: OFF, ring: 64 }).draw(64);
  const expected = await draw([1, 2]);
  assert.deepEqual(await draw([1, 2]), expected);
  assert.notDeepEqual(await draw([2, 2]), expected);
  assert.notDeepEqual(await draw([1, 3]), expected);
});

Deno.test("sample() wraps around its ring when there are more draws than room", async () => {
  await using backend = openJsBackend();
  const logits = [...randomNumbers(20, 4)];
  const all = await open(backend, logits, { seed: [5, 0], filter: OFF, ring: 11 }).draw(11);
  const drawer = open(backend, logits, { seed: [5, 0], filter: OFF, ring: 4 });
  await drawer.draw(11);
  // Draws 8, 9, 10 overwrite 4, 5, 6; draw 7 remains.
  assert.deepEqual(
    [...await backend.read(drawer.sampling.drawn)],
    [all[8], all[9], all[10], all[7]],
  );
});

Deno.test("sample() takes the largest without noise when the temperature is 0", async () => {
  await using backend = openJsBackend();
  const drawer = open(backend, [0, 1, 1, 0.5], {
    seed: [1, 0],
    filter: { ...OFF, temperature: 0 },
    ring: 3,
  });
  assert.deepEqual(await drawer.draw(3), [1, 1, 1]);
});

Deno.test("sample() gives NOT_FINITE and leaves `seen` unchanged when a logit is not finite", async () => {
  for (const bad of [NaN, Infinity, -Infinity]) {
    for (const temperature of [0, 0.7]) {
      await using backend = openJsBackend();
      const drawer = open(backend, [1, bad, 2], {
        seed: [1, 0],
        filter: { ...OFF, temperature },
        ring: 2,
      });
      assert.deepEqual(await drawer.draw(1), [NOT_FINITE]);
      assert.deepEqual([...await backend.read(drawer.sampling.drawn)], [NOT_FINITE, 0]);
      assert.deepEqual([...await backend.read(drawer.sampling.seen)], [0, 0, 0]);
      assert.deepEqual([...await backend.read(drawer.sampling.counter)], [1, 0, 1]);
    }
  }
});

Deno.test("sample() writes only the first id when there is room for more", async () => {
  await using backend = openJsBackend();
  const drawer = open(backend, [0, 9], {
    seed: [1, 0],
    filter: { ...OFF, temperature: 0 },
    ring: 1,
  });
  backend.write(drawer.ids, new Int32Array([7, 8, 9]));
  await drawer.draw(1);
  assert.deepEqual([...await backend.read(drawer.ids)], [1, 8, 9]);
});

const distributions: readonly { readonly name: string; readonly filter: Filter }[] = [
  { name: "no filter", filter: OFF },
  { name: "a temperature", filter: { ...OFF, temperature: 0.6 } },
  { name: "top-k", filter: { ...OFF, topK: 7 } },
  { name: "top-p", filter: { ...OFF, topP: 0.8 } },
];

for (const { name, filter } of distributions) {
  Deno.test(`sample() draws from the softmax of the kept ids when there is ${name}`, async () => {
    const count = 20000;
    const logits = Array.from(randomNumbers(16, 8), (v) => 1.5 * v);
    await using backend = openJsBackend();
    const ids = await open(backend, logits, { seed: [99, 0], filter, ring: count }).draw(count);
    const drawn = new Float64Array(logits.length);
    for (const id of ids) drawn[id]++;
    const expected = softmax(filtered(logits, [], filter).out).map((p) => p * count);
    let chiSquare = 0;
    for (const [id, mean] of expected.entries()) {
      if (mean === 0) assert.equal(drawn[id], 0, `id ${id} is cut`);
      else chiSquare += (drawn[id] - mean) ** 2 / mean;
    }
    const freedom = expected.filter((mean) => mean > 0).length - 1;
    assert.ok(freedom > 2);
    assertClose([chiSquare / freedom], [1], TOLERANCE.chiSquare, "χ² per degree of freedom");
  });
}

function filtered(
  logits: readonly number[],
  generated: readonly number[],
  filter: Filter,
): { out: Float32Array; finite: boolean } {
  const V = logits.length;
  const out = new Float32Array(V);
  const seen = new Uint32Array(V);
  for (const id of generated) seen[id] = 1;
  const finite = filterLogits(out, Float32Array.from(logits), seen, filter, new Float32Array(V));
  return { out, finite };
}

function keptIds(kept: ArrayLike<number>): number[] {
  return Array.from(kept).flatMap((v, id) => v === -Infinity ? [] : [id]);
}

function softmax(values: ArrayLike<number>): number[] {
  const max = Math.max(...Array.from(values));
  const powers = Array.from(values, (v) => Math.exp(v - max));
  const total = powers.reduce((sum, p) => sum + p, 0);
  return powers.map((p) => p / total);
}

interface Drawer {
  readonly ids: Tensor;
  readonly sampling: Sampling;
  /** Draws `count` ids with a recorded plan. */
  draw(count: number): Promise<number[]>;
}

function open(
  backend: Backend,
  logits: readonly number[],
  { seed, filter, ring, first = 0 }: {
    readonly seed: readonly [low: number, high: number];
    readonly filter: Filter;
    readonly ring: number;
    readonly first?: number;
  },
): Drawer {
  const { temperature, topK, topP, repetitionPenalty } = filter;
  const row = backend.tensor([1, logits.length], "F32", "activations");
  backend.write(row, Float32Array.from(logits));
  const ids = backend.tensor([3], "I32", "activations");
  const sampling = {
    settings: backend.tensor([4], "F32", "activations"),
    counter: backend.tensor([3], "U32", "activations"),
    seen: backend.tensor([logits.length], "U32", "activations"),
    drawn: backend.tensor([ring], "I32", "activations"),
  };
  backend.write(sampling.settings, Float32Array.of(temperature, topK, topP, repetitionPenalty));
  backend.write(sampling.counter, Uint32Array.of(...seed, first));
  const plan = backend.record((k) => k.sample(ids, row, sampling));
  const draw = async (count: number): Promise<number[]> => {
    const recorded = await plan;
    for (let i = 0; i < count; i++) recorded.run(STEP);
    const ringAt = Array.from(await backend.read(sampling.drawn));
    const [last] = await backend.read(ids);
    assert.equal(ringAt[(first + count - 1) % ring], last);
    return Array.from({ length: count }, (_, i) => ringAt[(first + i) % ring]);
  };
  return { ids, sampling, draw };
}
