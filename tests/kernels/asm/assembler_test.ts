import assert from "node:assert/strict";
import {
  call,
  f32,
  f32x4,
  i32,
  ints,
  loadInt,
  lower,
  ModuleBuilder,
  signedLeb,
  unsignedLeb,
  v128,
  words,
} from "../../../kernels/asm/assembler.ts";

/** Exports of a module, compiled and instantiated over `memory`. */
function exportsOf(m: ModuleBuilder, memory = new WebAssembly.Memory({ initial: 1 })) {
  const module = new WebAssembly.Module(m.toBytes());
  const instance = new WebAssembly.Instance(module, {
    env: { memory, half: (x: number) => x / 2 },
  });
  return instance.exports as Record<string, (...args: number[]) => number>;
}

Deno.test("unsignedLeb() adds a byte for every seven bits", () => {
  const known: [number, number[]][] = [
    [0, [0]],
    [127, [0x7f]],
    [128, [0x80, 0x01]],
    [16383, [0xff, 0x7f]],
    [16384, [0x80, 0x80, 0x01]],
    [624485, [0xe5, 0x8e, 0x26]], // the example of the DWARF specification
    [2 ** 32 - 1, [0xff, 0xff, 0xff, 0xff, 0x0f]],
    [2 ** 35, [0x80, 0x80, 0x80, 0x80, 0x80, 0x01]],
  ];
  for (const [value, bytes] of known) assert.deepEqual(unsignedLeb(value), bytes, `${value}`);
});

Deno.test("signedLeb() adds a byte when bit 6 of the last one differs from the sign", () => {
  const known: [number, number[]][] = [
    [0, [0]],
    [63, [0x3f]],
    [64, [0xc0, 0x00]],
    [-1, [0x7f]],
    [-64, [0x40]],
    [-65, [0xbf, 0x7f]],
    [8191, [0xff, 0x3f]],
    [8192, [0x80, 0xc0, 0x00]],
    [-123456, [0xc0, 0xbb, 0x78]], // the example of the DWARF specification
    [2 ** 31 - 1, [0xff, 0xff, 0xff, 0xff, 0x07]],
    [-(2 ** 31), [0x80, 0x80, 0x80, 0x80, 0x78]],
    [2 ** 32 - 1, [0xff, 0xff, 0xff, 0xff, 0x0f]],
    [-(2 ** 40), [0x80, 0x80, 0x80, 0x80, 0x80, 0x60]],
  ];
  for (const [value, bytes] of known) assert.deepEqual(signedLeb(value), bytes, `${value}`);
});

Deno.test("toBytes() encodes a module that adds two numbers as the specification does", () => {
  const m = new ModuleBuilder();
  m.export("add", m.define(words("a", "b"), "i32", (_, { a, b }) => a.plus(b)));
  assert.deepEqual([...m.toBytes()], [
    ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
    ...[0x01, 0x07, 0x01, 0x60, 0x02, 0x7f, 0x7f, 0x01, 0x7f], // type: (i32, i32) → i32
    ...[0x02, 0x0f, 0x01, 0x03, 0x65, 0x6e, 0x76, 0x06], // import: env
    ...[0x6d, 0x65, 0x6d, 0x6f, 0x72, 0x79, 0x02, 0x00, 0x00], // memory, of 0 pages or more
    ...[0x03, 0x02, 0x01, 0x00], // function: of type 0
    ...[0x07, 0x07, 0x01, 0x03, 0x61, 0x64, 0x64, 0x00, 0x00], // export: add
    ...[0x0a, 0x09, 0x01, 0x07, 0x00], // code: one function, without variables
    ...[0x20, 0x00, 0x20, 0x01, 0x6a, 0x0b], // local.get 0, local.get 1, i32.add, end
  ]);
  assert.equal(exportsOf(m).add(40, 2), 42);
});

Deno.test("for() does not enter the body when the range is empty", () => {
  const m = new ModuleBuilder();
  const iterations = m.define(words("from", "to"), "i32", (f, { from, to }) => {
    const { i, count } = f.locals(words("i", "count"));
    f.for(i, from, to, 3, () => count.advance(1));
    return count;
  });
  m.export("iterations", iterations);
  const { iterations: run } = exportsOf(m);
  assert.deepEqual([run(5, 5), run(5, 6), run(5, 8), run(5, 9)], [0, 1, 1, 2]);
  assert.equal(run(2 ** 31 - 1, 2 ** 31 + 1), 1, "addresses may exceed 2 GiB");
});

Deno.test("if() runs the other branch when its condition is zero", () => {
  const m = new ModuleBuilder();
  const sign = m.define({ x: "f32" }, "i32", (f, { x }) => {
    const result = f.local("i32", "result");
    f.if(x.gt(0), () => result.set(1), () => result.set(-1));
    return result;
  });
  m.export("sign", sign);
  const { sign: run } = exportsOf(m);
  assert.deepEqual([run(3), run(-3), run(NaN)], [1, -1, -1]);
});

Deno.test("call() calls imported functions and functions of the module", () => {
  const m = new ModuleBuilder();
  const half = m.import("half", { x: "f64" }, "f64");
  const ofX = { x: "f64" } as const;
  const quarter = m.define(ofX, "f64", (_, { x }) => call(half, { x: call(half, { x }) }));
  m.export("quarter", m.define(ofX, "f64", (_, { x }) => call(quarter, { x })));
  assert.equal(exportsOf(m).quarter(6), 1.5);
});

Deno.test("import() throws when a function was defined before", () => {
  const m = new ModuleBuilder();
  m.define({}, "void", () => {});
  assert.throws(
    () => m.import("late", {}, "void"),
    /Cannot import "late": expected imports before/,
  );
});

Deno.test("store() and load() move vectors when the address is unaligned", () => {
  const m = new ModuleBuilder();
  const double = m.define(words("at"), "void", (f, { at }) => {
    f.store(at, v128.load(at).plus(v128.load(at)));
    f.storeLane(at, f32x4.splat(7), 2, 8);
  });
  m.export("double", double);
  const memory = new WebAssembly.Memory({ initial: 1 });
  const values = new Float32Array([1, 2, 3, 4]);
  new Uint8Array(memory.buffer).set(new Uint8Array(values.buffer), 21);
  exportsOf(m, memory).double(21);
  assert.deepEqual(
    new Float32Array(memory.buffer.slice(21, 37)),
    new Float32Array([2, 4, 7, 8]),
  );
});

Deno.test("an address plus an offset of 64 KiB and more wraps around at 32 bits", () => {
  const m = new ModuleBuilder();
  m.export(
    "move",
    m.define(ints("to", "from"), "void", (f, { to, from }) => {
      f.store(to, i32.load(from, 2 * 65536 + 8), 65536 + 4);
    }),
  );
  const memory = new WebAssembly.Memory({ initial: 1 });
  const words = new Int32Array(memory.buffer);
  words.set([7, 8, 9]);
  exportsOf(m, memory).move(2 ** 32 - 65536, 2 ** 32 - 2 * 65536);
  assert.deepEqual([...words.slice(0, 3)], [7, 9, 9]);
});

Deno.test("local() encodes indices of two bytes when a function has 300 variables", () => {
  const m = new ModuleBuilder();
  const sum = m.define(words("x"), "i32", (f, { x }) => {
    const locals = f.array("i32", "sum", 300);
    for (const [i, local] of locals.entries()) local.set((i > 0 ? locals[i - 1] : x).plus(1));
    return locals[299];
  });
  m.export("sum", sum);
  assert.ok(WebAssembly.validate(m.toBytes()));
  assert.equal(exportsOf(m).sum(2), 302);
});

Deno.test("global() keeps its value from call to call", () => {
  const m = new ModuleBuilder();
  const count = m.global();
  m.export(
    "next",
    m.define({}, "int", (f) => {
      f.do(count.set(count.get.plus(5)));
      return count.get;
    }),
  );
  const { next } = exportsOf(m);
  assert.deepEqual([next(), next()], [5, 10]);
});

Deno.test("toText() prints every kind of section, block and immediate", () => {
  const m = new ModuleBuilder({ shared: true, pages: 3 });
  const half = m.import("half", { x: "f64" }, "f64");
  const func = m.define(words("x"), "i32", (f, { x }) => {
    const sum = f.local("v128", "sum");
    f.for(x, x, -8, 4, () => sum.set(f32x4.relaxedMadd(sum, v128.load(x, 300), 0.5)));
    f.if(x.eqz(), () => f.storeLane(x, sum, 3, 12), () => f.do(m.thread.set(7)));
    return i32.truncF32U(f32.demoteF64(call(half, { x: 2 ** 70 })));
  });
  m.export("func", func);
  assert.equal(
    m.toText(),
    `(module
  (import "env" "memory" (memory 3 65536 shared))
  (import "env" "half" (func $0 (param f64) (result f64)))
  (global (mut i32) (i32.const 0))
  (export "func" (func $1))
  (func $1 (param $x i32) (result i32)
    (local $sum v128)
    local.get $x
    local.set $x
    local.get $x
    i32.const -8
    i32.lt_u
    if
      loop
        local.get $sum
        local.get $x
        v128.load offset=300
        f32.const 0.5
        f32x4.splat
        f32x4.relaxed_madd
        local.set $sum
        local.get $x
        i32.const 4
        i32.add
        local.set $x
        local.get $x
        i32.const -8
        i32.lt_u
        br_if 0
      end
    end
    local.get $x
    i32.eqz
    if
      local.get $x
      local.get $sum
      v128.store32_lane offset=12 3
    else
      i32.const 7
      global.set 0
    end
    f64.const 1.1805916207174113e+21
    call 0
    f32.demote_f64
    i32.trunc_f32_u
  )
)
`,
  );
});

Deno.test("toText() appends the index to a name when a function repeats it", () => {
  const m = new ModuleBuilder();
  m.define(words("i"), "i32", (f, { i }) => {
    const again = f.local("i32", "i");
    const [first, second] = f.array("i32", "row", 2);
    again.set(i);
    second.set(first.plus(again));
    return second;
  });
  const lines = m.toText().split("\n").map((line) => line.trim());
  assert.deepEqual(lines.slice(2, -3), [
    "(func $0 (param $i i32) (result i32)",
    "(local $i_1 i32)",
    "(local $row0 i32)",
    "(local $row1 i32)",
    ...["local.get $i", "local.set $i_1"],
    ...["local.get $row0", "local.get $i_1", "i32.add", "local.set $row1"],
    "local.get $row1",
  ]);
});

Deno.test("int is as wide as an address: a module reads and writes beyond 4 GiB", () => {
  const m = new ModuleBuilder({ address: "i64" });
  const params = { ...ints("at", "value"), ...words("more") } as const;
  m.export(
    "put",
    m.define(params, "void", (f, { at, value, more }) => f.store(at.plus(more), value)),
  );
  m.export("get", m.define(ints("at"), "int", (_, { at }) => loadInt(at)));
  m.export("low", m.define(ints("at"), "i32", (_, { at }) => lower(at).plus(1)));
  m.export(
    "isBeyond",
    m.define(ints("at"), "i32", (f, { at }) => i32.select(i32.const(7), 9, at.gt(f.int(2 ** 32)))),
  );
  const type = { address: "i64", initial: 0x18000n }; // 6 GiB
  const memory = new WebAssembly.Memory(type as unknown as WebAssembly.MemoryDescriptor);
  const { put, get, low, isBeyond } = exportsOf(m, memory) as unknown as Record<
    string,
    (...args: (bigint | number)[]) => bigint | number
  >;
  put(128n, 0x1_2345_6789n, -64); // extended by zeros: 128 + 2³² − 64
  const stored = new Uint32Array(memory.buffer, 2 ** 32 + 64, 2);
  assert.deepEqual([...stored], [0x2345_6789, 0]);
  stored[1] = 3;
  assert.equal(get(2n ** 32n + 64n), 0x3_2345_6789n);
  assert.equal(low(2n ** 32n + 5n), 6);
  assert.deepEqual([isBeyond(5n), isBeyond(2n ** 33n)], [9, 7]);
});
