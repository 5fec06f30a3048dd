import assert from "node:assert/strict";
import fc from "fast-check";
import { openCheckpoint } from "../../../engine/checkpoint/checkpoint.ts";
import { readSafetensorsHeader } from "../../../engine/checkpoint/safetensors.ts";
import { CheckpointError } from "../../../engine/errors.ts";
import { frame, safetensorsBytes, writeSafetensors } from "../../safetensors.ts";
import { fixture } from "../../testing.ts";

/** Opens bytes as a file would be; `asked` lists what was read. */
function open(bytes: Uint8Array, asked: number[] = [], size = bytes.length) {
  return readSafetensorsHeader({
    name: "test",
    size,
    read(offset, into) {
      asked.push(into.length);
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

Deno.test("readSafetensorsHeader() refuses every beginning of a file that is torn", async () => {
  const whole = safetensorsBytes([["a", { dtype: "F32", shape: [4], data: four }]]);
  assert.equal((await open(whole)).tensors.size, 1);
  for (let n = 0; n < whole.length; n++) {
    await refuses(whole.subarray(0, n), /^Cannot open "test": expected/);
  }
});

Deno.test("readSafetensorsHeader() refuses a header longer than the file before it allocates", async () => {
  for (const length of [2n ** 60n, 2n ** 64n - 1n, 90_000_000n, 17n]) {
    const asked: number[] = [];
    await assert.rejects(open(frame("{}".padEnd(16), [], length), asked), CheckpointError);
    assert.deepEqual(asked, [8], "nothing but the length is read");
  }
});

Deno.test("readSafetensorsHeader() refuses what is no JSON object", async () => {
  for (
    const header of ["", "{", "[]", "null", "3", ' {"a":1}', '{"a":1}', '{"a":{}}', "\ufeff{}"]
  ) {
    await refuses(frame(header), /^Cannot open/);
  }
  await refuses(frame(new Uint8Array([0x7b, 0xff, 0xfe, 0x7d])), /JSON/);
});

Deno.test("readSafetensorsHeader() refuses a key that stands twice, however it is spelt", async () => {
  const tensor = '{"dtype":"F32","shape":[],"data_offsets":[0,4]}';
  await refuses(frame(`{"a":${tensor},"a":${tensor}}`, [four.subarray(1)]), /"a" twice/);
  await refuses(frame(`{"a":${tensor},"\\u0061":${tensor}}`, [four.subarray(1)]), /"a" twice/);
  const inner = '{"a":{"dtype":"F32","dtype":"F16","shape":[4],"data_offsets":[0,16]}}';
  await refuses(frame(inner, [four]), /"dtype" twice/);
});

Deno.test("readSafetensorsHeader() refuses offsets and shapes that do not fit the data", async () => {
  const cases: [string, RegExp][] = [
    [entry([4], [0, 12]), /16 bytes, got 12/],
    [entry([4], [16, 0]), /within the file/],
    [entry([4], [8, 24]), /within the file/],
    [entry([3], [4, 16]), /hole/],
    [entry([3], [0, 12]), /up to the last/],
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

Deno.test("readSafetensorsHeader() takes empty tensors, text for metadata and any name", async () => {
  const empty = new Float32Array(0);
  const { tensors, metadata } = await open(safetensorsBytes([
    ["__proto__", { dtype: "F32", shape: [4], data: four }],
    ["none", { dtype: "F16", shape: [0, 7], data: empty }],
    ["scalar", { dtype: "U8", shape: [], data: new Uint8Array([7]) }],
  ], { format: "pt" }));
  assert.deepEqual([...tensors.keys()], ["__proto__", "none", "scalar"]);
  assert.equal(metadata.format, "pt");
});

Deno.test("readSafetensorsHeader() reads the header alone, of a file of any size", async () => {
  const size = 3 * 2 ** 30;
  const header = JSON.stringify({
    a: { dtype: "F32", shape: [2 ** 28, 2], data_offsets: [0, 2 ** 31] },
    b: { dtype: "U8", shape: [2 ** 30], data_offsets: [2 ** 31, size] },
  });
  const asked: number[] = [];
  await open(frame(header), asked, 8 + header.length + size);
  assert.deepEqual(asked, [8, header.length]);
});

Deno.test("openCheckpoint() gives back the bits that were written, for any tensors", async () => {
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

Deno.test("Checkpoint.read() widens every dtype to F32", async () => {
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

Deno.test("openCheckpoint() says in one sentence what it cannot open, and never hangs", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const pipe = `${folder}/pipe.safetensors`;
    await new Deno.Command("mkfifo", { args: [pipe] }).output();
    await Deno.writeFile(`${folder}/empty.safetensors`, new Uint8Array());
    await Deno.mkdir(`${folder}/sharded`);
    await Deno.writeTextFile(`${folder}/sharded/model.safetensors.index.json`, "{}");
    for (
      const [source, message] of [
        [pipe, /regular file/],
        [`${folder}/empty.safetensors`, /at least 8 bytes/],
        [`${folder}/none.safetensors`, /no such file/],
        [`${folder}/sharded`, /sharded/],
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
