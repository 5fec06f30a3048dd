/** The correctness check of a benchmark passes right passes, and fails each kind of wrong one. */
import assert from "node:assert/strict";
import { loadModel } from "../../../engine/load.ts";
import { checkModel, judge } from "../../../engine/measure/check.ts";
import { instrumentsOf, type Model } from "../../../engine/model.ts";
import type { Plans, Runner } from "../../../engine/runner.ts";
import type { Segment, Step } from "../../../kernels/backend.ts";
import type { KvDtype } from "../../../kernels/formats/kv.ts";
import { fixture } from "../../testing.ts";

const wasm = () => loadModel(fixture("labcore/learned"), { device: "wasm", threads: 1 });

/** Changes a model's runner. */
async function tamper(model: Model, change: (runner: Runner) => void): Promise<void> {
  await instrumentsOf(model).run([0], (runner) => Promise.resolve(change(runner)));
}

/** Has a pass run another step than it is asked for. */
function bend(runner: Runner, pass: keyof Plans, step: (asked: Segment) => Segment): void {
  const plan = runner.plans[pass];
  const run = plan.run.bind(plan);
  plan.run = (asked: Step | Segment) => run(step(asked as Segment));
}

Deno.test("checkModel() passes a right backend, and compares every logit", async () => {
  await using model = await wasm();
  const check = await checkModel(model);
  assert.deepEqual(
    [check.against, check.passed, check.reason, check.same_ids],
    ["js", true, null, true],
  );
  assert.ok(check.tokens >= 1 && check.tokens <= 8, `${check.tokens}`);
  assert.ok(check.max_abs_diff! > 0, "two arithmetics differ in the last bits");
  assert.ok(check.max_abs_diff! <= check.tolerance!);
  assert.equal(model.memory.classes.weights.current, model.weightsBytes, "nothing stays allocated");
});

const FAULTS: [what: string, change: (runner: Runner) => void, reason: RegExp][] = [
  [
    "a norm's weight is wrong",
    ({ backend, weights }) => {
      const { weight } = weights.lnF!;
      backend.write(weight, new Float32Array(weight.shape[0]).fill(1.01));
    },
    /^logits differ by up to \S+, the tolerance is 0\.001/,
  ],
  [
    "attention misses the newest key",
    (runner) => bend(runner, "draw", (step) => ({ ...step, length: step.length - 1 })),
    /^logits differ/,
  ],
  [
    "a prefill writes to the wrong slots",
    (runner) => bend(runner, "prefill", (step) => ({ ...step, slot: step.slot + 1 })),
    /^logits differ/,
  ],
  [
    "sampling draws another id",
    (runner) => {
      const draw = runner.draw.bind(runner);
      runner.draw = async (...args) => (await draw(...args)).map((id) => (id + 1) % 8);
    },
    /^an id was drawn whose logit is not the largest$/,
  ],
  [
    "a weight is not a number",
    ({ backend, weights }) => {
      const { weight } = weights.lnF!;
      backend.write(weight, new Float32Array(weight.shape[0]).fill(NaN));
    },
    /^logits are not finite/,
  ],
];

/** Gemma has heads of 32 numbers, as a cache in Q8_0 needs. */
const gemma = (kvDtype: KvDtype) =>
  loadModel(fixture("tiny/gemma"), { device: "wasm", threads: 1, kvDtype });

const CACHE_FAULTS: typeof FAULTS = [
  ...FAULTS.slice(1, 3),
  [
    "a value of the prompt is lost",
    (runner) => {
      const prefill = runner.prefill.bind(runner);
      runner.prefill = async (...args) => {
        const done = await prefill(...args);
        const [{ v }] = runner.buffers.decode.cache;
        runner.backend.write(v, new Uint32Array(v.shape.at(-1)!), 0);
        return done;
      };
    },
    /^logits differ/,
  ],
];

Deno.test("checkModel() allows the rounding of a cache in fewer bits", async () => {
  for (const kvDtype of ["F16", "Q8_0"] as const) {
    await using model = await gemma(kvDtype);
    assert.equal(model.kvDtype, kvDtype);
    const { passed, tolerance } = await checkModel(model);
    assert.ok(passed && tolerance! < 0.05, `${kvDtype}: ${passed}, ${tolerance}`);
  }
});

for (const [what, change, reason] of CACHE_FAULTS) {
  Deno.test(`checkModel() fails with a cache in Q8_0 where ${what}`, async () => {
    await using model = await gemma("Q8_0");
    await tamper(model, change);
    const check = await checkModel(model);
    assert.equal(check.passed, false);
    assert.match(check.reason!, reason);
  });
}

for (const [what, change, reason] of FAULTS) {
  Deno.test(`checkModel() fails where ${what}`, async () => {
    await using model = await wasm();
    await tamper(model, change);
    const check = await checkModel(model);
    assert.equal(check.passed, false);
    assert.match(check.reason!, reason);
    JSON.stringify(check, (_, value) => {
      assert.ok(typeof value !== "number" || Number.isFinite(value));
      return value;
    });
  });
}

Deno.test("checkModel() gives the reason where it does not run", async () => {
  await using plain = await loadModel(fixture("labcore/learned"), { device: "js" });
  const { against, passed, reason } = await checkModel(plain);
  assert.deepEqual([against, passed], [null, null]);
  assert.match(reason!, /^js is what the other backends are checked against$/);

  await using model = await wasm();
  Object.defineProperty(model, "parameters", { value: 1e9 });
  const large = await checkModel(model);
  assert.deepEqual([large.against, large.passed, large.tokens], [null, null, 0]);
  assert.match(large.reason!, /^the model is too large: .* on js takes about 8\.0 s$/);
});

Deno.test("checkModel() checks a model in its shortest context", async () => {
  const config = {
    family: "gpt2",
    vocab_size: 11,
    block_size: 16,
    n_layer: 1,
    n_head: 2,
    n_embd: 8,
  };
  for (const contextLength of [1, 2, 3]) {
    await using model = await loadModel({ config }, { device: "wasm", threads: 1, contextLength });
    const { passed, tokens } = await checkModel(model);
    assert.deepEqual([passed, tokens], [true, 1], `context ${contextLength}`);
  }
});

Deno.test("checkModel() stops after its deadline, and leaves the model usable", async () => {
  await using model = await wasm();
  const { passed, reason } = await checkModel(model, { deadlineMs: 0 });
  assert.deepEqual([passed, reason], [null, "js took longer than 0 s"]);
  assert.equal((await checkModel(model)).passed, true);
});

Deno.test("checkModel() allows the rounding of quantised weights", async () => {
  for (const activations of ["exact", "int8"] as const) {
    await using model = await loadModel(fixture("labcore/learned"), {
      ...{ device: "wasm", threads: 1, dtype: "Q8_0", activations },
    });
    assert.equal((await checkModel(model)).passed, true, activations);
  }
});

Deno.test("checkModel() allows the rounding of a model that is quantised in part", async () => {
  // Rows of 40 and 48 take F16; those of attention's output have 32 numbers.
  await using model = await loadModel(fixture("tiny/gemma.bf16"), {
    ...{ device: "wasm", threads: 1, dtype: "Q8_0", activations: "int8" },
  });
  assert.deepEqual([model.activations, (await checkModel(model)).passed], ["int8", true]);
});

Deno.test("checkModel() throws the reason of an abort", async () => {
  await using model = await wasm();
  const reason = new Error("mine");
  await assert.rejects(
    checkModel(model, { signal: AbortSignal.abort(reason) }),
    (error) => error === reason,
  );
});

Deno.test("judge() lets ids differ whose logits are within the tolerance", () => {
  const step = (id: number, ...logits: number[]) => ({ id, logits: Float32Array.from(logits) });
  const near = judge([step(0, 1, 0.9999)], [step(1, 0.9999, 1)]);
  assert.deepEqual([near.passed, near.same_ids], [true, false]);
  const far = judge([step(0, 1, 0.9)], [step(1, 1, 0.9)]);
  assert.deepEqual([far.passed, far.same_ids, far.max_abs_diff], [false, false, 0]);
  const large = judge([step(0, 100, 0)], [step(0, 100.009, 0)]);
  assert.equal(large.passed, true, "1e-4 of a large logit");
});
