import assert from "node:assert/strict";
import { loadChecked } from "../../../engine/load.ts";
import { RemainingTime } from "../../../engine/measure/remaining_time.ts";
import {
  shuffled,
  sweep,
  type SweepGroup,
  type SweepOptions,
} from "../../../engine/measure/sweep.ts";
import { DeviceError } from "../../../kernels/errors.ts";
import { assertRecords } from "./schema.ts";

/** A combination of these tests: its name, and the length of its generations. */
interface Member {
  readonly name: string;
  readonly genTokens: number;
}

const SHAPE = {
  ...{ family: "gpt2", vocab_size: 11, block_size: 16, n_layer: 1, n_head: 2, n_embd: 8 },
};

/** Groups by name with the lengths of their members, whose models are tiny; logs the loads. */
function groupsOf(
  lengths: Readonly<Record<string, readonly number[]>>,
  log: string[],
  fail: Readonly<Record<string, Error>> = {},
): SweepGroup<Member>[] {
  return Object.entries(lengths).map(([name, tokens]) => ({
    members: tokens.map((genTokens) => ({ name: `${name}${genTokens}`, genTokens })),
    load: async (check) => {
      log.push(`load ${name}`);
      if (fail[name]) throw fail[name];
      const model = await loadChecked({ config: SHAPE }, { device: "js" }, check);
      const dispose = model[Symbol.asyncDispose].bind(model);
      model[Symbol.asyncDispose] = async () => {
        log.push(`close ${name}`);
        await dispose();
      };
      return model;
    },
  }));
}

function options(change: Partial<SweepOptions<Member>> = {}): SweepOptions<Member> {
  return {
    settings: ({ genTokens }, { contextLength }) => {
      if (genTokens >= contextLength) throw new RangeError("too long");
      return { prompt: [1], genTokens, warmupTokens: 1, seed: 3 };
    },
    ...{ seed: 1, iters: 2, room: Infinity },
    ...change,
  };
}

/** Names of the combinations whose iterations begin, in order. */
function iterations(log: string[]): Partial<SweepOptions<Member>> {
  return {
    onProgress: ({ member, stage, run }) => {
      if (stage === "iteration" && run?.tokens === 0) log.push(`${member.name}#${run.iteration}`);
    },
  };
}

Deno.test("sweep() loads a model once, and alternates the iterations in an order of the seed", async () => {
  const log: string[] = [];
  const results = await sweep(
    groupsOf({ a: [2, 3], b: [4] }, log),
    options({ seed: 7, iters: 4, ...iterations(log) }),
  );
  assert.deepEqual(
    results.map(({ member, report }) => [member.name, report!.generation.gen_tokens]),
    [["a2", 2], ["a3", 3], ["b4", 4]],
  );
  assert.deepEqual(results.map(({ report }) => report!.results.iters), [4, 4, 4]);
  assertRecords(results.map(({ report }) => report));
  const orders = [0, 1, 2, 3].map((turn) => shuffled(["a2", "a3", "b4"], 7, turn));
  assert.ok(new Set(orders.map(String)).size > 1);
  assert.deepEqual(log, [
    ...["load a", "load b"],
    ...orders.flatMap((order, i) => order.map((name) => `${name}#${i}`)),
    ...["close b", "close a"],
  ]);
});

Deno.test("sweep() gives a reason for each combination that fails, and runs the others", async () => {
  const log: string[] = [];
  const failures: string[] = [];
  const results = await sweep(
    groupsOf({ a: [2, 16], missing: [2, 3], long: [16, 99], b: [3] }, log, {
      missing: new DeviceError("no such device"),
    }),
    options({ onFailure: ({ name }, reason) => failures.push(`${name}: ${reason}`) }),
  );
  assert.deepEqual(
    results.map(({ member, report, error }) => [member.name, report?.results.iters ?? error]),
    [
      ...[["a2", 2], ["a16", "too long"], ["missing2", "no such device"]],
      ...[["missing3", "no such device"], ["long16", "too long"], ["long99", "too long"], [
        "b3",
        2,
      ]],
    ],
  );
  assert.equal(failures.length, 5);
  assert.ok(failures.includes("long99: too long"));
});

Deno.test("sweep() runs in rounds where models do not fit together, each alone if it must", async () => {
  const log: string[] = [];
  const rounds: number[] = [];
  const results = await sweep(
    groupsOf({ a: [2], b: [2], c: [2] }, log),
    options({ room: 1, onRound: (left) => rounds.push(left), ...iterations(log) }),
  );
  assert.deepEqual(results.map(({ report }) => report!.results.iters), [2, 2, 2]);
  assert.deepEqual(rounds, [2, 1]);
  assert.deepEqual(log, [
    ...["load a", "load b", "a2#0", "a2#1", "close a"],
    ...["load b", "load c", "b2#0", "b2#1", "close b"],
    ...["load c", "c2#0", "c2#1", "close c"],
  ]);
});

Deno.test("sweep() keeps finished iterations when it is ended, and closes its models", async () => {
  const log: string[] = [];
  const controller = new AbortController();
  const { onProgress } = iterations(log);
  const results = await sweep(
    groupsOf({ a: [2], b: [2], c: [2] }, log),
    options({
      iters: 3,
      signal: controller.signal,
      onProgress: (progress) => {
        onProgress!(progress);
        if (log.filter((entry) => entry.includes("#")).length === 5) controller.abort();
      },
    }),
  );
  const iters = results.map(({ report, error }) => error ?? report?.results.iters ?? 0) as number[];
  assert.equal(iters.reduce((a, b) => a + b), 4, "the fifth was not finished");
  assert.ok(iters.every((count) => count === 1 || count === 2), String(iters));
  assert.deepEqual(log.filter((entry) => entry.startsWith("close")).length, 3);

  const early = await sweep(groupsOf({ a: [2] }, []), options({ signal: AbortSignal.abort() }));
  assert.deepEqual(early.map(({ report, error }) => [report, error]), [[undefined, undefined]]);
});

Deno.test("shuffled() gives every order equally often", () => {
  const counts = new Map<string, number>();
  for (let turn = 0; turn < 6000; turn++) {
    const order = shuffled(["a", "b", "c"], 5, turn).join("");
    counts.set(order, (counts.get(order) ?? 0) + 1);
  }
  assert.equal(counts.size, 6);
  for (const count of counts.values()) assert.ok(count > 850 && count < 1150, `${count} of 6000`);
});

Deno.test("RemainingTime adds up its own means, those of its kind, and predictions", async () => {
  let now = 0;
  const time = new RemainingTime(["a", "b"], ["a"], 2, () => now);
  const take = (ms: number) => () => Promise.resolve(void (now += ms));
  assert.deepEqual([time.share, time.leftMs], [0, null]);
  await time.step("load", "a", take(100));
  await time.step("warmup", "a", take(50));
  assert.equal(time.leftMs, null, "nothing predicts an iteration");
  time.predict("a", { stage: "warmup", tokens: 1, total: 1, tokensPerSec: 10 }, 5);
  assert.equal(time.leftMs, 50 + 4 * 500, "b as a");
  await time.step("warmup", "b", take(50));
  await time.step("iteration", "a", take(300));
  assert.equal(time.leftMs, 300 + 2 * 300, "a measured time beats a prediction");
  await time.step("iteration", "b", take(900));
  assert.equal(time.leftMs, 300 + 900);
  assert.equal(time.share, 5 / 9);
  time.drop("b");
  assert.equal(time.leftMs, 300);
});
