import { sampleJs } from "../kernels/ops/sample/mod.ts";
import { randomNumbers } from "../tests/testing.ts";
import { againstReading, type Share, sharesAfter } from "./measuring.ts";

/** GPT-2's vocabulary. */
const V = 50257;

/** Temperature, top-k, top-p, repetition penalty. */
const SETTINGS: Readonly<Record<string, readonly number[]>> = {
  "greedy": [0, 0, 1, 1],
  "whole vocabulary": [0.9, 0, 1, 1],
  "top-k 40": [0.9, 40, 1, 1],
  "top-p 0.9": [0.9, 0, 0.9, 1],
  "top-k 40, top-p 0.9, penalty 1.1": [0.9, 40, 0.9, 1.1],
};

const logits = randomNumbers(V, 9).map((x) => 10 * x);
const scratch = { kept: new Float32Array(V), sorted: new Float32Array(V) };

const cases = Object.entries(SETTINGS).map(([name, settings]) => {
  const ids = new Int32Array(1);
  const sampling = {
    settings: Float32Array.from(settings),
    counter: new Uint32Array(3),
    seen: new Uint32Array(V),
    drawn: new Int32Array(1),
  };
  return { name: `sample, ${name}`, run: () => sampleJs(ids, logits, sampling, scratch) };
});

for (const { name, run } of cases) Deno.bench(`${name} js`, run);

sharesAfter("sample", async () => {
  const shares: Share[] = [];
  for (const { name, run } of cases) {
    const { kernelMs, limitMs } = await againstReading(run, [logits]);
    shares.push({ what: name, ms: kernelMs, limitMs, limit: "fastest sum over the logits" });
  }
  return shares;
});
