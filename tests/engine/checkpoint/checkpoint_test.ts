import assert from "node:assert/strict";
import fc from "../../fast_check.ts";
import { openCheckpoint } from "../../../engine/checkpoint/checkpoint.ts";
import { locate } from "../../../engine/checkpoint/locate.ts";
import { decode } from "../../../engine/checkpoint/dtypes.ts";
import { STORED } from "../../../engine/checkpoint/safetensors.ts";
import { CheckpointError } from "../../../engine/errors.ts";
import { expectSeeks } from "../../bytes_read.ts";
import { within } from "../../patience.ts";
import { succeeds } from "../../process.ts";
import {
  frame,
  inTempFolder,
  safetensorsBytes,
  writeSafetensors,
  type WrittenTensor,
} from "../../safetensors.ts";
import { fixture, readJson } from "../../testing.ts";

Deno.test("openCheckpoint() opens a folder or a file of LabCore or transformers", async () => {
  for (const name of ["labcore/learned", "labcore/rope66", "tiny/gpt2", "tiny/gpt2-f16"]) {
    const folder = fixture(name);
    const path = `${folder}/model.safetensors`;
    for (const source of [folder, `${folder}/`, path]) {
      using checkpoint = await openCheckpoint(source);
      assert.equal(checkpoint.path, path);
      const tensors = checkpoint.tensors();
      assert.ok(tensors.length > 10);
      for (const { name, shape } of tensors) {
        const values = await checkpoint.read(name);
        assert.equal(values.length, shape.reduce((n, extent) => n * extent, 1));
        assert.ok(values.every(Number.isFinite));
      }
    }
  }
  using labcore = await openCheckpoint(fixture("labcore/learned"));
  assert.deepEqual(labcore.metadata, { "wte.weight": "lm_head.weight" });
  assert.deepEqual(labcore.tensors()[1], {
    name: "h.0.attn.c_attn.weight",
    dtype: "F32",
    shape: [96, 32],
  });
});

/** All 256 values of a float8 type, as PyTorch converts them. */
function float8(dtype: string): { data: Uint8Array; values: number[] } {
  const bits = readJson<Record<string, (number | "nan")[]>>("float8/values.json")[dtype];
  assert.equal(bits.length, 256);
  const number = (word: number) => new Float32Array(Int32Array.of(word).buffer)[0];
  return {
    data: Uint8Array.from({ length: 256 }, (_, byte) => byte),
    values: bits.map((word) => word === "nan" ? NaN : number(word)),
  };
}

Deno.test("Checkpoint.read() converts the extreme values of each dtype to F32", async () => {
  const f32 = [1.5, -0, Infinity, 2 ** -149, 3.4028234663852886e38];
  const cases: Record<string, { data: ArrayBufferView; values: number[] }> = {
    F32: { data: Float32Array.from(f32), values: f32 },
    F16: {
      data: Uint16Array.of(0x3e00, 0x8000, 0x7c00, 0x0001, 0xfbff),
      values: [1.5, -0, Infinity, 2 ** -24, -65504],
    },
    BF16: {
      data: Uint16Array.of(0x3fc0, 0x8000, 0xff80, 0x0001, 0x4049),
      values: [1.5, -0, -Infinity, 2 ** -133, 3.140625],
    },
    F64: {
      data: Float64Array.of(0.1, -0, 1e300, 1e-300, 16777217),
      values: [Math.fround(0.1), -0, Infinity, 0, 16777216],
    },
    I64: {
      data: BigInt64Array.of(0n, -1n, 2n ** 63n - 1n, -(2n ** 63n), 16777217n),
      values: [0, -1, 2 ** 63, -(2 ** 63), 16777216],
    },
    U64: { data: BigUint64Array.of(0n, 2n ** 64n - 1n), values: [0, 2 ** 64] },
    I32: { data: Int32Array.of(-1, 2 ** 31 - 1, -(2 ** 31)), values: [-1, 2 ** 31, -(2 ** 31)] },
    U32: { data: Uint32Array.of(7, 2 ** 32 - 1), values: [7, 2 ** 32] },
    I16: { data: Int16Array.of(-32768, 32767), values: [-32768, 32767] },
    U16: { data: Uint16Array.of(0, 65535), values: [0, 65535] },
    I8: { data: Int8Array.of(-128, 127), values: [-128, 127] },
    U8: { data: Uint8Array.of(0, 255), values: [0, 255] },
    BOOL: { data: Uint8Array.of(0, 1, 1), values: [0, 1, 1] },
    F8_E4M3: float8("F8_E4M3"),
    F8_E5M2: float8("F8_E5M2"),
  };
  assert.deepEqual(Object.keys(cases).sort(), Object.keys(STORED).sort());
  await inTempFolder(async (folder) => {
    const path = `${folder}/a.safetensors`;
    const tensors = Object.entries(cases).map(([dtype, { data, values }]) => {
      return [dtype, { dtype, shape: [values.length], data }] as const;
    });
    // In this order, odd lengths come first and misalign most of the wider numbers.
    await Deno.writeFile(path, safetensorsBytes(tensors.toReversed()));
    using checkpoint = await openCheckpoint(path);
    for (const [dtype, { values }] of Object.entries(cases)) {
      const numbers = [...await checkpoint.read(dtype)];
      assert.ok(
        numbers.every((n, i) => Object.is(n, values[i])),
        `${dtype}: ${numbers} for ${values}`,
      );
      assert.equal(numbers.length, values.length);
    }
  });
});

Deno.test("Checkpoint.read() returns the written bits of random tensors", async () => {
  // Without escapes: V8's JSON.parse may misread escaped keys.
  const isPlain = (text: string): boolean => !JSON.stringify(text).includes("\\");
  const name = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.constantFrom("__proto__", "0", "10", "a.b", "toString", "", " ", "é"),
  ).filter((n) => n !== "__metadata__" && isPlain(n));
  const tensor = fc.record({
    dtype: fc.constantFrom(...Object.keys(STORED)),
    shape: fc.array(fc.nat({ max: 4 }), { maxLength: 3 }),
    seed: fc.integer(),
  }).map(({ dtype, shape, seed }): WrittenTensor => {
    const size = shape.reduce((n, extent) => n * extent, STORED[dtype].bytes);
    const byte = (i: number): number => Math.imul(seed ^ i, 0x9e3779b1) >>> 24;
    return { dtype, shape, data: Uint8Array.from({ length: size }, (_, i) => byte(i)) };
  });
  const tensors = fc.uniqueArray(fc.tuple(name, tensor), { selector: ([n]) => n, maxLength: 6 });
  const metadata = fc.dictionary(fc.string().filter(isPlain), fc.string(), {
    maxKeys: 3,
    noNullPrototype: true,
  });
  await inTempFolder(async (folder) => {
    const path = `${folder}/a.safetensors`;
    await fc.assert(
      fc.asyncProperty(tensors, metadata, async (written, text) => {
        await Deno.writeFile(path, safetensorsBytes(written, text));
        using checkpoint = await openCheckpoint(path);
        assert.deepEqual(Object.entries(checkpoint.metadata), Object.entries(text));
        const found = new Map(checkpoint.tensors().map((t) => [t.name, t]));
        assert.equal(found.size, written.length);
        for (const [name, { dtype, shape, data }] of written) {
          assert.deepEqual(found.get(name), { name, dtype, shape });
          const bytes = new Uint8Array(data.byteLength);
          await checkpoint.readBytes(name, 0, bytes);
          assert.deepEqual(bytes, data);
          if (dtype !== "F32") continue;
          assert.deepEqual(new Uint8Array((await checkpoint.read(name)).buffer), data);
        }
      }),
      { numRuns: 300, seed: 1 },
    );
  });
});

Deno.test("Checkpoint.readBytes() reads a range of a tensor and no byte beyond", async () => {
  await inTempFolder(async (folder) => {
    const path = `${folder}/a.safetensors`;
    const tensor = (...data: number[]) => ({
      dtype: "U8",
      shape: [data.length],
      data: Uint8Array.from(data),
    });
    await writeSafetensors(path, { a: tensor(1, 2, 3), b: tensor(4, 5, 6, 7), c: tensor(8) });
    using checkpoint = await openCheckpoint(path);
    const into = new Uint8Array(2);
    await checkpoint.readBytes("b", 1, into);
    assert.deepEqual([...into], [5, 6]);
    await checkpoint.readBytes("b", 4, new Uint8Array(0));
    for (const [offset, count] of [[3, 2], [5, 0], [-1, 2], [NaN, 1], [0, 5]]) {
      await assert.rejects(
        checkpoint.readBytes("b", offset, new Uint8Array(count)),
        new CheckpointError(
          `Cannot read "b" of "${path}": expected a range of its 4 bytes, got ${offset} to ${
            offset + count
          }`,
        ),
      );
    }
    for (const name of ["d", "__metadata__", "__proto__"]) {
      await assert.rejects(
        checkpoint.read(name),
        new CheckpointError(`Cannot read "${name}": not in "${path}"`),
      );
    }
  });
});

Deno.test("openCheckpoint() opens a file of 3 GiB at once", async () => {
  await inTempFolder(async (folder) => {
    const path = `${folder}/model.safetensors`;
    const bytes = 3 * 2 ** 30;
    const head = frame(JSON.stringify({
      big: { dtype: "F32", shape: [bytes / 4 - 1], data_offsets: [0, bytes - 4] },
      last: { dtype: "F32", shape: [1], data_offsets: [bytes - 4, bytes] },
    }));
    await Deno.writeFile(path, head);
    await Deno.truncate(path, head.length + bytes); // sparse: it takes no disk space
    await expectSeeks(async () => {
      using checkpoint = await openCheckpoint(folder);
      assert.deepEqual(checkpoint.tensors().map(({ name }) => name), ["big", "last"]);
      assert.deepEqual(await checkpoint.read("last"), new Float32Array(1));
    });
  });
});

Deno.test("openCheckpoint() refuses a file that is cut off or not safetensors", async () => {
  await inTempFolder(async (folder) => {
    const path = `${folder}/model.safetensors`;
    const whole = safetensorsBytes([
      ["a", { dtype: "F32", shape: [2], data: Float32Array.of(1, 2) }],
    ]);
    for (let length = 0; length < whole.length; length++) {
      await Deno.writeFile(path, whole.slice(0, length));
      await assert.rejects(
        openCheckpoint(folder),
        { name: "CheckpointError", message: /^Cannot open ".*model\.safetensors": expected / },
      );
    }
    await Deno.writeTextFile(path, "version https://git-lfs.github.com/spec/v1\noid sha256:0\n");
    await assert.rejects(openCheckpoint(path), {
      name: "CheckpointError",
      message: /got a Git LFS pointer; fetch the file with git lfs pull$/,
    });
  });
});

Deno.test("Checkpoint.read() reports a file that shrank after opening", async () => {
  await inTempFolder(async (folder) => {
    const path = `${folder}/a.safetensors`;
    await writeSafetensors(path, { a: { dtype: "F32", shape: [2], data: Float32Array.of(1, 2) } });
    using checkpoint = await openCheckpoint(path);
    const { size } = await Deno.stat(path);
    await Deno.truncate(path, size - 1);
    await assert.rejects(
      checkpoint.read("a"),
      new CheckpointError(`Cannot read "${path}": expected 8 bytes at ${size - 8}, got 7`),
    );
  });
});

Deno.test("openCheckpoint() closes the file when disposed or refused", async () => {
  // Deno's resource sanitizer fails this test if a file stays open.
  const checkpoint = await openCheckpoint(fixture("labcore/learned"));
  checkpoint[Symbol.dispose]();
  await assert.rejects(checkpoint.read("wpe.weight"), CheckpointError);
  await assert.rejects(openCheckpoint(fixture("tiny/gpt2/config.json")), CheckpointError);
  await inTempFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/a.safetensors`, "no header at all");
    await assert.rejects(openCheckpoint(`${folder}/a.safetensors`), CheckpointError);
  });
});

Deno.test("locate() finds weights and folder from either of them", async () => {
  const folder = fixture("tiny/gpt2");
  const weights = `${folder}/model.safetensors`;
  assert.deepEqual(await locate(folder), { weights, folder });
  assert.deepEqual(await locate(weights), { weights, folder: `${folder}/` });
});

Deno.test("locate() prefers safetensors to PyTorch's format", () =>
  inTempFolder(async (folder) => {
    const names = [
      "pytorch_model.bin.index.json",
      "pytorch_model.bin",
      "model.safetensors.index.json",
      "model.safetensors",
    ];
    for (const name of names) {
      await Deno.writeTextFile(`${folder}/${name}`, "");
      assert.deepEqual(await locate(folder), { weights: `${folder}/${name}`, folder });
    }
  }));

Deno.test("locate() prefers ckpt.pt to weights without their config.json", () =>
  inTempFolder(async (folder) => {
    const write = (name: string) => Deno.writeTextFile(`${folder}/${name}`, "{}");
    for (const name of ["model.safetensors", "ckpt.pt"]) await write(name);
    assert.equal((await locate(folder)).weights, `${folder}/ckpt.pt`);
    await write("config.json");
    assert.equal((await locate(folder)).weights, `${folder}/model.safetensors`);
  }));

Deno.test("openCheckpoint() explains why a source is no checkpoint", async () => {
  await inTempFolder(async (folder) => {
    const cases: [source: string, sentence: string][] = [
      [`${folder}/none`, "there is no such file or folder"],
      [`${folder}/none.safetensors`, "there is no such file or folder"],
      ["", "there is no such file or folder"],
      [
        `${folder}/empty`,
        "expected a model.safetensors in it, its index, a pytorch_model.bin, a ckpt.pt, " +
        "a .gguf, or a trainer's checkpoint-N",
      ],
    ];
    await Deno.mkdir(`${folder}/empty`);
    for (
      const [name, sentence] of [
        ["a.gguf", "expected at least 24 bytes of GGUF, got 2"],
        [
          "config.json",
          "expected a folder, a .safetensors file, a .gguf file or a PyTorch checkpoint (.pt)",
        ],
      ]
    ) {
      await Deno.writeTextFile(`${folder}/${name}`, "{}");
      cases.push([`${folder}/${name}`, sentence]);
    }
    for (const [source, sentence] of cases) {
      await assert.rejects(
        openCheckpoint(source),
        new CheckpointError(`Cannot open "${source}": ${sentence}`),
      );
    }
  });
});

Deno.test("openCheckpoint() refuses a folder or a pipe named like a file", async () => {
  await inTempFolder(async (folder) => {
    const path = `${folder}/model.safetensors`;
    const refusal = new CheckpointError(`Cannot open "${path}": expected a regular file`);
    await Deno.mkdir(path);
    await assert.rejects(openCheckpoint(folder), refusal);
    await assert.rejects(openCheckpoint(path), {
      name: "CheckpointError",
      message: /model\.safetensors": expected a model\.safetensors in it/,
    });
    if (Deno.build.os === "windows") return;
    await Deno.remove(path);
    assert.ok(await succeeds("mkfifo", path));
    for (const source of [folder, path]) {
      await within("an answer", () => assert.rejects(openCheckpoint(source), refusal));
    }
  });
});

Deno.test({
  name: "openCheckpoint() reports a missing read permission",
  permissions: { read: false },
  fn: () =>
    assert.rejects(
      openCheckpoint(fixture("tiny/gpt2")),
      { name: "CheckpointError", message: /^Cannot open ".*": .*read access/ },
    ),
});

Deno.test("decode() reads bytes of a view at its offset", () => {
  const bytes = new Uint8Array(16);
  bytes.set(new Uint8Array(Float32Array.of(1.5, -2).buffer), 8);
  assert.deepEqual(decode(bytes.subarray(8), "F32"), Float32Array.of(1.5, -2));
  assert.deepEqual(decode(bytes.subarray(15), "U8"), Float32Array.of(0xc0));
  assert.deepEqual(decode(new Uint8Array(0), "F64"), new Float32Array(0));
  // F32 bytes need no alignment; F64 bytes do.
  assert.deepEqual(decode(bytes.subarray(1, 5), "F32"), new Float32Array(1));
  assert.throws(() => decode(bytes.subarray(1, 9), "F64"), RangeError);
});
