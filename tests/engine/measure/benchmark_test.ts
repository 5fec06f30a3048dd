import assert from "node:assert/strict";
import {
  benchmark,
  type BenchmarkOptions,
  type BenchmarkProgress,
} from "../../../engine/measure/benchmark.ts";
import { loadModel } from "../../../engine/load.ts";
import { instrumentsOf } from "../../../engine/model.ts";
import { toJson } from "../../../engine/measure/formats.ts";
import { assertClose, fixture, TOLERANCE } from "../../testing.ts";
import { assertRecords } from "./schema.ts";

const SHORT = { genTokens: 6, warmupTokens: 2, iters: 3 } satisfies BenchmarkOptions;

/** LabCore's tiny model, whose window of 32 tokens slides. */
const sliding = () => loadModel(fixture("labcore/learned"), { threads: 1 });

/** A model without a tokenizer that ends at its context of 16 tokens. */
const ending = () =>
  loadModel({
    config: { family: "gpt2", vocab_size: 11, block_size: 16, n_layer: 1, n_head: 2, n_embd: 8 },
  }, { threads: 1 });

/** Asserts equality up to the order of a sum. */
function same(actual: number | null, expected: number, what: string): void {
  assert.ok(actual !== null, what);
  assertClose([actual], [expected], TOLERANCE.kernel, what);
}

/** The type of every leaf by its path; lists are represented by their first item. */
function leaves(value: unknown, path = ""): string[] {
  if (Array.isArray(value)) return value.length ? leaves(value[0], `${path}[]`) : [`${path}[]`];
  if (typeof value !== "object" || value === null) {
    return [`${path}: ${value === null ? "null" : typeof value}`];
  }
  return Object.entries(value).flatMap(([key, item]) =>
    leaves(item, path ? `${path}.${key}` : key)
  );
}

Deno.test("benchmark() fills every key of the report with its type", async () => {
  await using model = await sliding();
  const report = await benchmark(model, { ...SHORT, source: "hf", id: "owner/name" });
  assertRecords(report);
  const { commit, ...rest } = report;
  assert.ok(commit === null || /^[0-9a-f]{40}$/.test(commit));
  // The clock, the load and the flags are hidden on some systems.
  report.results.machine = {
    load_average: [0.5, 0.5, 0.5],
    ...{ cpu_mhz: 1000, other_cpu_share: 0, stolen_cpu_share: 0 },
  };
  report.engine.v8_flags = [];
  assert.deepEqual(leaves(JSON.parse(toJson({ ...rest, commit: null }))).toSorted(), [
    "commit: null",
    "device.name: string",
    "device.type: string",
    "engine.activations: string",
    "engine.backend: string",
    "engine.dtype: string",
    "engine.kv_dtype: string",
    "engine.name: string",
    "engine.simd: string",
    "engine.threads: number",
    "engine.v8_flags[]",
    "engine.version: string",
    "generation.context_length: number",
    "generation.deterministic: boolean",
    "generation.gen_tokens: number",
    "generation.prompt: string",
    "generation.prompt_tokens: number",
    "generation.repetition_penalty: number",
    "generation.seed: null",
    "generation.stream: boolean",
    "generation.temperature: number",
    "generation.top_k: number",
    "generation.top_p: number",
    "generation.use_kv_cache: boolean",
    "generation.warmup_tokens: number",
    "model.block_size: number",
    "model.dtype: string",
    "model.id: string",
    "model.n_embd: number",
    "model.n_head: number",
    "model.n_layer: number",
    "model.params_m: number",
    "model.source: string",
    "model.vocab_size: number",
    "model.weights_mib: number",
    "platform.cores: number",
    "platform.cpu: string",
    "platform.deno: string",
    "platform.os: string",
    "platform.python: null",
    "platform.typescript: string",
    "platform.v8: string",
    "results.buffer_peak_mib: number",
    "results.check.against: string",
    "results.check.max_abs_diff: number",
    "results.check.passed: boolean",
    "results.check.reason: null",
    "results.check.same_ids: boolean",
    "results.check.tokens: number",
    "results.check.tolerance: number",
    "results.decode.ms_per_token.p50: number",
    "results.decode.ms_per_token.p90: number",
    "results.decode.ms_per_token.p99: number",
    "results.decode.tokens: number",
    "results.decode.tokens_per_sec: number",
    "results.engine_warmup.ms: number",
    "results.engine_warmup.rounds: number",
    "results.engine_warmup.steady: boolean",
    "results.first_token_ms: number",
    "results.iters: number",
    "results.limit.decode_share: number",
    "results.limit.gaps: number",
    "results.limit.gflops: number",
    "results.limit.prefill_share: number",
    "results.limit.read_gb_per_s: number",
    "results.limit.reason: null",
    "results.limit.spread: number",
    "results.load_ms: number",
    "results.machine.cpu_mhz: number",
    "results.machine.load_average[]: number",
    "results.machine.other_cpu_share: number",
    "results.machine.stolen_cpu_share: number",
    "results.memory[].activations_mib: number",
    "results.memory[].kv_cache_mib: number",
    "results.memory[].stage: string",
    "results.memory[].staging_mib: number",
    "results.memory[].weights_mib: number",
    "results.per_iter[].seconds: number",
    "results.per_iter[].seed: number",
    "results.per_iter[].started_ms: number",
    "results.per_iter[].token_ms[]: number",
    "results.per_iter[].tokens_per_sec: number",
    "results.prefill.ms: number",
    "results.prefill.passes_ms[]: number",
    "results.prefill.tokens: number",
    "results.prefill.tokens_per_sec: number",
    "results.tokens_per_sec.high: number",
    "results.tokens_per_sec.low: number",
    "results.tokens_per_sec.max: number",
    "results.tokens_per_sec.mean: number",
    "results.tokens_per_sec.min: number",
    "results.tokens_per_sec.stddev: number",
    "results.vram_peak_mib: null",
    "schema_version: number",
    "timestamp: string",
    "torch.cuda: null",
    "torch.version: null",
  ]);
  assert.match(report.timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assert.deepEqual(
    [report.model.source, report.model.id, report.model.block_size],
    ["hf", "owner/name", 32],
  );
  assert.equal(report.model.params_m, model.parameters / 1e6);
  assert.equal(report.model.weights_mib, model.weightsBytes / 2 ** 20);
});

Deno.test("benchmark() reports the defaults of the command line", async () => {
  await using model = await sliding();
  const { generation, results } = await benchmark(model);
  assert.deepEqual(generation, {
    prompt: "ROMEO:",
    prompt_tokens: 6,
    gen_tokens: 256,
    context_length: 32,
    temperature: 0.9,
    top_k: 40,
    top_p: 1,
    repetition_penalty: 1,
    use_kv_cache: true,
    stream: false,
    seed: null,
    deterministic: false,
    warmup_tokens: 64,
  });
  assert.equal(results.iters, 3);
});

Deno.test("benchmark() gives figures that follow from its raw times", async () => {
  await using model = await sliding();
  const { genTokens, iters } = SHORT;
  const { results } = await benchmark(model, SHORT);
  const { per_iter, tokens_per_sec, decode, prefill } = results;
  assert.equal(per_iter.length, iters);
  for (const { seconds, tokens_per_sec, token_ms } of per_iter) {
    assert.equal(token_ms.length, genTokens);
    assert.ok(token_ms.every((ms) => ms >= 0));
    same(tokens_per_sec, genTokens / seconds, "an iteration's rate");
    const inTokens = token_ms.reduce((a, b) => a + b);
    assert.ok(inTokens <= 1000 * seconds, "the ids' times add up to at most the whole");
  }
  const rates = per_iter.map((i) => i.tokens_per_sec);
  const mean = rates.reduce((a, b) => a + b) / iters;
  same(tokens_per_sec.mean, mean, "mean");
  assert.equal(tokens_per_sec.min, Math.min(...rates));
  assert.equal(tokens_per_sec.max, Math.max(...rates));
  const squares = rates.reduce((sum, r) => sum + (r - mean) ** 2, 0);
  same(tokens_per_sec.stddev, Math.sqrt(squares / iters), "stddev, the population's");

  const later = per_iter.flatMap((i) => i.token_ms.slice(1)).toSorted((a, b) => a - b);
  assert.equal(decode.tokens, genTokens - 1);
  const rate = 1000 * later.length / later.reduce((a, b) => a + b);
  same(decode.tokens_per_sec, rate, "decode rate");
  // 15 times: the median is the eighth, p90 is 0.6 of the way from the 13th to the 14th.
  assert.equal(decode.ms_per_token.p50, later[7]);
  same(decode.ms_per_token.p90, later[12] + 0.6 * (later[13] - later[12]), "p90");
  const { p50, p90, p99 } = decode.ms_per_token;
  assert.ok(p50! <= p90! && p90! <= p99! && p99! <= later[14]);

  const firsts = per_iter.map((i) => i.token_ms[0]).toSorted((a, b) => a - b);
  assert.equal(results.first_token_ms, firsts[1]);
  same(prefill.tokens_per_sec, 1000 * prefill.tokens / prefill.ms, "prefill rate");
  assert.equal(results.load_ms, model.loadMs);
});

Deno.test("benchmark() has no decode figures when no token follows the first", async () => {
  await using model = await sliding();
  const { results } = await benchmark(model, { genTokens: 1, warmupTokens: 0, iters: 1 });
  assert.deepEqual(results.decode, {
    tokens: 0,
    tokens_per_sec: null,
    ms_per_token: { p50: null, p90: null, p99: null },
  });
  assert.equal(results.tokens_per_sec.stddev, 0);
});

Deno.test("benchmark() draws iteration i with seed + i, also of a random seed", async () => {
  await using model = await sliding();
  const asked = await benchmark(model, { ...SHORT, seed: 1337 });
  assert.equal(asked.generation.seed, 1337);
  assert.deepEqual(asked.results.per_iter.map((i) => i.seed), [1337, 1338, 1339]);

  const drawn = await benchmark(model, SHORT);
  const [first, ...others] = drawn.results.per_iter.map((i) => i.seed);
  assert.equal(drawn.generation.seed, null);
  assert.deepEqual(others, [first + 1, first + 2]);
});

Deno.test("benchmark() excludes the warm-up and earlier calls from the peak", async () => {
  await using model = await sliding();
  const held = model.memory.current;
  model.memory.add("staging", 2 ** 30);
  model.memory.add("staging", -(2 ** 30));
  const { results } = await benchmark(model, SHORT);
  assert.equal(results.buffer_peak_mib, held / 2 ** 20);
  assert.equal(results.vram_peak_mib, null, "no GPU");
});

Deno.test("benchmark() reports the memory of each class in each stage, staging where it peaks", async () => {
  await using model = await sliding();
  const { classes } = model.memory;
  const onProgress = ({ stage }: BenchmarkProgress) => {
    if (stage === "engine") return;
    const bytes = { warmup: 2 ** 20, prefill: 2 ** 21, iteration: 2 ** 22 }[stage];
    model.memory.add("staging", bytes);
    model.memory.add("staging", -bytes);
  };
  const { memory } = (await benchmark(model, { ...SHORT, warmupTokens: 2, onProgress })).results;
  assert.deepEqual(memory.map(({ stage, staging_mib }) => [stage, Math.floor(staging_mib)]), [
    ["loaded", 0],
    ["warmup", 1],
    ["prefill", 2],
    ["iterations", 4],
  ]);
  for (const { weights_mib, kv_cache_mib, activations_mib } of memory) {
    assert.equal(weights_mib, classes.weights.current / 2 ** 20);
    assert.equal(kv_cache_mib, classes.kvCache.current / 2 ** 20);
    assert.ok(activations_mib > 0);
  }
});

Deno.test("benchmark() crops a prompt to a sliding window when it times the prefill", async () => {
  await using model = await sliding();
  const prompt = Array.from({ length: 40 }, (_, i) => i);
  const { generation, results } = await benchmark(model, { ...SHORT, prompt, useKvCache: false });
  assert.equal(generation.prompt, null);
  assert.equal(generation.prompt_tokens, 40);
  assert.equal(generation.use_kv_cache, false);
  assert.equal(results.prefill.tokens, 32);
});

Deno.test("benchmark() refuses options out of range before anything runs", async () => {
  await using model = await ending();
  const started: BenchmarkProgress[] = [];
  const refuses = (options: BenchmarkOptions, message: RegExp) =>
    assert.rejects(
      benchmark(model, { prompt: [1], ...SHORT, onProgress: (p) => started.push(p), ...options }),
      { name: "RangeError", message },
    );
  await refuses({ iters: 0 }, /iters to be an integer of at least 1, got 0/);
  await refuses({ iters: 1.5 }, /iters/);
  await refuses({ genTokens: 0 }, /genTokens/);
  await refuses({ warmupTokens: -1 }, /warmupTokens/);
  await refuses({ seed: -1 }, /seed/);
  await refuses({ seed: Number.MAX_SAFE_INTEGER }, /seed \+ iters/);
  await refuses({ temperature: -1 }, /temperature/);
  await refuses({ prompt: [] }, /at least 1 token/);
  await refuses({ genTokens: 16 }, /1 tokens and 16 more to fit the context of 16/);
  await refuses({ warmupTokens: 16 }, /1 tokens and 16 more/);
  await refuses({ prompt: undefined }, /128 tokens and 6 more/);
  assert.deepEqual(started, []);
  await assert.rejects(benchmark(model, { ...SHORT, prompt: "text" }), { name: "CheckpointError" });

  const { results } = await benchmark(model, { prompt: [1], genTokens: 15, warmupTokens: 0 });
  assert.equal(results.per_iter[0].token_ms.length, 15, "to the brim");
});

Deno.test("benchmark() draws a prompt for a model without a tokenizer", async () => {
  await using model = await loadModel({
    config: { family: "gpt2", vocab_size: 11, block_size: 160, n_layer: 1, n_head: 2, n_embd: 8 },
  });
  const { generation } = await benchmark(model, SHORT);
  assert.equal(generation.prompt, null);
  assert.equal(generation.prompt_tokens, 128);
});

Deno.test("benchmark() throws the reason of an abort at every stage", async () => {
  await using model = await sliding();
  for (const stage of ["engine", "warmup", "prefill", "iteration"] as const) {
    const controller = new AbortController();
    const onProgress = (p: BenchmarkProgress) => {
      if (p.stage === stage) controller.abort();
    };
    await assert.rejects(
      benchmark(model, { ...SHORT, signal: controller.signal, onProgress }),
      { name: "AbortError" },
      stage,
    );
  }
  const reason = new Error("mine");
  await assert.rejects(
    benchmark(model, { ...SHORT, signal: AbortSignal.abort(reason) }),
    (error) => error === reason,
  );
  assert.equal((await benchmark(model, SHORT)).results.iters, 3);
});

Deno.test("benchmark() reports its stages in order, each from zero to its total", async () => {
  await using model = await sliding();
  const progress: BenchmarkProgress[] = [];
  const { results } = await benchmark(model, { ...SHORT, onProgress: (p) => progress.push(p) });
  const engine = progress.filter((p) => p.stage === "engine");
  const { rounds } = results.engine_warmup;
  assert.deepEqual(engine.map((p) => p.tokens), [...Array(rounds + 1).keys(), rounds]);
  assert.deepEqual(progress.slice(0, engine.length), engine, "before everything else");
  const ends = progress.slice(engine.length).filter((p) => p.tokens === 0 || p.tokens === p.total);
  assert.deepEqual(ends.map((p) => [p.stage, p.iteration, p.tokens]), [
    ["warmup", undefined, 0],
    ["warmup", undefined, 2],
    ["prefill", undefined, 0],
    ["prefill", undefined, 6],
    ["iteration", 0, 0],
    ["iteration", 0, 6],
    ["iteration", 1, 0],
    ["iteration", 1, 6],
    ["iteration", 2, 0],
    ["iteration", 2, 6],
  ]);
  assert.equal(ends[0].tokensPerSec, undefined);
  assert.ok(ends[1].tokensPerSec! > 0);
});

Deno.test("benchmark() draws the ids of its seeds, whatever the engine ran before", async () => {
  await using model = await sliding();
  const options = { temperature: 1, topK: 0, ignoreEos: true, maxNewTokens: 9 };
  const expected: number[] = [];
  for (const seed of [5, 6]) {
    for await (const { id } of model.generate("ROMEO:", { ...options, seed })) expected.push(id!);
  }
  const drawn: number[] = [];
  await instrumentsOf(model).run([1], (runner) => {
    const draw = runner.draw.bind(runner);
    runner.draw = async (...args) => {
      const ids = await draw(...args);
      drawn.push(...ids);
      return ids;
    };
    return Promise.resolve();
  });
  const start = performance.now();
  const { results } = await benchmark(model, {
    ...{ prompt: "ROMEO:", genTokens: 9, warmupTokens: 0, iters: 2, seed: 5 },
    ...{ temperature: 1, topK: 0 },
  });
  assert.ok(drawn.length > expected.length, "the engine's warm-up draws too");
  assert.ok(results.engine_warmup.rounds >= 1);
  assert.ok(results.engine_warmup.ms < performance.now() - start);
  assert.equal(results.check.passed, true);
  const measured = drawn.slice(0, -results.check.tokens); // the check draws last
  assert.deepEqual(measured.slice(-expected.length), expected);
  const after: number[] = [];
  for await (const { id } of model.generate("ROMEO:", { ...options, seed: 5 })) after.push(id!);
  assert.deepEqual(after, expected.slice(0, 9));
});

Deno.test("benchmark() measures a prompt of one token in a context of two", async () => {
  for (const contextLength of [2, 16]) {
    await using model = await loadModel({
      config: { family: "gpt2", vocab_size: 11, block_size: 16, n_layer: 1, n_head: 2, n_embd: 8 },
    }, { contextLength, threads: 1 });
    const options = { prompt: [3], genTokens: 1, warmupTokens: 1, iters: 1 };
    const { results } = await benchmark(model, options);
    assert.equal(results.prefill.tokens, 1);
    assert.ok(results.engine_warmup.rounds >= 1);
  }
});

Deno.test("benchmark() refuses options of the wrong type in one sentence", async () => {
  await using model = await ending();
  const run = benchmark as (...args: unknown[]) => Promise<unknown>;
  const cases: [options: unknown, name: string, message: RegExp][] = [
    [null, "TypeError", /^Cannot benchmark: expected options to be an object, got null$/],
    [{ iters: "3" }, "TypeError", /iters to be an integer of at least 1, got "3"$/],
    [{ seed: 1n }, "TypeError", /seed to be an integer of at least 0, got 1n$/],
    [{ prompt: 5 }, "TypeError", /token ids to be a list of numbers, got 5$/],
    [{ prompt: [1, undefined] }, "RangeError", /id undefined:/],
    [{ prompt: [1], useKvCache: "no" }, "TypeError", /useKvCache to be true or false, got "no"$/],
  ];
  for (const [options, name, message] of cases) {
    await assert.rejects(run(model, options), { name, message });
  }
});
