import assert from "node:assert/strict";
import fc from "../fast_check.ts";
import { Sequence } from "../../engine/sequence.ts";

const LEARNED = { rope: null, slides: true };
const ENDING = { rope: null, slides: false };
const rope = { theta: 10_000, rotaryDim: 4, interleaved: false };

/** Feeds `count` tokens one by one; returns their steps. */
function stepsOf(sequence: Sequence, count: number) {
  return Array.from({ length: count }, () => {
    const step = sequence.step(1);
    sequence.advance(1);
    return step;
  });
}

/** Prefills a prompt in chunks as a runner does; returns the rows of each chunk. */
function prefill(sequence: Sequence, prompt: number[], reuse: boolean | "all"): number[] {
  sequence.start(prompt, reuse);
  const rows: number[] = [];
  while (sequence.fed < prompt.length - 1) {
    const ids = prompt.slice(
      sequence.fed,
      Math.min(sequence.fed + sequence.chunk, prompt.length - 1),
    );
    rows.push(ids.length);
    sequence.cache(ids);
    sequence.advance(ids.length);
  }
  return rows;
}

/** Draws ids after a prompt. */
function draw(sequence: Sequence, ids: number[]): void {
  for (const _ of ids) sequence.advance(1);
  sequence.drew(ids);
}

Deno.test("Sequence.step() follows the table of the module past the window", () => {
  const columns = (sequence: Sequence) => {
    const steps = stepsOf(sequence, 9);
    return ["slot", "position", "length"].map((key) =>
      steps.map((step) => step[key as "slot" | "position" | "length"])
    );
  };
  const slots = [0, 1, 2, 3, 0, 1, 2, 3, 0];
  const lengths = [1, 2, 3, 4, 4, 4, 4, 4, 4];
  assert.deepEqual(
    columns(new Sequence(LEARNED, 4, 2)),
    [slots, [0, 1, 2, 3, 3, 3, 3, 3, 3], lengths],
  );
  assert.deepEqual(
    columns(new Sequence({ rope, slides: true }, 4, 2)),
    [slots, [0, 1, 2, 3, 4, 4, 4, 4, 4], lengths],
  );
});

Deno.test("Sequence.step() of several rows equals steps of one row each", () => {
  const sequence = new Sequence(LEARNED, 16, 8);
  assert.deepEqual(sequence.step(8), { rows: 8, position: 0, slot: 0, length: 8 });
  sequence.advance(8);
  assert.deepEqual(sequence.step(3), { rows: 3, position: 8, slot: 8, length: 11 });
});

Deno.test("Sequence.room is its free slots, or infinite when it slides", () => {
  const sequence = new Sequence(ENDING, 4, 2);
  assert.equal(sequence.room, 4);
  stepsOf(sequence, 3);
  assert.deepEqual([sequence.room, sequence.full], [1, false]);
  stepsOf(sequence, 1);
  assert.deepEqual([sequence.room, sequence.full], [0, true]);
  const sliding = new Sequence(LEARNED, 4, 2);
  stepsOf(sliding, 9);
  assert.deepEqual([sliding.room, sliding.full, sliding.fed], [Infinity, true, 9]);
});

Deno.test("Sequence.start() keeps whole prefilled chunks, or all cached slots when asked", () => {
  const sequence = new Sequence(ENDING, 64, 4);
  const prompt = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
  assert.deepEqual(prefill(sequence, prompt, true), [4, 4, 1]);
  draw(sequence, [11, 12, 13]); // slots 9, 10, 11 have 10, 11, 12
  assert.equal(sequence.fed, 12);
  const longer = [...prompt, 11, 12, 20, 21];
  assert.deepEqual(prefill(sequence, longer, "all"), [1], "12 of 13 are cached");
  assert.deepEqual(
    prefill(sequence, longer, true),
    [4, 1],
    "8 of 13 are prefilled in whole chunks",
  );
  assert.deepEqual(prefill(sequence, longer, false), [4, 4, 4, 1]);
  assert.deepEqual(
    prefill(sequence, [1, 2, 3, 99, 5, 6], "all"),
    [2],
    "from the first difference on",
  );
});

Deno.test("Sequence.start() reuses nothing that was overwritten, forgotten or cleared", () => {
  const prompt = [1, 2, 3, 4, 5];
  for (const reuse of [true, "all"] as const) {
    const overwritten = new Sequence(LEARNED, 6, 2);
    prefill(overwritten, prompt, reuse);
    draw(overwritten, [6, 7]); // 6 tokens fed: slot 5 has 6
    assert.equal(overwritten.full, true);
    draw(overwritten, [8]); // slot 0 has 7
    assert.deepEqual(prefill(overwritten, prompt, reuse), [2, 2]);
    for (const undo of ["forget", "clear"] as const) {
      const sequence = new Sequence(LEARNED, 6, 2);
      prefill(sequence, prompt, reuse);
      sequence[undo]();
      assert.deepEqual(prefill(sequence, prompt, reuse), [2, 2]);
    }
  }
});

Deno.test("Sequence.start() keeps no chunk that an aborted prefill did not write", () => {
  const sequence = new Sequence(ENDING, 64, 4);
  const prompt = Array.from({ length: 14 }, (_, i) => i);
  sequence.start(prompt, true);
  sequence.cache(prompt.slice(0, 4));
  sequence.advance(4);
  assert.deepEqual(prefill(sequence, prompt, true), [4, 4, 1]);
});

Deno.test("two sequences share no state", () => {
  const [a, b] = [new Sequence(ENDING, 16, 4), new Sequence(ENDING, 16, 4)];
  prefill(a, [1, 2, 3, 4, 5, 6], true);
  assert.equal(b.fed, 0);
  assert.deepEqual(prefill(b, [1, 2, 3, 4, 5, 6], "all"), [4, 1]);
});

Deno.test("Sequence.start() keeps only ids that are in the cache's slots, after any use", () => {
  // A simulated device: each slot holds the id that a step wrote last.
  const id = fc.nat(2); // few ids, so that prompts often share a beginning
  const use = fc.record({
    prompt: fc.array(id, { minLength: 1, maxLength: 8 }),
    drawn: fc.array(fc.array(id, { minLength: 1, maxLength: 3 }), { maxLength: 5 }),
    reuse: fc.constantFrom(true, false, "all" as const),
    aborted: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(use, { maxLength: 6 }), fc.boolean(), (uses, slides) => {
      const S = 8;
      const sequence = new Sequence({ rope: null, slides }, S, 3);
      const slots: number[] = Array(S).fill(-1);
      const write = (ids: readonly number[]) => {
        const { slot, rows } = sequence.step(ids.length);
        assert.ok(slot + rows <= S, "a step never wraps around the cache");
        ids.forEach((id, i) => slots[slot + i] = id);
      };
      for (const { prompt, drawn, reuse, aborted } of uses) {
        sequence.start(prompt, reuse);
        assert.deepEqual(slots.slice(0, sequence.fed), prompt.slice(0, sequence.fed));
        assert.ok(sequence.fed < prompt.length, "the last id is always fed anew");
        const rest = prompt.slice(0, -1);
        while (sequence.fed < rest.length) {
          const chunk = rest.slice(sequence.fed, sequence.fed + 3);
          write(chunk);
          sequence.cache(chunk);
          sequence.advance(chunk.length);
          if (aborted) break;
        }
        if (sequence.fed < rest.length) continue;
        let pending = prompt[prompt.length - 1];
        for (const ids of drawn) {
          const count = Math.min(ids.length, sequence.room);
          if (!count) break;
          for (const id of ids.slice(0, count)) {
            write([pending]);
            sequence.advance(1);
            pending = id;
          }
          sequence.drew(ids.slice(0, count));
        }
      }
    }),
    { numRuns: 500, seed: 1 },
  );
});
