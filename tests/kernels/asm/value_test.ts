import assert from "node:assert/strict";
import {
  call,
  type FunctionBuilder,
  type Int,
  type Local,
  ModuleBuilder,
  type Value,
  type ValueType,
  vectors,
  words,
} from "../../../kernels/asm/assembler.ts";

/** Lines of the body that `build` emits, without the declarations of variables. */
function linesOf<N extends string, T extends ValueType>(
  params: Readonly<Record<N, T>>,
  build: (f: FunctionBuilder, params: Readonly<Record<N, Local<T>>>) => void,
): string[] {
  const m = new ModuleBuilder();
  m.define(params, "void", (f, locals) => build(f, locals as Readonly<Record<N, Local<T>>>));
  assert.ok(WebAssembly.validate(m.toBytes()));
  return m.toText().split("\n").map((line) => line.trim()).slice(3, -3);
}

/** The operation that a method of two operands emits. */
function operation<T extends ValueType>(
  type: T,
  op: (a: Local<T>, b: Local<T>) => Value<ValueType>,
) {
  const lines = linesOf(
    { a: type, b: type },
    (f, { a, b }) => f.store(f.int(0), op(a as Local<T>, b as Local<T>)),
  );
  assert.deepEqual(lines.slice(0, 3), ["i32.const 0", "local.get $a", "local.get $b"]);
  return lines[3];
}

Deno.test("a method of a value emits the operation of its type", () => {
  for (const [method, name] of [["plus", "add"], ["minus", "sub"], ["times", "mul"]] as const) {
    assert.equal(operation("i32", (a, b) => a[method](b)), `i32.${name}`);
    assert.equal(operation("i64", (a, b) => a[method](b)), `i64.${name}`);
    assert.equal(operation("f32", (a, b) => a[method](b)), `f32.${name}`);
    assert.equal(operation("f64", (a, b) => a[method](b)), `f64.${name}`);
    assert.equal(operation("v128", (a, b) => a[method](b)), `f32x4.${name}`);
  }
  assert.equal(operation("i32", (a, b) => a.div(b)), "i32.div_u");
  assert.equal(operation("i64", (a, b) => a.div(b)), "i64.div_u");
  assert.equal(operation("f32", (a, b) => a.div(b)), "f32.div");
  assert.equal(operation("f64", (a, b) => a.div(b)), "f64.div");
  assert.equal(operation("v128", (a, b) => a.div(b)), "f32x4.div");
  for (const method of ["eq", "ne", "lt", "gt"] as const) {
    const unsigned = method === "lt" || method === "gt" ? `${method}_u` : method;
    assert.equal(operation("i32", (a, b) => a[method](b)), `i32.${unsigned}`);
    assert.equal(operation("i64", (a, b) => a[method](b)), `i64.${unsigned}`);
    assert.equal(operation("f32", (a, b) => a[method](b)), `f32.${method}`);
    assert.equal(operation("f64", (a, b) => a[method](b)), `f64.${method}`);
    assert.equal(operation("v128", (a, b) => a[method](b)), `f32x4.${method}`);
  }
  assert.equal(operation("v128", (a, b) => a.pmin(b)), "f32x4.pmin");
  assert.equal(operation("v128", (a, b) => a.pmax(b)), "f32x4.pmax");
});

Deno.test("a method of an i32 is signed if its name ends with S, and unsigned otherwise", () => {
  const known = {
    rem: "rem_u",
    le: "le_u",
    ge: "ge_u",
    gtS: "gt_s",
    geS: "ge_s",
    and: "and",
    or: "or",
    xor: "xor",
    shl: "shl",
    shr: "shr_u",
    shrS: "shr_s",
  } as const;
  for (const [method, name] of Object.entries(known)) {
    const of = (a: Local<Int>, b: Local<Int>): Value<Int> =>
      (a as Record<keyof typeof known, (b: Local<Int>) => Value<Int>>)[
        method as keyof typeof known
      ](b);
    assert.equal(operation("i32", of), `i32.${name}`);
    assert.equal(operation("i64", of), `i64.${name}`);
  }
});

Deno.test("a constant operand has the type of the value", () => {
  assert.deepEqual(linesOf(words("i"), (_, { i }) => i.set(i.times(-3).plus(4))), [
    ...["local.get $i", "i32.const -3", "i32.mul", "i32.const 4", "i32.add", "local.set $i"],
  ]);
  assert.deepEqual(linesOf({ x: "f64" }, (_, { x }) => x.set(x.plus(0.1))), [
    ...["local.get $x", "f64.const 0.1", "f64.add", "local.set $x"],
  ]);
  assert.deepEqual(linesOf(vectors("v"), (_, { v }) => v.set(v.times(0.5))), [
    ...["local.get $v", "f32.const 0.5", "f32x4.splat", "f32x4.mul", "local.set $v"],
  ]);
});

Deno.test("atMost(), atLeast() and clampS() limit a variable to a range", () => {
  const m = new ModuleBuilder();
  const params = words("x", "least", "most");
  m.export(
    "clamp",
    m.define(params, "i32", (_, { x, least, most }) => {
      x.atLeast(least);
      x.atMost(most);
      return x;
    }),
  );
  m.export(
    "clampS",
    m.define(params, "i32", (_, { x, least, most }) => {
      x.clampS(least, most);
      return x;
    }),
  );
  const instance = new WebAssembly.Instance(new WebAssembly.Module(m.toBytes()), {
    env: { memory: new WebAssembly.Memory({ initial: 0 }) },
  });
  const { clamp, clampS } = instance.exports as Record<string, (...args: number[]) => number>;
  assert.deepEqual([1, 2, 3, 4, 5].map((x) => clamp(x, 2, 4)), [2, 2, 3, 4, 4]);
  assert.equal(clamp(-1, 2, 4), 4, "an address beyond 2 GiB is the greatest");
  assert.deepEqual([-9, -2, 0, 3].map((x) => clampS(x, -2, 1)), [-2, -2, 0, 1]);
  assert.equal(clampS(0, 5, -5), -5, "most wins");
});

Deno.test("minS() and maxS() take a constant or a variable as limit", () => {
  const select = ["local.get $b", "local.get $a"];
  assert.deepEqual(linesOf(words("a", "b"), (_, { a, b }) => a.set(a.minS(b))), [
    ...[...select, "local.get $a", "local.get $b", "i32.gt_s", "select", "local.set $a"],
  ]);
  assert.deepEqual(linesOf(words("a", "b"), (_, { a, b }) => a.set(a.maxS(b))), [
    ...[...select, "local.get $b", "local.get $a", "i32.gt_s", "select", "local.set $a"],
  ]);
  assert.deepEqual(linesOf(words("a"), (_, { a }) => a.set(a.maxS(7))), [
    ...["i32.const 7", "local.get $a", "i32.const 7", "local.get $a", "i32.gt_s", "select"],
    "local.set $a",
  ]);
});

Deno.test("advance() adds to a pointer in place", () => {
  assert.deepEqual(linesOf(words("at"), (_, { at }) => at.advance(16)), [
    ...["local.get $at", "i32.const 16", "i32.add", "local.set $at"],
  ]);
});

Deno.test("call() passes named arguments in the order of the parameters", () => {
  const m = new ModuleBuilder();
  const minus = m.define(words("a", "b"), "i32", (_, { a, b }) => a.minus(b));
  m.export(
    "swapped",
    m.define(words("a", "b"), "i32", (_, { a, b }) => call(minus, { b: a, a: b })),
  );
  const instance = new WebAssembly.Instance(new WebAssembly.Module(m.toBytes()), {
    env: { memory: new WebAssembly.Memory({ initial: 0 }) },
  });
  assert.equal((instance.exports.swapped as (a: number, b: number) => number)(3, 10), 7);
});
