/** GGUF files: header, tensors, byte orders, alignment, split models. */
import assert from "node:assert/strict";
import { openCheckpoint } from "../../../../engine/checkpoint/checkpoint.ts";
import { readGguf } from "../../../../engine/checkpoint/gguf/mod.ts";
import { CheckpointError } from "../../../../engine/errors.ts";
import { threefry } from "../../../../kernels/ops/sample/mod.ts";
import { bytesOf } from "../../../../kernels/tensor.ts";
import { ggufBytes, type GgufFile, type WrittenGguf, type WrittenValue } from "../../../gguf.ts";
import { inMemory, inTempFolder } from "../../../safetensors.ts";
import { fixture } from "../../../testing.ts";

const open = (file: GgufFile) => readGguf(inMemory(ggufBytes(file), "a.gguf"));

/** An F32 tensor [rows, columns] of 0, 1, 2, … */
function ramp(name: string, columns = 2, rows = 3): WrittenGguf {
  const data = bytesOf(Float32Array.from({ length: columns * rows }, (_, i) => i));
  return { name, extents: [columns, rows], type: 0, data };
}

async function expectRefused(opened: Promise<unknown>, message: RegExp): Promise<void> {
  await assert.rejects(opened, (error) => {
    assert.ok(error instanceof CheckpointError, String((error as Error).stack));
    assert.match(error.message, message);
    assert.ok(!error.message.includes("\n"));
    return true;
  });
}

Deno.test("openCheckpoint() reads a GGUF's tensors, outermost extent first", () =>
  inTempFolder(async (folder) => {
    const path = `${folder}/a.gguf`;
    const pairs = [["general.architecture", ["text", "llama"]]] as const;
    await Deno.writeFile(path, ggufBytes({ pairs, tensors: [ramp("a"), ramp("b", 1, 5)] }));
    using checkpoint = await openCheckpoint(path);
    assert.equal(checkpoint.format, "gguf");
    assert.deepEqual(checkpoint.tensors(), [
      { name: "a", dtype: "F32", shape: [3, 2] },
      { name: "b", dtype: "F32", shape: [5, 1] },
    ]);
    assert.deepEqual([...await checkpoint.read("b")], [0, 1, 2, 3, 4]);
    assert.deepEqual({ ...checkpoint.metadata }, { "general.architecture": "llama" });
  }));

Deno.test("readGguf() places tensors by general.alignment", async () => {
  for (const alignment of [1, 8, 32, 64, 4096]) {
    const pairs = [["general.alignment", ["u32", alignment]]] as const;
    const { tensors } = await open({ pairs, alignment, tensors: [ramp("a"), ramp("b")] });
    for (const { source, offset, byteLength } of tensors.values()) {
      assert.equal(offset % alignment, 0);
      const bytes = new Uint8Array(byteLength);
      await source.read(offset, bytes);
      assert.deepEqual([...new Float32Array(bytes.buffer)], [0, 1, 2, 3, 4, 5]);
    }
  }
});

Deno.test("readGguf() swaps the bytes of a big-endian tensor, from any byte to any byte", async () => {
  const swapped = (data: Uint8Array, size: number) => {
    const out = data.slice();
    for (let at = 0; at < out.length; at += size) out.subarray(at, at + size).reverse();
    return out;
  };
  const cases = [
    { name: "F32", type: 0, data: bytesOf(Float32Array.of(1, -2, 3.5, 1e9)), size: 4 },
    { name: "F64", type: 28, data: bytesOf(Float64Array.of(1, -2, 3.5, 1e300)), size: 8 },
    { name: "I16", type: 25, data: bytesOf(Int16Array.of(1, -2, 300, 4)), size: 2 },
    { name: "I8", type: 24, data: bytesOf(Int8Array.of(1, -2, 30, 4)), size: 1 },
  ];
  const tensors = cases.map(({ name, type, data, size }) => (
    { name, type, extents: [4], data: swapped(data, size) }
  ));
  const opened = await open({ tensors, isBig: true });
  for (const { name, data } of cases) {
    const { source, offset, dtype } = opened.tensors.get(name)!;
    assert.equal(dtype, name);
    for (let from = 0; from <= data.length; from++) {
      for (let to = from; to <= data.length; to++) {
        const bytes = new Uint8Array(to - from);
        await source.read(offset + from, bytes);
        assert.deepEqual(bytes, data.slice(from, to), `${name} ${from} ${to}`);
      }
    }
  }
});

Deno.test("readGguf() refuses a header that breaks a rule, in one sentence", async () => {
  const data = new Uint8Array(64);
  const one = { name: "a", extents: [2, 3], type: 0, data };
  const cases: [GgufFile, RegExp][] = [
    [{ version: 1 }, /GGUF of version 2 or 3, got 1$/],
    [{ version: 4 }, /GGUF of version 2 or 3, got 4$/],
    [{ version: 1, isBig: true }, /GGUF of version 2 or 3, got 1$/],
    [
      { tensors: [{ ...one, type: 999 }] },
      /"a" to have a type that this version knows, got type 999$/,
    ],
    [{ tensors: [{ ...one, type: 4 }] }, /type that this version knows, got type 4$/],
    [{ tensors: [{ ...one, extents: [1, 1, 1, 1, 1] }] }, /"a" to have at most 4 extents, got 5/],
    [{ tensors: [{ ...one, offset: 8 }] }, /"a" at a multiple of 32 bytes, got 8/],
    [{ tensors: [{ ...one, offset: 1024 }] }, /"a" F32 \[3,2\] of 24 bytes at byte \d+ within/],
    [{ tensors: [{ ...one, offset: 2n ** 64n - 32n }] }, /within the file's \d+ bytes/],
    [{ tensors: [{ ...one, extents: [2n ** 32n, 2n ** 32n] }] }, /within the file's \d+ bytes/],
    [{ tensors: [{ ...one, extents: [2n ** 63n, 2n, 0n, 1n] }, one] }, /"a" twice/],
    [{ tensors: [one, { ...one, name: "b", offset: 0 }] }, /"b" after the end of "a"/],
    [{ tensors: [one, { ...one, offset: 64 }] }, /every tensor once, got "a" twice/],
    [{ counts: { tensors: 3n }, tensors: [one] }, /expected /],
  ];
  for (const [file, message] of cases) await expectRefused(open(file), message);
  const bytes = ggufBytes({ tensors: [one] });
  for (
    const [text, message] of [["GGUG", /begins with "GGUF", got "GGUG"/], [
      "PK\x03\x04",
      /"PK/,
    ]] as const
  ) {
    const wrong = bytes.slice();
    wrong.set(new TextEncoder().encode(text));
    await expectRefused(readGguf(inMemory(wrong)), message);
  }
  for (let size = 0; size < bytes.length - 64; size++) {
    await expectRefused(readGguf(inMemory(bytes.slice(0, size))), /./);
  }
});

Deno.test("readGguf() decodes or rejects random mutants of a header", async () => {
  const file = await Deno.readFile(fixture("gguf/gemma3.gguf"));
  const end = Math.min(
    ...[...(await readGguf(inMemory(file))).tensors.values()].map((t) => t.offset),
  );
  let refused = 0;
  for (let mutant = 0; mutant < 300; mutant++) {
    const bytes = file.slice();
    for (let n = 0; n < 3; n++) {
      bytes[threefry(mutant, n, 0, 0) % end] = threefry(mutant, n, 1, 0) % 256;
    }
    try {
      const { tensors, metadata } = await readGguf(inMemory(bytes));
      structuredClone(metadata);
      for (const { offset, byteLength } of tensors.values()) {
        assert.ok(offset >= 0 && offset + byteLength <= bytes.length);
      }
    } catch (error) {
      assert.ok(error instanceof CheckpointError, `mutant ${mutant}: ${(error as Error).stack}`);
      refused++;
    }
  }
  assert.ok(refused > 100 && refused < 300, `${refused} refused`);
});

/** The keys of part `no` of `count`. */
function splitKeys(no: number, count: number, total?: number): [string, WrittenValue][] {
  const keys: [string, WrittenValue][] = [["split.no", ["u16", no]], ["split.count", [
    "u16",
    count,
  ]]];
  return total === undefined ? keys : [...keys, ["split.tensors.count", ["i32", total]]];
}

/** Writes a model of three parts. */
async function writeParts(folder: string): Promise<string[]> {
  const paths = [1, 2, 3].map((part) => `${folder}/m-0000${part}-of-00003.gguf`);
  for (const [i, path] of paths.entries()) {
    const pairs = [...splitKeys(i, 3, 3), ...i ? [] : [["name", ["text", "m"]] as const]];
    await Deno.writeFile(path, ggufBytes({ pairs, tensors: [ramp(`t${i}`, 1, i + 1)] }));
  }
  return paths;
}

Deno.test("openCheckpoint() reads all parts of a split GGUF, whichever is named", () =>
  inTempFolder(async (folder) => {
    for (const path of await writeParts(folder)) {
      using checkpoint = await openCheckpoint(path);
      assert.deepEqual(checkpoint.tensors().map(({ name }) => name), ["t0", "t1", "t2"]);
      assert.deepEqual([...await checkpoint.read("t2")], [0, 1, 2]);
      assert.equal(checkpoint.metadata.name, "m");
    }
  }));

Deno.test("openCheckpoint() reports how the parts of a split GGUF disagree", () =>
  inTempFolder(async (folder) => {
    const refused = async (change: (paths: string[]) => Promise<void>, message: RegExp) => {
      const paths = await writeParts(folder);
      await change(paths);
      await expectRefused(openCheckpoint(paths[0]), message);
    };
    const write = (path: string, file: GgufFile) => Deno.writeFile(path, ggufBytes(file));
    await refused(
      ([, second]) => Deno.remove(second),
      /1 of its 3 parts are missing: m-00002-of-00003\.gguf$/,
    );
    await refused(
      ([first, second]) => Deno.copyFile(first, second),
      /m-00002-of-00003\.gguf": expected part 1 of 3 by its split\.no and split\.count, got 0 of 3/,
    );
    await refused(
      ([, second]) => write(second, { pairs: splitKeys(1, 4), tensors: [] }),
      /expected part 1 of 3 .*, got 1 of 4/,
    );
    await refused(
      ([, second]) => write(second, { tensors: [ramp("t1")] }),
      /expected part 1 of 3 .*, got undefined of undefined/,
    );
    await refused(
      ([, second]) => write(second, { pairs: splitKeys(1, 3), tensors: [ramp("t0")] }),
      /every tensor in one part, got "t0" in two/,
    );
    await refused(
      ([, second]) => write(second, { pairs: splitKeys(1, 3) }),
      /3 tensors in all parts, got 2/,
    );
    await refused(
      ([first]) => write(first, { pairs: splitKeys(0, 2), tensors: [] }),
      /expected one of 2 parts to be named NAME-00001-of-00002\.gguf/,
    );
    await refused(
      ([first]) => write(first, { pairs: [["split.count", ["text", "3"]]] }),
      /expected split\.count to be a number of parts, got 3/,
    );
    const [first] = await writeParts(folder);
    const renamed = `${folder}/renamed.gguf`;
    await Deno.rename(first, renamed);
    await expectRefused(openCheckpoint(renamed), /named NAME-00001-of-00003\.gguf; rename/);
  }));
