import assert from "node:assert/strict";
import type { Int } from "../../kernels/asm/assembler.ts";
import type { Simd } from "../../kernels/asm/join.ts";
import { MAX_OFFSET, ModuleBuilder } from "../../kernels/asm/assembler.ts";
import { moduleText } from "../../kernels/asm/text.ts";
import type { Activations, Backend, Recorder } from "../../kernels/backend.ts";
import { DeviceError } from "../../kernels/errors.ts";
import { FORMATS, isBlocked, narrow, type WeightDtype } from "../../kernels/formats/mod.ts";
import { bytesOf, type Tensor } from "../../kernels/tensor.ts";
import { openWasmBackend } from "../../kernels/wasm/backend.ts";
import { Limits } from "../../kernels/wasm/limits.ts";
import { findSimd } from "../../kernels/wasm/simd.ts";
import type { AttentionOptions } from "../../kernels/ops/attention/mod.ts";
import type { MatmulOptions } from "../../kernels/ops/matmul/mod.ts";
import { CHAT_TOKENIZER } from "../chat_model.ts";
import { loadModel } from "../../engine/load.ts";
import { loadTokenizer } from "../../engine/tokenizer/load.ts";
import { fixture, randomNumbers } from "../testing.ts";
import { put, stepOf, upload } from "./twins.ts";
import { randomBlocks } from "./twins_blocks.ts";

/** Widths, numbers of threads, types of addresses; joined or not, a form computes the same. */
const FORMS: readonly (readonly [Simd, threads: number, address?: Int])[] = [
  ["128", 1],
  ["128", 2, "i64"],
  ["256", 1],
  ["256", 3],
  ["256", 2, "i64"],
  ["256, unchecked", 2],
  ["256, unchecked", 4],
];

/** Calls `compute` with a backend of each form; expects equal bits. */
async function expectEqualBits(
  compute: (backend: Backend) => Promise<Float32Array>,
  activations: Activations = "exact",
): Promise<void> {
  let expected: Uint32Array | undefined;
  for (const [simd, threads, address] of FORMS) {
    await using backend = await openWasmBackend({ simd, threads, address, activations });
    const bits = new Uint32Array((await compute(backend)).buffer);
    expected ??= bits;
    assert.deepEqual(bits, expected, `${simd}, ${threads} threads, ${address}`);
  }
}

type Options = Omit<MatmulOptions<unknown>, "bias" | "gate"> & { bias?: boolean; gate?: boolean };

/** Outputs, inputs (blocks of `block / 32`) and epilogue of a product. */
const PRODUCTS: readonly (readonly [N: number, K: number, options?: Options])[] = [
  [16, 16],
  [1, 1],
  [33, 67, { activation: "gelu", bias: true, gate: true, scale: -2, softCap: 3 }],
  [40, 64, { residual: true, bias: true }],
  [65, 96],
];

/** Products of 13 rows and fewer by weights of each dtype. */
function productsOf(
  dtypes: readonly WeightDtype[],
): (backend: Backend) => Promise<Float32Array> {
  const T = 13;
  return async (backend) => {
    const products: ((k: Recorder) => void)[] = [];
    const results: Tensor[] = [];
    for (const dtype of dtypes) {
      for (const [N, columns, { bias, gate, ...options } = {}] of PRODUCTS) {
        const { block } = FORMATS[dtype];
        const K = block * Math.ceil(columns / (isBlocked(dtype) ? 64 : 1));
        const data = isBlocked(dtype)
          ? randomBlocks(dtype, N * K, 3)
          : bytesOf(narrow(randomNumbers(N * K, 3), dtype));
        const weight = await upload(backend, { data, dtype, shape: [N, K] }, "NK");
        const x = put(backend, randomNumbers(T * K, 1), [T, K]);
        const y = put(backend, randomNumbers(T * N, 2), [T, N]);
        const bound = {
          ...options,
          bias: bias ? put(backend, randomNumbers(N, 4), [N]) : undefined,
          gate: gate ? put(backend, randomNumbers(T * N, 5), [T, N]) : undefined,
        };
        products.push((k) => k.matmul(y, x, weight, bound));
        results.push(y);
      }
    }
    using plan = await backend.record((k) => products.forEach((product) => product(k)));
    const numbers: number[] = [];
    for (const rows of [13, 9, 5, 4]) {
      plan.run(stepOf(rows));
      for (const y of results) numbers.push(...await backend.read(y));
    }
    return Float32Array.from(numbers);
  };
}

Deno.test("matmul() gives equal bits at every width and on 1 to 4 threads (wasm)", async () => {
  await expectEqualBits(productsOf(["F32", "F16", "BF16", "Q8_0", "Q4_K"]));
});

Deno.test("matmul() with x in 8 bits gives equal bits at every width and on 1 to 4 threads (wasm)", async () => {
  // Words; bytes of 32 inputs without offset, with one, with minima; bytes of 16 inputs.
  const dtypes = ["Q8_0", "Q4_0", "Q5_0", "Q5_1", "Q4_K", "Q6_K", "Q2_K", "IQ4_NL"] as const;
  await expectEqualBits(productsOf(dtypes), "int8");
});

Deno.test("no module has a constant offset of 64 KiB and more (wasm)", async () => {
  const texts: string[] = [];
  const { toBytes } = ModuleBuilder.prototype;
  ModuleBuilder.prototype.toBytes = function () {
    const bytes = toBytes.call(this);
    texts.push(moduleText(bytes, this.names));
    return bytes;
  };
  try {
    for (const activations of ["exact", "int8"] as const) {
      await using backend = await openWasmBackend({
        simd: "256, unchecked",
        threads: 1,
        activations,
      });
      // Parts of a weight, streams of a row and outputs of a row that are further apart.
      for (
        const [dtype, N, K] of [["F16", 640, 512], ["F32", 16, 4096], ["Q8_0", 20000, 32]] as const
      ) {
        const weight = await backend.weight([N, K], dtype, () => {}, { stored: "NK" });
        for (const T of [1, 3, 8]) {
          const [x, y] = [K, N].map((C) => backend.tensor([T, C], "F32", "activations"));
          (await backend.record((k) => k.matmul(y, x, weight)))[Symbol.dispose]();
        }
      }
    }
    await using limits = await Limits.open(1);
    await limits.reading(2 ** 20);
  } finally {
    ModuleBuilder.prototype.toBytes = toBytes;
  }
  const offsets = texts.flatMap((text) =>
    [...text.matchAll(/ offset=(\d+)/g)].map(([, offset]) => +offset)
  );
  const most = offsets.reduce((most, offset) => Math.max(most, offset), 0);
  assert.ok(most > 1024 && most < MAX_OFFSET, `${most}`);
});

Deno.test("attention() gives equal bits at every width and on 1 to 4 threads (wasm)", async () => {
  const [T, H, G, S] = [13, 4, 2, 150];
  const options: AttentionOptions[] = [{}, { window: 20, softCap: 3 }];
  await expectEqualBits(async (backend) => {
    const passes: ((k: Recorder) => void)[] = [];
    const results: Tensor[] = [];
    for (const D of [64, 66, 44]) {
      const [q, y] = [1, 2].map((seed) => put(backend, randomNumbers(T * H * D, seed), [T, H * D]));
      const [k, v] = [3, 4].map((seed) => put(backend, randomNumbers(G * S * D, seed), [G, S, D]));
      for (const option of options) passes.push((r) => r.attention(y, q, { k, v }, option));
      results.push(y);
    }
    const numbers: number[] = [];
    for (const pass of passes) {
      using plan = await backend.record(pass);
      for (const [rows, length] of [[13, 13], [13, 150], [10, 71], [5, 64]]) {
        plan.run({ rows, position: length - rows, slot: length - rows, length });
        for (const y of results) numbers.push(...await backend.read(y));
      }
    }
    return Float32Array.from(numbers);
  });
});

Deno.test("findSimd() is 128 without V8's flags, and refuses missing bounds checks", async () => {
  assert.deepEqual(await findSimd([], true), { simd: "128" });
  const on = ["--experimental-wasm-revectorize", "--wasm_bounds_checks"];
  for (
    const off of [
      "--no-experimental-wasm-revectorize",
      "--noexperimental_wasm_revectorize",
      "--experimental-wasm-revectorize=false",
    ]
  ) {
    assert.deepEqual(await findSimd([...on, off], true), { simd: "128" }, off);
    for (const flag of ["--no-wasm-bounds-checks", "--nowasm_bounds_checks"]) {
      await assert.rejects(findSimd([...on, off, flag], true), DeviceError, flag);
    }
  }
});

Deno.test("a model and tokenizers load no WebAssembly but the engine's kernels (wasm)", async () => {
  const { compile, instantiate, Module } = WebAssembly;
  const { toBytes } = ModuleBuilder.prototype;
  const [ours, modules, others] = [new Set<unknown>(), new Set<unknown>(), [] as unknown[]];
  const note = (known: ReadonlySet<unknown>, of: unknown) => known.has(of) || others.push(of);
  ModuleBuilder.prototype.toBytes = function () {
    const bytes = toBytes.call(this);
    ours.add(bytes);
    return bytes;
  };
  Object.assign(WebAssembly, {
    compile: async (bytes: Uint8Array<ArrayBuffer>) => {
      note(ours, bytes);
      const module = await compile(bytes);
      modules.add(module);
      return module;
    },
    instantiate: (module: WebAssembly.Module, imports: WebAssembly.Imports) => {
      note(modules, module);
      return instantiate(module, imports);
    },
    Module: class {
      constructor(bytes: Uint8Array<ArrayBuffer>) {
        note(ours, bytes);
        return new Module(bytes);
      }
    },
  });
  try {
    const tokenizers = [
      await loadTokenizer({ type: "bpe" }),
      await loadTokenizer({ ...CHAT_TOKENIZER }),
    ];
    for (const tokenizer of tokenizers) assert.ok(tokenizer.encode("Hi").length > 0);
    await using model = await loadModel(fixture("tiny/gpt2"), { device: "wasm", threads: 1 });
    await model.logits([0, 1, 2]);
  } finally {
    ModuleBuilder.prototype.toBytes = toBytes;
    Object.assign(WebAssembly, { compile, instantiate, Module });
  }
  assert.ok(modules.size > 0);
  assert.deepEqual(others, []);
});
