/**
 * Stage `tests`: every operation against its plain form, whole models against typed arrays, and two
 * runs against each other.
 *
 * @module
 */
import { readArchitecture } from "../../engine/architecture/mod.ts";
import { Runner } from "../../engine/runner.ts";
import { randomWeights, uploadWeights } from "../../engine/weights/mod.ts";
import type { Backend } from "../../kernels/backend.ts";
import { openJsBackend } from "../../kernels/js/backend.ts";
import { openWebGpuBackend, type WebGpuOptions } from "../../kernels/webgpu/backend.ts";
import { twinTests } from "../../tests/kernels/twins.ts";
import {
  attentionTwinTests,
  checkAttentionCase,
  randomTwinTest,
} from "../../tests/kernels/twins_attention.ts";
import { sampleTwinTests } from "../../tests/kernels/twins_sample.ts";
import { type Shape, SHAPES, TINY } from "./shapes.ts";
import type { Stage } from "./stage.ts";

type Test = readonly [name: string, run: (backend: Backend) => Promise<void>];

/** The tests that the test files register, as a list. */
function twins(tiny: boolean): Test[] {
  const tests: Test[] = [];
  const add = (...test: Test) => void tests.push(test);
  twinTests(add);
  attentionTwinTests(add);
  sampleTwinTests(add);
  randomTwinTest(add, 4);
  const long = { T: 1, H: 8, G: 2, D: 64, S: 40960, length: 40000 };
  add("attention() over 40,000 keys", (backend) => checkAttentionCase(backend, long));
  return tiny ? tests.filter(([name]) => /far apart|40,000/.test(name)) : tests;
}

const DRAWS = 32;
const SLOTS = 128;

async function runnerOf(backend: Backend, shape: Shape): Promise<Runner> {
  const a = readArchitecture(shape.config, "a shape");
  const source = randomWeights(a, 1, shape.dtype);
  const weights = await uploadWeights(backend, a, source, SLOTS + 1, () => {});
  return await Runner.create(backend, a, weights, { id: "", slots: SLOTS, chunk: 32 });
}

/** Logits of the last of some ids, and the ids that follow them greedily. */
async function answerOf(runner: Runner) {
  const { vocabSize: V } = runner.architecture;
  const ids = Array.from({ length: 40 }, (_, i) => i * 7 % V);
  const logits = await runner.lastLogits(ids);
  runner.startSampling({ temperature: 0, topK: 0, topP: 1, repetitionPenalty: 1 }, 0);
  await runner.prefill(ids);
  const greedy: number[] = [];
  while (greedy.length < DRAWS) greedy.push(...await runner.draw(DRAWS - greedy.length));
  return { logits, greedy };
}

/** A model on the GPU, twice, and by typed arrays; two layers, since those are slow. */
async function model(shape: Shape): Promise<void> {
  const layers = shape.config.n_layer ? "n_layer" : "num_hidden_layers";
  const short = { ...shape, config: { ...shape.config, [layers]: 2 } };
  await using gpu = await openWebGpuBackend({ tune: false });
  await using js = openJsBackend();
  const runner = await runnerOf(gpu, short);
  const [one, two] = [await answerOf(runner), await answerOf(runner)];
  const expected = await answerOf(await runnerOf(js, short));
  if (!one.logits.every((v, i) => v === two.logits[i])) throw new Error("two runs differ");
  const most = Math.max(...one.logits.map((v, i) => Math.abs(v - expected.logits[i])));
  if (!(most <= 1e-3)) throw new Error(`logits differ by ${most}`);
  if (`${one.greedy}` !== `${expected.greedy}`) throw new Error("greedy ids differ");
}

/** Names of the tests that failed, and why. */
export const tests: Stage = async ({ tiny, left, save }) => {
  const [failed, skipped]: [Record<string, string>, string[]] = [{}, []];
  let passed = 0;
  const result = () => ({ passed, failed, skipped });
  const attempt = async (name: string, run: () => Promise<void>) => {
    if (left() < 0) return void skipped.push(name);
    try {
      await run();
      passed++;
    } catch (error) {
      failed[name] = String(error).slice(0, 500);
    }
    save(result());
  };
  for (const shape of tiny ? [TINY] : SHAPES.slice(1, 3)) {
    await attempt(`the model ${shape.name}`, () => model(shape));
  }
  for (const subgroups of [true, false]) {
    const options: WebGpuOptions = { tune: false, software: false, subgroups };
    for (const [name, run] of twins(tiny)) {
      await attempt(`${name}${subgroups ? "" : ", without subgroups"}`, async () => {
        await using backend = await openWebGpuBackend(options);
        await run(backend);
      });
    }
  }
  return result();
};
