import assert from "node:assert/strict";
import { record } from "../../kernels/calls.ts";
import { DeviceError, openBackend } from "../../kernels/mod.ts";
import { bytesOf, type Dtype } from "../../kernels/tensor.ts";
import { openWasmBackend } from "../../kernels/wasm/backend.ts";
import { defineRun } from "../../kernels/wasm/program.ts";
import { FORMATS, narrow, storedBytes, widen } from "../../kernels/formats/mod.ts";
import { matmulJs } from "../../kernels/ops/matmul/mod.ts";
import { keyOf, WasmLowering } from "../../kernels/wasm/lowering.ts";
import { assertClose, randomNumbers, TOLERANCE } from "../testing.ts";
import { checkMatmulCase, put, stepOf, upload } from "./twins.ts";
import { blockedDtypes, blockTwinTests, randomBlocks, roundPerBlock } from "./twins_blocks.ts";
import { wasmTest, wasmTwinTests } from "./wasm_twins.ts";

// tests/soak/wasm_twins_test.ts runs them on two threads, which take longer to start than to run.
wasmTwinTests({});

for (const dtype of ["F16", "Q8_0", "Q4_K", "Q6_K"] as const) {
  wasmTest(
    `matmul() leaves the other columns unchanged when it writes some of ${dtype}`,
    async (backend) => {
      for (const [T, N, column, width] of [[1, 33, 0, 40], [3, 64, 5, 69], [9, 48, 16, 80]]) {
        await checkMatmulCase(backend, { T, N, K: 256, dtype, bias: true, column, width });
      }
    },
  );
}

wasmTest("weight() computes blocks exactly when a scale is infinite", async (backend) => {
  const blocks = new Uint8Array(2 * 34).fill(1);
  blocks.set([0x00, 0x7c], 34); // an infinite F16
  const weight = await upload(backend, { data: blocks, dtype: "Q8_0", shape: [2, 32] }, "NK");
  assert.equal(weight.dtype, "F32");
  const y = backend.tensor([1, 2], "F32", "activations");
  const x = put(backend, new Float32Array(32).fill(1), [1, 32]);
  using plan = await backend.record((k) => k.matmul(y, x, weight));
  plan.run(stepOf(1));
  const [finite, infinite] = await backend.read(y);
  assert.ok(finite > 0 && Number.isFinite(finite));
  assert.equal(infinite, Infinity);
});

wasmTest("matmul() lets a NaN or an infinity of x through blocks", async (backend) => {
  const blocks = narrow(randomNumbers(64, 1), "Q4_0") as Uint8Array;
  const weight = await upload(backend, { data: blocks, dtype: "Q4_0", shape: [1, 64] }, "NK");
  const y = backend.tensor([1, 1], "F32", "activations");
  for (const wrong of [NaN, Infinity, -Infinity]) {
    const x = put(backend, randomNumbers(64, 2).with(40, wrong), [1, 64]);
    using plan = await backend.record((k) => k.matmul(y, x, weight));
    plan.run(stepOf(1));
    assert.ok(!Number.isFinite((await backend.read(y))[0]), `${wrong}`);
  }
});

wasmTest(
  "run() replays a plan with newly written numbers after the memory has grown",
  async (backend) => {
    const C = 66;
    const x = put(backend, randomNumbers(C, 1), [1, C]);
    const y = backend.tensor([1, C], "F32", "activations");
    const weight = put(backend, new Float32Array(C).fill(1), [C]);
    using plan = await backend.record((k) => k.norm(y, x, { kind: "rms", weight, eps: 1e-5 }));
    backend.tensor([1 << 22], "F32", "kvCache"); // grows memory by 16 MiB, which detaches all views
    backend.write(x, new Float32Array(C).fill(-5));
    plan.run(stepOf(1));
    const expected = new Float32Array(C).fill(-1);
    assertClose(await backend.read(y) as Float32Array, expected, TOLERANCE.kernel);
  },
);

wasmTest("weight() rejects a weight beyond 4 GiB, allocating nothing", async (backend) => {
  const before = backend.memory.current;
  const made = backend.weight([2 ** 20, 2 ** 12], "F32", () => {}, { stored: "NK" });
  await assert.rejects(made, RangeError);
  assert.equal(backend.memory.current, before);
});

Deno.test("reserve() opens a memory of 64-bit addresses if a run needs one (wasm)", async () => {
  const GIB = 2 ** 30;
  await using backend = await openWasmBackend({ threads: 2 });
  await backend.reserve!("a model", 4 * GIB, 0);
  await backend.expectFree!("a model", 16 * GIB);
  assert.equal(backend.note, undefined); // a check prepares nothing
  for (const over of [backend.expectFree!, backend.reserve!]) {
    await assert.rejects(
      over.call(backend, "a model", 16 * GIB + 1, 0),
      /"a model" on wasm: expected at most 16\.0 GiB \(the limit of a WebAssembly memory\), got 16/,
    );
  }
  await backend.reserve!("a model", 6 * GIB, 0);
  await backend.reserve!("a model", 16 * GIB, 0);
  assert.equal(backend.note, "64-bit addresses: the run needs 6.0 GiB");
  await checkMatmulCase(backend, { T: 9, N: 40, K: 64, dtype: "F16", bias: true });
  const [x, y] = [1, 2].map(() => backend.tensor([1, 8], "F32", "activations"));
  const weight = put(backend, randomNumbers(8, 1), [8]);
  using _plan = await backend.record((k) => k.norm(y, x, { kind: "rms", weight, eps: 1e-5 }));
  assert.match(backend.shaders!().at(-1)!.text, /memory i64/);
});

Deno.test("expectFree() names the reason when addresses stay at 32 bits (wasm)", async () => {
  const refused = (what: string) =>
    new RegExp(`expected at most 4\\.0 GiB \\(${what}.*\\), got 5\\.0 GiB; use a 16-bit dtype`);
  const GIB = 2 ** 30;
  await using used = await openWasmBackend({ threads: 1 });
  used.tensor([4], "F32", "activations");
  await assert.rejects(used.expectFree!("a model", 5 * GIB), refused("32-bit addresses, which"));
  await using fast = await openWasmBackend({ threads: 1, simd: "256, unchecked" });
  await assert.rejects(fast.expectFree!("a model", 5 * GIB), refused("without bounds checks"));
  await assert.rejects(
    openWasmBackend({ threads: 1, simd: "256, unchecked", address: "i64" }),
    /Cannot open "wasm" with 64-bit addresses: expected bounds checks/,
  );
  await using old = await openWasmBackend({ threads: 1 });
  const { Memory } = WebAssembly;
  WebAssembly.Memory = class extends Memory {
    constructor(type: WebAssembly.MemoryDescriptor) {
      // An engine without 64-bit addresses does not know BigInt sizes.
      super({ ...type, initial: Math.trunc(type.initial), maximum: Math.trunc(type.maximum!) });
    }
  };
  try {
    await assert.rejects(old.expectFree!("a model", 5 * GIB), refused("this engine has no"));
  } finally {
    WebAssembly.Memory = Memory;
  }
});

for (const dtype of blockedDtypes("wasm")) {
  Deno.test(`matmul() rounds x to 8 bits per 32 inputs under int8, the same in every form (${dtype})`, async () => {
    const [N, K, T] = [37, Math.max(64, FORMATS[dtype].block), 5];
    const data = randomBlocks(dtype, N * K, 3);
    const xs = randomNumbers(T * K, 1);
    const rounded = roundPerBlock(xs);
    const results: Float32Array[] = [];
    for (const relaxed of [false, true]) {
      await using backend = await openWasmBackend({ relaxed, threads: 1, activations: "int8" });
      const weight = await upload(backend, { data, dtype, shape: [N, K] }, "NK");
      const [x, y] = [put(backend, xs, [T, K]), backend.tensor([T, N], "F32", "activations")];
      using all = await backend.record((k) => k.matmul(y, x, weight));
      all.run(stepOf(T));
      const whole = await backend.read(y) as Float32Array;
      results.push(whole);
      // One form for prefill and decode.
      const [one, last] = [
        backend.tensor([1, N], "F32", "activations"),
        put(backend, xs.slice(4 * K), [1, K]),
      ];
      using decode = await backend.record((k) => k.matmul(one, last, weight));
      decode.run(stepOf(1));
      assert.deepEqual(await backend.read(one), whole.slice(4 * N));
    }
    const expected = new Float32Array(T * N);
    matmulJs(expected, rounded, { data, dtype, shape: [N, K] }, {}, T);
    for (const result of results) assertClose(result, expected, TOLERANCE.sum, dtype);
  });
}

/** Numbers of several magnitudes, with blocks whose largest magnitude has both signs. */
function spreadNumbers(N: number, K: number): Float32Array {
  const numbers = randomNumbers(N * K, 1);
  for (const [row, factor] of [0, 1e-6, 1e-12, 300, 1e4].entries()) {
    for (let i = 0; i < K; i++) numbers[row * K + i] *= factor;
  }
  numbers.set([0.5, -2, 2], 5 * K);
  numbers.set([0.5, 2, -2], 6 * K);
  numbers.set([-2, 2], 7 * K + 7);
  numbers.fill(0.25, 8 * K, 9 * K);
  return numbers;
}

for (const dtype of ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"] as const) {
  wasmTest(`weight() quantises floats to the bits of encode(${dtype})`, async (backend) => {
    const [N, K] = FORMATS[dtype].block === 32 ? [97, 96] : [37, 512];
    const ids = put(backend, Int32Array.from({ length: N }, (_, i) => i), [N], "I32");
    const y = backend.tensor([N, K], "F32", "activations");
    for (const from of ["F32", "BF16", "F16"] as const) {
      const exact = new Float32Array(N * K);
      widen(exact, narrow(spreadNumbers(N, K), from), from, 0, N * K);
      const columns = exact.map((_, i) => exact[i % N * K + Math.floor(i / N)]); // [K, N]
      const results: Float32Array[] = [];
      const sources = [
        { given: from, data: narrow(exact, from), stored: "NK" },
        { given: from, data: narrow(columns, from), stored: "KN" },
        { given: dtype, data: narrow(exact, dtype), stored: "NK" },
      ] as const;
      for (const { given, data, stored } of sources) {
        assert.ok(given === dtype || backend.encodes?.(dtype, given));
        const rowBytes = storedBytes(given, stored === "NK" ? K : N);
        const table = await backend.weight([N, K], dtype, (row, count, into) => {
          into.set(bytesOf(data).subarray(row * rowBytes, (row + count) * rowBytes));
        }, { stored, from: given });
        using plan = await backend.record((k) => k.embed(y, table, ids));
        plan.run(stepOf(N));
        results.push(await backend.read(y) as Float32Array);
      }
      for (const result of results.slice(0, 2)) assert.deepEqual(result, results[2], from);
    }
  });
}

for (const relaxed of [false, true]) {
  for (const dtype of blockedDtypes("wasm")) {
    blockTwinTests(dtype, (name, run) => {
      Deno.test(`${name} (wasm, ${relaxed ? "" : "no "}relaxed SIMD)`, async () => {
        await using backend = await openWasmBackend({ relaxed, threads: 1 });
        await run(backend);
      });
    });
  }
  const how = relaxed ? "fused multiply-adds" : "separate multiplications and additions";
  Deno.test(`matmul() agrees with matmulJs() when it uses ${how} (wasm)`, async () => {
    await using backend = await openWasmBackend({ relaxed, threads: 1 });
    for (const [N, K] of [[1, 1], [3, 3], [16, 66], [65, 65], [396, 528]]) {
      for (const T of [1, 3, 129]) {
        for (const dtype of ["F32", "F16", "BF16"] as const) {
          await checkMatmulCase(backend, { T, N, K, dtype });
        }
      }
    }
  });
}

wasmTest(
  "matmul() agrees with matmulJs() when the row ends with any part of an item",
  async (backend) => {
    for (let N = 1; N <= 7 * 16; N += N % 16 === 0 ? 1 : 5) {
      for (const dtype of ["F32", "F16", "BF16"] as const) {
        for (const K of [35, 48]) {
          await checkMatmulCase(backend, { T: 1, N, K, dtype, bias: true, gate: true });
        }
      }
    }
  },
);

Deno.test("without SIMD or a permission, wasm is a refusal and cpu is js with a note", async () => {
  const { validate, Module } = WebAssembly;
  const lacks: [string, () => void][] = [
    ["WebAssembly with 128-bit SIMD", () => WebAssembly.validate = () => false],
    ["permission to compile WebAssembly (Content-Security-Policy: wasm-unsafe-eval)", () => {
      Object.assign(WebAssembly, {
        Module: function () {
          throw new WebAssembly.CompileError("forbidden");
        },
      });
    }],
  ];
  for (const [lack, deny] of lacks) {
    try {
      deny();
      await assert.rejects(openWasmBackend(), (error: Error) => {
        assert.ok(error instanceof DeviceError);
        assert.equal(error.message, `Cannot open "wasm": expected ${lack}; use --device js`);
        return true;
      });
      await using backend = await openBackend("cpu");
      assert.deepEqual([backend.name, backend.note], ["js", `runs as JavaScript: no ${lack}`]);
    } finally {
      Object.assign(WebAssembly, { validate, Module });
    }
  }
  await using plain = await openBackend("js");
  assert.equal(plain.note, undefined);
});

wasmTest(
  "weight() takes 16 bits per number, and two pieces of scratch while it packs",
  async (backend) => {
    const [N, K] = [4096, 512];
    const { weights, staging } = backend.memory.classes;
    await backend.weight([N, K], "BF16", () => {
      assert.equal(staging.current, 2 ** 20); // two pieces: one is read while the other is packed
    }, { stored: "NK" });
    assert.equal(weights.current, N * K * 2);
    assert.equal(staging.current, 0);
  },
);

Deno.test("weight() reads one weight after the other into the same scratch", async () => {
  await using backend = await openWasmBackend({ threads: 2 });
  const places = new Set<number>();
  for (const N of [64, 64, 16]) {
    await backend.weight([N, 64], "F32", (_row, _count, into) => void places.add(into.byteOffset), {
      stored: "NK",
    });
  }
  assert.equal(places.size, 1);
});

Deno.test("weight() stores F32 and computes exactly when an F16 is not finite", async () => {
  for (const threads of [1, 2]) {
    await using backend = await openWasmBackend({ threads });
    for (const [N, K] of [[3, 3], [40, 32]] as const) {
      const numbers = Float16Array.from({ length: N * K }, (_, i) => i * 37 % 17 - 8);
      numbers[K + 1] = Infinity;
      const data = new Uint16Array(numbers.buffer);
      const xs = Float32Array.from({ length: K }, (_, k) => k % 5 + 1);
      const expected = Float32Array.from(
        { length: N },
        (_, n) => xs.reduce((sum, x, k) => sum + x * numbers[n * K + k], 0),
      );
      for (const stored of ["NK", "KN"] as const) {
        const weight = await upload(backend, { data, dtype: "F16", shape: [N, K] }, stored);
        assert.equal(weight.dtype, "F32");
        const x = put(backend, xs, [1, K]);
        const y = backend.tensor([1, N], "F32", "activations");
        using plan = await backend.record((k) => k.matmul(y, x, weight));
        plan.run(stepOf(1));
        assert.deepEqual(await backend.read(y), expected);
      }
    }
  }
});

wasmTest(
  "weight() packs correctly when the memory grows while it waits for rows",
  async (backend) => {
    const [N, K] = [600, 530]; // two pieces
    const weight = await backend.weight([N, K], "F32", async (row, count, into) => {
      await Promise.resolve();
      backend.tensor([1 << 20], "F32", "activations");
      const numbers = new Float32Array(into.buffer, into.byteOffset, count * K);
      for (let i = 0; i < count; i++) numbers.fill(row + i, i * K, (i + 1) * K);
    }, { stored: "NK" });
    const x = put(backend, new Float32Array(K).fill(1), [1, K]);
    const y = backend.tensor([1, N], "F32", "activations");
    using plan = await backend.record((k) => k.matmul(y, x, weight));
    plan.run(stepOf(1));
    assert.deepEqual(await backend.read(y), Float32Array.from({ length: N }, (_, n) => n * K));
  },
);

wasmTest("tensor() is zeroed when it reuses the memory of a plan's scratch", async (backend) => {
  const V = 64;
  const sampling = {
    settings: put(backend, new Float32Array([1, 3, 0.9, 1]), [4]),
    counter: backend.tensor([3], "U32", "activations"),
    seen: backend.tensor([V], "U32", "activations"),
    drawn: backend.tensor([1], "I32", "activations"),
  };
  const logits = put(backend, randomNumbers(V, 1), [1, V]);
  const ids = backend.tensor([1], "I32", "activations");
  const before = backend.memory.current;
  const plan = await backend.record((k) => k.sample(ids, logits, sampling));
  const scratch = backend.memory.current - before;
  assert.ok(scratch >= 4 * V, `${scratch} bytes`);
  plan.run(stepOf(1));
  plan[Symbol.dispose]();
  assert.equal(backend.memory.current, before);
  const t = backend.tensor([scratch / 4], "F32", "activations");
  assert.deepEqual(await backend.read(t), new Float32Array(scratch / 4));

  const late = await backend.record((k) => k.sample(ids, logits, sampling));
  await backend[Symbol.asyncDispose]();
  late[Symbol.dispose](); // after its backend: must not free twice
});

wasmTest("run() keeps the order of calls when they share kernels", async (backend) => {
  const [T, C] = [3, 66];
  const eps = 1e-5;
  const xs = randomNumbers(T * C, 1).map((v) => v + 2);
  const [x, y] = [put(backend, xs, [T, C]), put(backend, xs, [T, C])];
  const weight = put(backend, randomNumbers(C, 2), [C]);
  using together = await backend.record((k) => {
    k.norm(x, x, { kind: "layer", weight, eps });
    k.norm(x, x, { kind: "rms", weight, eps });
    k.norm(x, x, { kind: "layer", weight, eps });
  });
  using layer = await backend.record((k) => k.norm(y, y, { kind: "layer", weight, eps }));
  using rms = await backend.record((k) => k.norm(y, y, { kind: "rms", weight, eps }));
  together.run(stepOf(T));
  for (const plan of [layer, rms, layer]) plan.run(stepOf(T));
  assert.deepEqual(await backend.read(x), await backend.read(y));
});

wasmTest("write() and read() reject a range beyond the tensor", async (backend) => {
  const first = put(backend, new Float32Array(16).fill(1), [16]);
  const second = put(backend, new Float32Array(16).fill(2), [16]); // the next block
  assert.throws(() => backend.write(first, new Float32Array(4), 13), RangeError);
  assert.throws(() => backend.write(first, new Float32Array(1), -1), RangeError);
  await assert.rejects(backend.read(first, 10, 7), RangeError);
  assert.deepEqual(await backend.read(second), new Float32Array(16).fill(2));
});

Deno.test("toText() prints a module of all kernels, with a name for every variable", () => {
  const block = { address: 1024, bytes: 0, kind: "activations" } as const;
  const tensor = (shape: number[], dtype: Dtype = "F32") => ({ shape, dtype, block });
  const options = {
    relaxed: false,
    activations: "exact" as const,
    threads: 2,
    memory: { shared: true, pages: 1 },
  };
  const target = new WasmLowering({ ...options, allocate: () => block });
  const [T, H, G, D, V] = [8, 4, 2, 66, 100];
  const C = H * D;
  const [x, y, q] = [tensor([T, C]), tensor([T, C]), tensor([T, C])];
  const qkv = tensor([T, C + 2 * G * D]);
  const cache = { k: tensor([G, 9, D]), v: tensor([G, 9, D]) };
  const norm = { kind: "layer", weight: tensor([D]), eps: 1e-5 } as const;
  const calls = record((k) => {
    for (const dtype of ["F32", "F16", "BF16"] as const) {
      const weight = { shape: [V, C] as const, dtype, block };
      k.embed(x, weight, tensor([T], "I32"), { scale: 2 });
      k.addPosition(x, weight);
      for (const activation of ["relu", "gelu", "geluTanh", "silu"] as const) {
        k.matmul(tensor([T, V]), x, weight, { activation, softCap: 3, residual: true });
      }
    }
    k.norm(y, x, { ...norm, weight: tensor([C]) });
    for (const interleaved of [false, true]) {
      k.writeKv(q, cache, qkv, { table: tensor([9, D]), interleaved, qNorm: norm, kNorm: norm });
    }
    for (const rows of [1, T]) {
      k.attention(tensor([rows, C]), tensor([rows, C]), cache, { window: 3 });
    }
    k.sample(tensor([1], "I32"), tensor([1, V]), {
      settings: tensor([4]),
      counter: tensor([3], "U32"),
      seen: tensor([V], "U32"),
      drawn: tensor([2], "I32"),
    });
  });
  defineRun(target.module, target.lower(calls).flat(), { threads: 2, callerSleeps: true });
  assert.ok(WebAssembly.validate(target.module.toBytes()));
  const text = target.module.toText();
  assert.ok(text.startsWith(`(module\n  (import "env" "memory" (memory 1 65536 shared))\n`));
  assert.doesNotMatch(text, /undefined|NaN/);
  assert.match(text, /local\.get \$row\b/);
  assert.doesNotMatch(text, /local\.[gs]et (?!\$[a-zA-Z])/, "variable without a name");
});

Deno.test("keyOf() is equal if and only if the constants are equal", () => {
  const constants = [0, -0, 1, NaN, Infinity, -Infinity, null, "0", "NaN", '"0', true, [1], ["1"]];
  const nested = [{ eps: 0 }, { eps: NaN }, { eps: Infinity }, { scale: 0 }, { eps: { scale: 0 } }];
  const keys = [...constants, ...nested].map(keyOf);
  assert.equal(new Set(keys).size, keys.length, keys.join(" "));
  assert.equal(keyOf({ eps: 1e-5, bias: undefined }), keyOf({ eps: 1e-5 }));
});

wasmTest(
  "matmul() uses separate kernels for a scale of 0 and of -0",
  async (backend) => {
    const x = put(backend, new Float32Array([1]), [1, 1]);
    const one = { data: new Float32Array([1]), dtype: "F32", shape: [1, 1] } as const;
    const weight = await upload(backend, one, "NK");
    const [plus, minus] = [0, 1].map(() => backend.tensor([1, 1], "F32", "activations"));
    using plan = await backend.record((k) => {
      k.matmul(plus, x, weight, { scale: 0 });
      k.matmul(minus, x, weight, { scale: -0 });
    });
    plan.run(stepOf(1));
    assert.deepEqual([...await backend.read(plus), ...await backend.read(minus)], [0, -0]);
  },
);

wasmTest(
  "embed() returns every F16 below 64 exactly; a table with others is stored as F32",
  async (backend) => {
    const codes = Array.from({ length: 1 << 16 }, (_, code) => code)
      .filter((code) => (code & 0x7fff) < 0x5400); // 64
    const C = 48;
    const V = codes.length / C;
    const data = Uint16Array.from(codes);
    for (const stored of ["NK", "KN"] as const) {
      const table = await upload(backend, { data, dtype: "F16", shape: [V, C] }, stored);
      assert.equal(table.dtype, "F16");
      const y = backend.tensor([V, C], "F32", "activations");
      const ids = put(backend, Int32Array.from({ length: V }, (_, id) => id), [V], "I32");
      using plan = await backend.record((k) => k.embed(y, table, ids));
      plan.run(stepOf(V));
      assert.deepEqual(await backend.read(y), Float32Array.from(new Float16Array(data.buffer)));
    }
    const large = Uint16Array.from([0x5400, 0xd400, 1, 0x7bff]);
    const table = await upload(backend, { data: large, dtype: "F16", shape: [2, 2] }, "NK");
    assert.equal(table.dtype, "F32");
    const y = backend.tensor([1, 2], "F32", "activations");
    const ids = put(backend, new Int32Array([1]), [1], "I32");
    using plan = await backend.record((k) => k.embed(y, table, ids));
    plan.run(stepOf(1));
    assert.deepEqual(await backend.read(y), new Float32Array([2 ** -24, 65504]));
  },
);
