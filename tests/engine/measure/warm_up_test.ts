import assert from "node:assert/strict";
import { MOST_ROUNDS, type Pass, repeatUntilSteady } from "../../../engine/measure/warm_up.ts";

/** A clock that moves only while passes run, and passes of given durations in ms. */
function simulate() {
  let time = 1000;
  const ran: string[] = [];
  const pass = (name: string, durationOf: (run: number) => number): Pass => {
    let run = 0;
    return () => {
      const ms = durationOf(run++);
      time += ms;
      ran.push(name);
      return Promise.resolve(ms);
    };
  };
  return { now: () => time, pass, ran };
}

Deno.test("repeatUntilSteady() ends after two rounds when times are steady", async () => {
  for (const ms of [0.5, 7, 30]) {
    const { now, pass } = simulate();
    const passes = [pass("decode", () => ms), pass("prefill", () => 2 * ms)];
    const outcome = await repeatUntilSteady(passes, { now });
    assert.deepEqual([outcome.rounds, outcome.steady], [2, true], `${ms} ms`);
    assert.ok(outcome.ms >= 200 && outcome.ms < 400, `${outcome.ms} ms`);
  }
});

Deno.test("repeatUntilSteady() goes on while either kind of pass gets faster", async () => {
  for (const [decodeRuns, prefillRuns] of [[60, 0], [0, 60]]) {
    const { now, pass } = simulate();
    const passes = [
      pass("decode", (run) => run < decodeRuns ? 10 - run / 10 : 4),
      pass("prefill", (run) => run < prefillRuns ? 10 - run / 10 : 4),
    ];
    const rounds: number[] = [];
    const outcome = await repeatUntilSteady(passes, { now, onRound: (n) => rounds.push(n) });
    assert.equal(outcome.steady, true);
    assert.ok(outcome.rounds > 5, `${outcome.rounds} rounds`);
    assert.deepEqual(rounds, [...rounds.keys()].map((i) => i + 1));
    assert.equal(rounds.length, outcome.rounds);
  }
});

Deno.test("repeatUntilSteady() ends after 2 s when times never agree", async () => {
  const { now, pass } = simulate();
  let ms = 1;
  const outcome = await repeatUntilSteady([pass("decode", () => ms *= 1.05)], { now });
  assert.equal(outcome.steady, false);
  assert.ok(outcome.ms <= 2000 && outcome.ms > 1800, `${outcome.ms} ms`);
  assert.ok(outcome.rounds > 2 && outcome.rounds <= MOST_ROUNDS);
});

Deno.test("repeatUntilSteady() stops inside a round when the model is slow", async () => {
  for (
    const [decodeMs, prefillMs, ms, ...ran] of [
      [900, 400, 1300, "decode", "prefill"], // another decode would end after 2.2 s
      [700, 500, 1900, "decode", "prefill", "decode"],
      [5000, 1, 5000, "decode"], // a single pass is never cut short
    ] as [number, number, number, ...string[]][]
  ) {
    const world = simulate();
    const passes = [world.pass("decode", () => decodeMs), world.pass("prefill", () => prefillMs)];
    const outcome = await repeatUntilSteady(passes, { now: world.now });
    assert.deepEqual(world.ran, ran);
    assert.deepEqual(outcome, { ms, rounds: ran.includes("prefill") ? 1 : 0, steady: false });
  }
});

Deno.test("repeatUntilSteady() throws the reason of an abort", async () => {
  const { now, pass, ran } = simulate();
  const reason = new Error("enough");
  const controller = new AbortController();
  const passes = [pass("decode", (run) => {
    if (run === 3) controller.abort(reason);
    return 1 + run;
  })];
  await assert.rejects(
    repeatUntilSteady(passes, { now, signal: controller.signal }),
    (error) => error === reason,
  );
  assert.equal(ran.length, 4);
});
