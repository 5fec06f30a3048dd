import assert from "node:assert/strict";
import type { KernelText } from "../../kernels/backend.ts";
import { functionText, readModule } from "../../kernels/asm/text.ts";
import { call, i32, ints, ModuleBuilder } from "../../kernels/asm/assembler.ts";
import { openJsBackend } from "../../kernels/js/backend.ts";
import { loadModel } from "../../engine/load.ts";
import type { Model } from "../../engine/model.ts";
import { fixture } from "../testing.ts";
import { FakeGpu } from "./fake_gpu.ts";

const SOURCE = fixture("tiny/gpt2");

function textsOf({ backend }: Model): KernelText[] {
  assert.ok(backend.shaders, `${backend.name} generates code`);
  return backend.shaders();
}

Deno.test("shaders() has every shader of a model's plans, as it was compiled (webgpu)", async () => {
  using gpu = new FakeGpu({ software: true, subgroups: true });
  await using model = await loadModel(SOURCE, { device: "webgpu" });
  const kernels = textsOf(model);
  const compiled = [...gpu.shaders].filter(([, op]) => op !== "weight" && op !== "trial");
  assert.deepEqual(
    kernels.map(({ text }) => text).sort(),
    compiled.map(([text]) => text).sort(),
  );
  for (const { op, text, language, bytes, calls, operands } of kernels) {
    // Norms of a product and scratch have bindings of their own.
    const bindings = text.match(/@group\(1\) @binding/g)?.length ?? 0;
    assert.ok(operands.length > 0 && bindings > 0, op);
    for (const operand of operands) {
      assert.match(operand, /^\w+ [A-Z]+\d+ \[[\d, ]+\], (read|write|update)$/);
    }
    assert.equal(gpu.shaders.get(text), op);
    assert.deepEqual([language, bytes], ["wgsl", new TextEncoder().encode(text).length]);
    assert.ok(calls > 0);
  }
});

Deno.test("shaders() has each module of a model's plans and its kernels (wasm)", async () => {
  const modules: number[] = [];
  const compile = WebAssembly.compile;
  WebAssembly.compile = (bytes) => {
    modules.push((bytes as Uint8Array).length);
    return compile.call(WebAssembly, bytes);
  };
  try {
    await using model = await loadModel(SOURCE, { device: "wasm", threads: 1 });
    const kernels = textsOf(model);
    const programs = kernels.filter(({ op }) => op === "program");
    // The first two modules pack weights: rows, and columns.
    assert.deepEqual(programs.map(({ bytes }) => bytes), modules.slice(2));
    for (const { text } of programs) assert.match(text, /\(export "run" \(func \$\d+\)\)/);
    const ops = new Set(kernels.map(({ op }) => op));
    assert.deepEqual(
      [...ops].sort(),
      ["addPosition", "attention", "embed", "matmul", "norm", "program", "sample", "writeKv"],
    );
    // Two layers of two norms, and a final one; three passes, one without a head.
    const norms = kernels.filter(({ op }) => op === "norm");
    assert.deepEqual(norms.map(({ calls }) => calls), [3 * 2 * model.config.nLayer + 2]);
  } finally {
    WebAssembly.compile = compile;
  }
});

Deno.test("shaders() omits a plan when it is disposed, and is missing on js", async () => {
  await using model = await loadModel(SOURCE, { device: "wasm", threads: 1 });
  const before = textsOf(model).length;
  await model.logits([0]); // records one more plan
  assert.ok(textsOf(model).length > before);
  await model[Symbol.asyncDispose]();
  assert.deepEqual(textsOf(model), []);
  await using js = openJsBackend();
  assert.equal("shaders" in js, false);
});

Deno.test("functionText() has a function and what it calls, numbered alike in every module", () => {
  const textIn = (others: number) => {
    const m = new ModuleBuilder();
    for (let i = 0; i < others; i++) m.define({}, "i32", () => i32.const(i));
    const twice = m.define(ints("x"), "int", (_, { x }) => x.plus(x));
    m.define({}, "i32", () => i32.const(7));
    const func = m.define(
      ints("y"),
      "int",
      (_, { y }) => call(twice, { x: call(twice, { x: y }) }),
    );
    return functionText(readModule(m.toBytes(), m.names), func.index);
  };
  const { text, bytes } = textIn(0);
  assert.deepEqual(textIn(12), { text, bytes });
  assert.equal(
    text,
    `  (func $0 (param $x i32) (result i32)
    local.get $x
    local.get $x
    i32.add
  )
  (func $1 (param $y i32) (result i32)
    local.get $y
    call 0
    call 0
  )
`,
  );
});
