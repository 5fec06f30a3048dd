/**
 * The kit for a machine with a GPU, rehearsed on a software adapter.
 */
import assert from "node:assert/strict";
import { ignoreWithoutAdapter } from "../kernels/adapter.ts";
import { runDeno } from "../process.ts";

const ignore = await ignoreWithoutAdapter("soak/gpu_kit_test.ts");
const KIT = new URL("../../bench/gpu.ts", import.meta.url).pathname;

/** Seconds that the rehearsal may take. */
const BUDGET = 1200;

const run = (...flags: string[]) =>
  runDeno(["run", "-A", "--no-remote", "--no-npm", KIT, ...flags], { patience: 1000 * BUDGET });

Deno.test({
  name: "bench/gpu.ts runs every stage with tiny shapes, offline and without npm packages",
  ignore,
  async fn() {
    const out = await Deno.makeTempDir();
    try {
      const { code, stderr } = await run("--out", out, "--software", "--budget", `${BUDGET}`);
      assert.equal(code, 0, stderr);
      const report = JSON.parse(Deno.readTextFileSync(`${out}/gpu.json`));
      const { facts, limits, tests, kernels, models } = report;
      for (const part of [facts, limits, tests, kernels, models]) {
        assert.equal(part.error, undefined, stderr);
      }
      assert.ok(facts.dependentUs > 0 && limits.readGBs > 0);
      assert.deepEqual(tests.failed, {});
      assert.deepEqual(tests.skipped, []);
      assert.equal(tests.passed, 5); // a model, and two operations with and without subgroups
      assert.ok(kernels.complete && models.complete);
      const [{ what, error, decodes, prefills, profiles }] = models.results;
      assert.equal(error, undefined);
      assert.equal(what, "tiny BF16");
      for (const { tokensPerSec } of [...decodes, ...prefills]) assert.ok(tokensPerSec > 0);
      for (const { draw, prediction } of decodes) {
        assert.equal(prediction?.tokensPerSec > 0, draw === "sampled");
      }
      assert.deepEqual(profiles.map(({ pass }: { pass: string }) => pass), ["decode", "prefill"]);
      for (const { kernels } of profiles) {
        assert.ok(kernels.length >= 5);
        for (const { ms, calls } of kernels) assert.ok(ms >= 0 && calls > 0);
      }
      const hasF16 = (await navigator.gpu.requestAdapter())?.features.has("shader-f16");
      assert.equal(limits.gigaMultiplyAdds.fmaF16 > 0, hasF16);
      assert.match(Deno.readTextFileSync(`${out}/gpu.md`), /## models\n\n\| model/);
    } finally {
      await Deno.remove(out, { recursive: true });
    }
  },
});

Deno.test({
  name: "bench/gpu.ts refuses a software adapter, an unknown stage and a budget in one sentence",
  ignore,
  async fn() {
    const adapter = await navigator.gpu.requestAdapter();
    const isSoftware = adapter?.info.isFallbackAdapter;
    const refusals: [string[], number, RegExp][] = [
      [
        ["--out", "x", "--only", "facts,nothing"],
        2,
        /^Cannot use "--only nothing": expected facts/,
      ],
      [["--out", "x", "--budget", "soon"], 2, /^Cannot use "--budget soon": expected seconds/],
      [[], 2, /^Cannot start: expected --out DIR/],
    ];
    if (isSoftware) refusals.push([["--out", "x"], 1, /^Cannot measure a GPU: .*--software\n$/]);
    for (const [flags, status, message] of refusals) {
      const { code, stderr } = await run(...flags);
      assert.equal(code, status, stderr);
      assert.match(stderr, message);
    }
  },
});
