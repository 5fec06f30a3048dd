import assert from "node:assert/strict";
import fc from "../../fast_check.ts";
import { openCheckpoint } from "../../../engine/checkpoint/checkpoint.ts";
import { readSafetensorsHeader } from "../../../engine/checkpoint/safetensors.ts";
import { CheckpointError } from "../../../engine/errors.ts";
import { within } from "../../patience.ts";
import { succeeds } from "../../process.ts";
import { frame, safetensorsBytes, writeSafetensors } from "../../safetensors.ts";
import { fixture } from "../../testing.ts";

/** Opens bytes as a file; `reads` receives the length of each read. */
function open(bytes: Uint8Array, reads: number[] = [], size = bytes.length) {
  return readSafetensorsHeader({
    name: "test",
    size,
    read(offset, into) {
      reads.push(into.length);
      into.set(bytes.subarray(offset, offset + into.length));
      return Promise.resolve();
    },
    [Symbol.dispose]() {},
  });
}

async function refuses(bytes: Uint8Array, message: RegExp): Promise<void> {
  await assert.rejects(open(bytes), (error: Error) => {
    assert.ok(error instanceof CheckpointError, `${error}`);
    assert.match(error.message, message);
    return true;
  });
}

const four = new Float32Array([1, 2, 3, 4]);
const entry = (shape: unknown, offsets: unknown, dtype: unknown = "F32") =>
  JSON.stringify({ a: { dtype, shape, data_offsets: offsets } });

Deno.test("readSafetensorsHeader() refuses a file that is cut off anywhere", async () => {
  const whole = safetensorsBytes([["a", { dtype: "F32", shape: [4], data: four }]]);
  assert.equal((await open(whole)).tensors.size, 1);
  for (let n = 0; n < whole.length; n++) {
    await refuses(whole.subarray(0, n), /^Cannot open "test": expected/);
  }
});

Deno.test("readSafetensorsHeader() refuses a header longer than the file", async () => {
  for (const length of [2n ** 60n, 2n ** 64n - 1n, 90_000_000n, 17n]) {
    const reads: number[] = [];
    await assert.rejects(open(frame("{}".padEnd(16), [], length), reads), CheckpointError);
    assert.deepEqual(reads, [8], "only the length is read, and nothing is allocated");
  }
});

Deno.test("readSafetensorsHeader() refuses a header that is no JSON object", async () => {
  for (
    const header of ["", "{", "[]", "null", "3", ' {"a":1}', '{"a":1}', '{"a":{}}', "\ufeff{}"]
  ) {
    await refuses(frame(header), /^Cannot open/);
  }
  await refuses(frame(new Uint8Array([0x7b, 0xff, 0xfe, 0x7d])), /JSON/);
});

Deno.test("readSafetensorsHeader() refuses a duplicate key in any spelling", async () => {
  const tensor = '{"dtype":"F32","shape":[],"data_offsets":[0,4]}';
  await refuses(frame(`{"a":${tensor},"a":${tensor}}`, [four.subarray(1)]), /"a" twice/);
  await refuses(frame(`{"a":${tensor},"\\u0061":${tensor}}`, [four.subarray(1)]), /"a" twice/);
  const inner = '{"a":{"dtype":"F32","dtype":"F16","shape":[4],"data_offsets":[0,16]}}';
  await refuses(frame(inner, [four]), /"dtype" twice/);
});

Deno.test("readSafetensorsHeader() refuses offsets and shapes that misfit the data", async () => {
  const cases: [string, RegExp][] = [
    [entry([4], [0, 12]), /16 bytes, got 12/],
    [entry([4], [16, 0]), /within the file/],
    [entry([4], [8, 24]), /within the file/],
    [entry([3], [4, 16]), /a gap/],
    [entry([3], [0, 12]), /the end of the file/],
    [entry([-4], [0, 16]), /shape/],
    [entry([4.5], [0, 16]), /shape/],
    [entry("4", [0, 16]), /shape/],
    [entry([4], [0, 16, 32]), /data_offsets/],
    [entry([4], [0, 1e300]), /data_offsets/],
    [entry([0], [0, 16]), /0 bytes, got 16/],
    [entry([2 ** 53 - 1, 2 ** 53 - 1], [0, 16]), /bytes, got 16/],
    [entry([2 ** 32, 2 ** 32], [0, 16]), /bytes, got 16/],
    [entry([2 ** 32, 2 ** 32, 0], [0, 16]), /bytes, got 16/],
    [entry([4], [0, 16], "F33"), /dtype/],
    [entry([4], [0, 16], "__proto__"), /dtype/],
    [entry([4], [0, 16], 7), /dtype/],
    ['{"__metadata__":{"a":1}}', /metadata/],
    ['{"__metadata__":[]}', /__metadata__/],
  ];
  for (const [header, message] of cases) await refuses(frame(header, [four]), message);
  const two = (a: string, b: string) =>
    `{"a":{"dtype":"F32","shape":[2],"data_offsets":${a}},"b":{"dtype":"F32","shape":[2],"data_offsets":${b}}}`;
  await refuses(frame(two("[0,8]", "[4,12]"), [four]), /overlap/);
  await refuses(frame(two("[0,8]", "[0,8]"), [four]), /overlap/);
  assert.equal((await open(frame(two("[8,16]", "[0,8]"), [four]))).tensors.size, 2);
});

Deno.test("readSafetensorsHeader() accepts empty tensors, metadata and any name", async () => {
  const empty = new Float32Array(0);
  const { tensors, metadata } = await open(safetensorsBytes([
    ["__proto__", { dtype: "F32", shape: [4], data: four }],
    ["none", { dtype: "F16", shape: [0, 7], data: empty }],
    ["scalar", { dtype: "U8", shape: [], data: new Uint8Array([7]) }],
  ], { format: "pt" }));
  assert.deepEqual([...tensors.keys()], ["__proto__", "none", "scalar"]);
  assert.equal(metadata.format, "pt");
});

Deno.test("readSafetensorsHeader() reads only the header of a large file", async () => {
  const size = 3 * 2 ** 30;
  const header = JSON.stringify({
    a: { dtype: "F32", shape: [2 ** 28, 2], data_offsets: [0, 2 ** 31] },
    b: { dtype: "U8", shape: [2 ** 30], data_offsets: [2 ** 31, size] },
  });
  const reads: number[] = [];
  await open(frame(header), reads, 8 + header.length + size);
  assert.deepEqual(reads, [8, header.length]);
});

Deno.test("openCheckpoint() returns the written bits of random tensors", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/any.safetensors`;
  const tensor = fc.record({
    dtype: fc.constantFrom("F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8"),
    shape: fc.array(fc.nat(5), { maxLength: 3 }),
    seed: fc.nat(255),
  });
  try {
    await fc.assert(
      fc.asyncProperty(fc.dictionary(fc.string(), tensor), async (wanted) => {
        const { "__metadata__": _, ...named } = wanted;
        const bytesOf: Record<string, number> = { F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4, I16: 2 };
        const written = Object.fromEntries(
          Object.entries(named).map(([name, { dtype, shape, seed }]) => {
            const size = shape.reduce((n, e) => n * e, 1) * (bytesOf[dtype] ?? 1);
            return [name, { dtype, shape, data: new Uint8Array(size).map((_, i) => seed * i) }];
          }),
        );
        await writeSafetensors(path, written, { note: "ünïcode" });
        using checkpoint = await openCheckpoint(path);
        assert.deepEqual(
          new Map(checkpoint.tensors().map((t) => [t.name, `${t.dtype} ${t.shape}`])),
          new Map(Object.entries(written).map(([n, t]) => [n, `${t.dtype} ${t.shape}`])),
        );
        for (const [name, { data }] of Object.entries(written)) {
          const bytes = new Uint8Array(data.length);
          await checkpoint.readBytes(name, 0, bytes);
          assert.deepEqual(bytes, data);
        }
      }),
      { numRuns: 60, seed: 1 },
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("Checkpoint.read() converts every dtype to F32", async () => {
  const path = await Deno.makeTempFile({ suffix: ".safetensors" });
  try {
    await writeSafetensors(path, {
      F64: { dtype: "F64", shape: [2], data: new Float64Array([0.5, -3]) },
      I64: { dtype: "I64", shape: [2], data: new BigInt64Array([-5n, 7n]) },
      U64: { dtype: "U64", shape: [1], data: new BigUint64Array([2n ** 40n]) },
      I32: { dtype: "I32", shape: [2], data: new Int32Array([-5, 7]) },
      F32: { dtype: "F32", shape: [4], data: four },
      F16: { dtype: "F16", shape: [2], data: new Uint16Array([0x3c00, 0xc000]) },
      BF16: { dtype: "BF16", shape: [2], data: new Uint16Array([0x3f80, 0xc000]) },
      I16: { dtype: "I16", shape: [1], data: new Int16Array([-9]) },
      U8: { dtype: "U8", shape: [1], data: new Uint8Array([200]) },
      I8: { dtype: "I8", shape: [1], data: new Int8Array([-100]) },
    });
    using checkpoint = await openCheckpoint(path);
    const expected: Record<string, number[]> = {
      F64: [0.5, -3],
      I64: [-5, 7],
      U64: [2 ** 40],
      I32: [-5, 7],
      F32: [1, 2, 3, 4],
      F16: [1, -2],
      BF16: [1, -2],
      I16: [-9],
      U8: [200],
      I8: [-100],
    };
    for (const [name, values] of Object.entries(expected)) {
      assert.deepEqual([...await checkpoint.read(name)], values, name);
    }
    await assert.rejects(checkpoint.read("none"), CheckpointError);
    await assert.rejects(checkpoint.readBytes("U8", 0, new Uint8Array(2)), CheckpointError);
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("openCheckpoint() explains what it cannot open and never hangs", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const pipe = `${folder}/pipe.safetensors`;
    assert.ok(await succeeds("mkfifo", pipe));
    await Deno.writeFile(`${folder}/empty.safetensors`, new Uint8Array());
    await Deno.mkdir(`${folder}/sharded`);
    await Deno.writeTextFile(`${folder}/sharded/model.safetensors.index.json`, "{}");
    for (
      const [source, message] of [
        [pipe, /regular file/],
        [`${folder}/empty.safetensors`, /at least 8 bytes/],
        [`${folder}/none.safetensors`, /no such file/],
        [`${folder}/sharded`, /weight_map/],
        [folder, /model\.safetensors/],
        [fixture("labcore/learned/config.json"), /\.safetensors/],
      ] as const
    ) {
      await assert.rejects(openCheckpoint(source), { name: "CheckpointError", message });
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

const tensor = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}';

Deno.test("readSafetensorsHeader() names the broken rule of a header", async () => {
  const dtypes = "F64 F32 F16 BF16 I64 I32 I16 I8 U64 U32 U16 U8 BOOL F8_E4M3 F8_E5M2";
  const two = (a: number[], b: number[]) =>
    JSON.stringify({
      a: { dtype: "U8", shape: [a[1] - a[0]], data_offsets: a },
      b: { dtype: "U8", shape: [b[1] - b[0]], data_offsets: b },
    });
  const cases: [header: string, expected: (dataStart: number) => string][] = [
    ["[]", () => "a header that is a JSON object"],
    [' {"a":{}}', () => "a header that is a JSON object"],
    ['{"a":null}', () => 'an object for "a"'],
    ['{"__metadata__":{"k":null}}', () => 'text for metadata "k"'],
    ['{"a":{}}', () => `tensor "a" to have a dtype of ${dtypes}, got undefined`],
    [entry([4], [0, 4], "f32"), () => `tensor "a" to have a dtype of ${dtypes}, got "f32"`],
    [
      entry([4], [0, 4], "toString"),
      () => `tensor "a" to have a dtype of ${dtypes}, got "toString"`,
    ],
    [
      entry({ 0: 4, length: 1 }, [0, 4]),
      () => 'tensor "a" to have a shape, got {"0":4,"length":1}',
    ],
    [entry([-2, -2], [0, 4]), () => 'tensor "a" to have a shape, got [-2,-2]'],
    [entry([4], ["0", "4"]), () => 'tensor "a" to have two data_offsets, got ["0","4"]'],
    [entry([4], [-4, 0]), () => 'tensor "a" to have two data_offsets, got [-4,0]'],
    [entry([1], [1, 5]), () => `tensor "a" within the file's 4 bytes of data, got [1, 5]`],
    [entry([2], [0, 4]), () => 'tensor "a" F32 [2] to have 8 bytes, got 4'],
    [
      two([0, 2], [1, 4]),
      (at) =>
        `tensor "b" to begin where the one before it ends, at byte ${at + 2}, got ${
          at + 1
        } (they overlap)`,
    ],
    [
      two([0, 1], [2, 4]),
      (at) =>
        `tensor "b" to begin where the one before it ends, at byte ${at + 1}, got ${
          at + 2
        } (a gap)`,
    ],
    ["{}", (at) => `tensors up to byte ${at + 4}, the end of the file, got tensors up to ${at}`],
  ];
  for (const [header, expected] of cases) {
    await assert.rejects(
      open(frame(header, [new Uint8Array(4)])),
      new CheckpointError(`Cannot open "test": expected ${expected(8 + header.length)}`),
    );
  }
});

Deno.test("readSafetensorsHeader() refuses text that is not UTF-8", async () => {
  const encoder = new TextEncoder();
  for (const bad of [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xc3]]) {
    const [before, after] = ['{"__metadata__":{"a":"', '"}}'].map((t) => encoder.encode(t));
    await refuses(frame(Uint8Array.from([...before, ...bad, ...after])), /JSON at byte 8/);
  }
});

Deno.test("readSafetensorsHeader() limits the header of a large file", async () => {
  const reads: number[] = [];
  await assert.rejects(open(frame("{}", [], 100_000_001n), reads, 2 ** 40), {
    name: "CheckpointError",
    message: /at most 100000000 bytes, got a length of 100000001 at byte 0$/,
  });
  assert.deepEqual(reads, [8]);
});

Deno.test("readSafetensorsHeader() refuses a shape whose product overflows", async () => {
  const M = 2 ** 53 - 1;
  const shapes = [
    [M, M], // 1 modulo 2^53
    [2 ** 32, 2 ** 31, 2], // 0 modulo 2^64
    Array(40).fill(M), // Infinity
    [...Array(40).fill(M), 0], // NaN
  ];
  for (const shape of shapes) {
    for (const dtype of ["U8", "F32"]) {
      for (const size of [0, 1, 4]) {
        const header = entry(shape, [0, size], dtype);
        await refuses(frame(header, [new Uint8Array(size)]), /^Cannot .* bytes, got [014]$/);
      }
    }
  }
});

Deno.test("readSafetensorsHeader() finds a duplicate key behind blanks or escapes", async () => {
  const duplicates: [header: string, key: string][] = [
    [`{"a":${tensor},"a"${" ".repeat(1000)}\n\t\r:${tensor}}`, "a"],
    [`{"\\/":${tensor},"/":${tensor}}`, "/"],
    [`{"\\"":${tensor},"\\u0022":${tensor}}`, '"'],
    [`{"\\\\":${tensor},"\\u005c" : ${tensor}}`, "\\"],
    [`{"__metadata__":{"k":"1","k":"2"}}`, "k"],
    [`{"__metadata__":{},"b":${tensor},"__metadata__":{}}`, "__metadata__"],
    [`{"__proto__":${tensor},"__proto__":${tensor}}`, "__proto__"],
    [`{"a":{"x":[{"y":1,"y":2}]}}`, "y"],
  ];
  for (const [header, key] of duplicates) {
    await assert.rejects(
      open(frame(header)),
      new CheckpointError(
        `Cannot open "test": expected every key of the header once, got ${
          JSON.stringify(key)
        } twice`,
      ),
    );
  }
});

Deno.test("readSafetensorsHeader() accepts a text twice if it is no duplicate key", async () => {
  const { tensors, metadata } = await open(frame(
    '{"__metadata__":{"a":"a","b":"a","c":"{\\"a\\":1,\\"a\\":2}","d":"\\\\"},' +
      '"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":["a","a","a:",{"a":1},{"a":1}]},' +
      `"b":${tensor}}`,
  ));
  assert.deepEqual([...tensors.keys()], ["a", "b"]);
  assert.deepEqual(metadata, { a: "a", b: "a", c: '{"a":1,"a":2}', d: "\\" });
});

Deno.test("readSafetensorsHeader() treats __proto__ as any other name", async () => {
  const { metadata } = await open(frame('{"__metadata__":{"__proto__":"p","toString":"t"}}'));
  assert.deepEqual(Object.entries(metadata), [["__proto__", "p"], ["toString", "t"]]);
  assert.equal(Object.getPrototypeOf(metadata), Object.prototype);
  // A missing field is not inherited from a prototype in the file.
  await refuses(frame(`{"a":{"__proto__":${tensor}}}`), /dtype of .*, got undefined$/);
});

Deno.test("readSafetensorsHeader() returns tensors in the order of their bytes", async () => {
  const at = (begin: number) => ({ dtype: "U8", shape: [1], data_offsets: [begin, begin + 1] });
  // JavaScript puts numeric keys first, in any text.
  const header = JSON.stringify({ b: at(1), 7: at(2), a: at(0) });
  const { tensors } = await open(frame(header, [new Uint8Array(3)]));
  assert.deepEqual([...tensors.keys()], ["a", "b", "7"]);
});

Deno.test("readSafetensorsHeader() accepts a metadata text of many megabytes", async () => {
  for (const text of ["x".repeat(2e7), '\\"'.repeat(4e6)]) {
    const { metadata } = await open(frame(JSON.stringify({ __metadata__: { text } })));
    assert.equal(metadata.text.length, text.length);
  }
});

Deno.test("readSafetensorsHeader() reads 100,000 tensors in linear time", async () => {
  const count = 100_000;
  const entries = Array.from(
    { length: count },
    (_, i) => `"h.${i}.weight":{"dtype":"U8","shape":[1],"data_offsets":[${i},${i + 1}]}`,
  );
  // It takes 0.4 s; a comparison of all pairs would take minutes.
  const { tensors } = await within(
    "a header of 100,000 tensors",
    () => open(frame(`{${entries}}`, [new Uint8Array(count)])),
  );
  assert.equal(tensors.size, count);
});

Deno.test("readSafetensorsHeader() throws only CheckpointError for damaged bytes", async () => {
  const whole = safetensorsBytes([
    ["a", { dtype: "F32", shape: [2, 2], data: four }],
    ["b", { dtype: "F16", shape: [3], data: new Uint16Array(3) }],
  ], { format: "pt" });
  const change = fc.tuple(fc.nat({ max: whole.length - 1 }), fc.nat({ max: 255 }));
  await fc.assert(
    fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 4 }), async (changes) => {
      const bytes = whole.slice();
      for (const [at, byte] of changes) bytes[at] = byte;
      try {
        for (const { offset, byteLength } of (await open(bytes)).tensors.values()) {
          assert.ok(offset + byteLength <= bytes.length);
        }
      } catch (error) {
        assert.ok(error instanceof CheckpointError, `${error}`);
      }
    }),
    { numRuns: 3000, seed: 1 },
  );
});
