import { attentionJs } from "../kernels/ops/attention/mod.ts";
import { randomNumbers } from "../tests/testing.ts";
import { againstReading, type Share, sharesAfter, stored } from "./measuring.ts";

/** H, D and keys of GPT-2 and the demo, early and late in their contexts. */
const SHAPES: readonly [H: number, D: number, length: number][] = [
  [12, 64, 128],
  [12, 64, 1024],
  [8, 32, 128],
  [8, 32, 512],
];

const cases = SHAPES.map(([H, D, length]) => {
  const [k, v] = [stored(H * length * D, "F32"), stored(H * length * D, "F32")];
  const cache = { k: k.words, v: v.words };
  const [q, y] = [randomNumbers(H * D, 5), new Float32Array(H * D)];
  const shape = { H, G: H, D, S: length };
  const [scores, sums] = [new Float64Array(length), new Float64Array(D)];
  return {
    name: `attention of 1 row, ${H} heads of ${D}, ${length} keys`,
    run: () => attentionJs(y, q, cache, {}, shape, { rows: 1, length }, scores, sums),
    arrays: [k.words, v.words],
  };
});

for (const { name, run } of cases) Deno.bench(`${name} js`, run);

sharesAfter("attention", async () => {
  const shares: Share[] = [];
  for (const { name, run, arrays } of cases) {
    const { kernelMs, limitMs } = await againstReading(run, arrays);
    shares.push({ what: name, ms: kernelMs, limitMs, limit: "fastest sum over keys and values" });
  }
  return shares;
});
