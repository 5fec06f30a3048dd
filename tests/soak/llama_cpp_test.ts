/**
 * llama.cpp as an oracle: values and products of every block type, and logits of the GGUF models.
 * `tests/real/get_llama_cpp.sh` builds it; WGSLM_LLAMA_CPP is its folder.
 */
import assert from "node:assert/strict";
import { ggmlBlocks, ggmlWeight, LlamaCppModel } from "../../bench/compare/llama_oracle.ts";
import { openCheckpoint } from "../../engine/checkpoint/checkpoint.ts";
import { bytesOfNumbers, decode } from "../../engine/checkpoint/dtypes.ts";
import { loadModel } from "../../engine/load.ts";
import { FORMATS, narrow, type WeightDtype } from "../../kernels/formats/mod.ts";
import { type Activations, openBackend } from "../../kernels/mod.ts";
import { GGUF_FILES, type GgufGolden, isPlain } from "../engine/ggufs.ts";
import { put, runOnce, upload } from "../kernels/twins.ts";
import { blockedDtypes, randomBlocks } from "../kernels/twins_blocks.ts";
import { PATIENCE_MS } from "../patience.ts";
import { assertClose, fixture, randomNumbers, readJson, TOLERANCE } from "../testing.ts";

const FOLDER = Deno.env.get("WGSLM_LLAMA_CPP") ?? "";
if (FOLDER === "") {
  console.warn(
    "SKIPPED: llama.cpp, since WGSLM_LLAMA_CPP is not set; run tests/real/get_llama_cpp.sh",
  );
}
const deadline = () => AbortSignal.timeout(PATIENCE_MS);
const ignore = FOLDER === "";

/** Types that ggml does not decode; it has Q8_1 in 36 bytes, gguf-py in 40. */
const UNDECODED = /^(I\d+|F32|F64|Q8_1|Q8_K)$/;

Deno.test({
  name: "read() decodes every type of GGUF as ggml does, bit for bit",
  ignore,
  fn: async () => {
    using file = await openCheckpoint(fixture("gguf/types.gguf"));
    const tensors = file.tensors().filter(({ dtype }) => !UNDECODED.test(dtype));
    assert.ok(tensors.length >= 25, `${tensors.length} types`);
    for (const { name, dtype, shape } of tensors) {
      const values = await file.read(name);
      const stored = new Uint8Array(bytesOfNumbers(dtype, values.length));
      await file.readBytes(name, 0, stored);
      const K = shape.at(-1)!;
      const x = new Float32Array(K);
      const ggml = await ggmlWeight(FOLDER, dtype, [values.length / K, K], stored, x, deadline());
      const differs = values.findIndex((value, i) => !Object.is(value, ggml.values[i]));
      assert.equal(differs, -1, `${dtype} at ${differs}`);
    }
  },
});

/** Inputs whose rounded values share a scale in llama.cpp. */
const roundedTogether = (dtype: WeightDtype) => FORMATS[dtype].block;

/** Bounds of a row's product with x as llama.cpp rounds it. */
interface Bounds {
  /** Distance from the product with x itself. */
  readonly exact: number;
  /** Distance from a product with the same codes of x. */
  readonly codes: number;
}

/**
 * Derives the bounds of y = Σ w·x for x rounded to 8 bits in blocks of B.
 *
 * Method: x̂ = d·round(x / d), d = max |x| / 127. Its errors e are independent, of mean 0, and at
 * most d/2, so by Hoeffding P(|Σ w·e| > t) ≤ 2·exp(−2t² / Σ (w·d)²), which is 4·10⁻²² at
 * t = 5·√Σ (w·d)². llama.cpp keeps d, and the block's sum for offsets, in F16: 2⁻¹¹ each, of
 * terms as large as |w·x| or as an offset's; four times that is allowed. One code may differ at a
 * tie.
 */
function boundsOf(w: Float32Array, x: Float32Array, B: number): Bounds {
  let [squares, magnitude, flip] = [0, 0, 0];
  for (let at = 0; at < x.length; at += B) {
    const d = x.subarray(at, at + B).reduce((max, v) => Math.max(max, Math.abs(v)), 0) / 127;
    for (let i = at; i < at + B; i++) {
      squares += (w[i] * d) ** 2;
      magnitude += Math.abs(w[i] * x[i]);
      flip = Math.max(flip, Math.abs(w[i] * d));
    }
  }
  const scales = magnitude / 2 ** 9;
  return { exact: 5 * Math.sqrt(squares) + scales, codes: flip + scales };
}

/** Product of a weight and one row on WebAssembly. */
async function multiply(
  dtype: WeightDtype,
  shape: readonly [number, number],
  stored: Uint8Array,
  x: Float32Array,
  activations: Activations,
): Promise<Float32Array> {
  const [N, K] = shape;
  await using backend = await openBackend("wasm", { threads: 1, activations });
  const weight = await upload(backend, { data: stored, dtype, shape }, "NK");
  const y = backend.tensor([1, N], "F32", "activations");
  const input = put(backend, x, [1, K]);
  await runOnce(backend, 1, (k) => k.matmul(y, input, weight));
  return await backend.read(y) as Float32Array;
}

for (const dtype of blockedDtypes("wasm")) {
  Deno.test({
    name: `products of ${dtype} equal ggml's within the rounding of its activations`,
    ignore,
    fn: async () => {
      const shape = [64, 512] as const;
      const [N, K] = shape;
      const stored = randomBlocks(dtype, N * K, 1);
      const x = randomNumbers(K, 2);
      const ggml = await ggmlWeight(FOLDER, dtype, shape, stored, x, deadline());
      const B = roundedTogether(dtype);
      const exact = await multiply(dtype, shape, stored, x, "exact");
      const int8 = await multiply(dtype, shape, stored, x, "int8");
      for (const [n, theirs] of ggml.product.entries()) {
        const bounds = boundsOf(ggml.values.subarray(n * K, n * K + K), x, B);
        const within = (ours: number, atol: number) =>
          assertClose([ours], [theirs], { atol, rtol: 0 }, `${dtype}, output ${n}`);
        within(exact[n], bounds.exact);
        // Blocks of 256 have other codes of x than ours of 32.
        within(int8[n], B === 32 ? bounds.codes : 2 * bounds.exact);
      }
    },
  });
}

for (const dtype of blockedDtypes("wasm").filter((dtype) => FORMATS[dtype].encode)) {
  Deno.test({
    name: `${dtype} is quantised as well as by ggml, in blocks of 32 to the same bytes`,
    ignore,
    fn: async () => {
      const shape = [64, 512] as const;
      const values = randomNumbers(shape[0] * shape[1], 3).map((u) => u ** 3);
      const ours = narrow(values, dtype) as Uint8Array;
      const ggml = await ggmlBlocks(FOLDER, dtype, shape, values, deadline());
      if (FORMATS[dtype].block === 32) return assert.deepEqual(ours, ggml);
      // The released library may fuse multiply-adds: another of two nearly equal scales may win.
      const [error, theirs] = [ours, ggml].map((blocks) => distance(decode(blocks, dtype), values));
      assert.ok(error < 1.002 * theirs, `${error}, ggml ${theirs}`);
    },
  });
}

const GOLDENS = readJson<Record<string, GgufGolden>>("gguf/golden.json");

/** Families with GELU, which llama.cpp reads from a table in F16. */
const HAS_GELU = /^(gpt|gemma|phi\.|starcoder2)/;

/** Largest difference of logits of a model of floats; measured 6e-6, 1.7e-3 and 4e-2. */
function floatTolerance(file: string, { stored }: GgufGolden) {
  if (stored !== "F32" && !HAS_GELU.test(file)) return TOLERANCE.llamaCpp16;
  return HAS_GELU.test(file) ? TOLERANCE.llamaCppGelu : TOLERANCE.logits;
}

/**
 * Largest ratio of llama.cpp's distance from exact logits to that of our activations of 8 bits, as
 * root mean squares. Blocks of 32 round alike (measured 0.96 to 1.08); over 256 inputs the largest
 * |x|, and with it the step, is up to twice as large (measured 1.4 to 1.8). Both engines' rounded
 * logits are as far from each other: a rounding turns a small difference δ into one of √δ.
 */
const ratioLimit = (stored: string) => /_K|XS/.test(stored) ? 2.2 : 1.3;

async function logitsOf(
  path: string,
  ids: readonly number[],
  activations: Activations,
): Promise<Float32Array> {
  await using model = await loadModel(path, { device: "wasm", threads: 1, activations });
  return await model.logits(ids);
}

/** Root mean square of a − b. */
function distance(a: Float32Array, b: Float32Array): number {
  return Math.sqrt(a.reduce((sum, value, i) => sum + (value - b[i]) ** 2, 0) / a.length);
}

for (const file of GGUF_FILES) {
  Deno.test({
    name: `logits() agree with llama.cpp's on ${file}`,
    ignore,
    fn: async () => {
      const facts = GOLDENS[file];
      const path = fixture(`gguf/${file}`);
      using golden = await openCheckpoint(fixture(`gguf/${facts.golden}`));
      const ids = [...await golden.read("ids")];
      await using llama = await LlamaCppModel.open(FOLDER, path, {
        context: 256,
        signal: deadline(),
      });
      const theirs = await llama.logits(ids);
      const exact = await logitsOf(path, ids, "exact");
      if (isPlain(facts)) return assertClose(exact, theirs, floatTolerance(file, facts));
      const ratio = distance(theirs, exact) /
        distance(await logitsOf(path, ids, "int8"), exact);
      assert.ok(ratio < ratioLimit(facts.stored), `${file}: ${ratio}`);
    },
  });
}
