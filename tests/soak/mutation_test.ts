/**
 * Mutation tests: corrupted files of every format. Each mutant is decoded correctly or rejected
 * with a `CheckpointError`: no other error, no hang, no read beyond the file, no buffer larger than
 * it.
 */
import assert from "node:assert/strict";
import { crc32 } from "node:zlib";
import type { GgufFile } from "../../engine/architecture/gguf.ts";
import { readGguf as readArchitectureOf } from "../../engine/architecture/mod.ts";
import { openCheckpoint } from "../../engine/checkpoint/checkpoint.ts";
import { decode } from "../../engine/checkpoint/dtypes.ts";
import type { Metadata } from "../../engine/checkpoint/gguf/metadata.ts";
import { readGguf } from "../../engine/checkpoint/gguf/mod.ts";
import { readSafetensorsHeader, type StoredTensor } from "../../engine/checkpoint/safetensors.ts";
import { readTorch } from "../../engine/checkpoint/torch/mod.ts";
import { loadConfig } from "../../engine/config.ts";
import { CheckpointError } from "../../engine/errors.ts";
import { loadTokenizer } from "../../engine/tokenizer/load.ts";
import { threefry } from "../../kernels/ops/sample/mod.ts";
import { PATIENCE_MS } from "../patience.ts";
import { inMemory, inTempFolder, writeSafetensors } from "../safetensors.ts";
import { fixture } from "../testing.ts";

const MUTANTS = 4000;

/** Random numbers of one mutant: the n-th one, less than a bound. */
type Draw = (n: number, below: number) => number;

/**
 * Replaces a few of the first `end` bytes, three of four times by a letter of `alphabet`. One
 * mutant in ten is truncated.
 */
function mutate(file: Uint8Array, draw: Draw, end: number, alphabet: string): Uint8Array {
  const letters = new TextEncoder().encode(alphabet);
  const bytes = file.slice();
  for (let n = 0; n <= draw(0, 3); n++) {
    const at = draw(10 * n + 10, end);
    bytes[at] = letters.length && draw(10 * n + 11, 4)
      ? letters[draw(10 * n + 12, letters.length)]
      : draw(10 * n + 13, 256);
  }
  return draw(1, 10) === 0 ? bytes.slice(0, draw(2, bytes.length)) : bytes;
}

/** Opens every mutant; `open` compares the result with the mutant's bytes. */
async function testMutants(
  file: Uint8Array,
  make: (draw: Draw) => Uint8Array,
  open: (mutant: Uint8Array) => Promise<void>,
): Promise<void> {
  let refused = 0;
  for (let mutant = 0; mutant < MUTANTS; mutant++) {
    const bytes = make((n, below) => threefry(mutant, n, 0, 0) % below);
    const start = performance.now();
    try {
      await open(bytes);
    } catch (error) {
      assert.ok(error instanceof CheckpointError, `mutant ${mutant}: ${(error as Error).stack}`);
      assert.ok(!error.message.includes("\n"), `mutant ${mutant}: ${error.message}`);
      refused++;
    }
    const ms = performance.now() - start;
    assert.ok(ms < PATIENCE_MS, `mutant ${mutant} took ${ms.toFixed(0)} ms`);
  }
  const share = refused / MUTANTS;
  assert.ok(
    share > 0.2,
    `${refused} of ${MUTANTS} were refused: the mutants do not reach the checks`,
  );
  await open(file);
}

/** Reads every tensor in small pieces; returns their checksums by name. */
async function readAll(
  tensors: ReadonlyMap<string, StoredTensor>,
  size: number,
): Promise<Map<string, number>> {
  const piece = new Uint8Array(4096);
  const sums = new Map<string, number>();
  for (const { name, source, offset, byteLength } of tensors.values()) {
    assert.ok(byteLength <= size && offset + byteLength <= source.size);
    let sum = 0;
    for (let at = 0; at < byteLength; at += piece.length) {
      const part = piece.subarray(0, Math.min(piece.length, byteLength - at));
      await source.read(offset + at, part);
      sum = crc32(part, sum);
    }
    sums.set(name, sum);
  }
  return sums;
}

/** A checkpoint over the contents of a file in memory, without its weights. */
function describe({ tensors, metadata }: Awaited<ReturnType<typeof readGguf>>): GgufFile {
  return {
    path: "mutant",
    metadata,
    tensors: () => [...tensors.values()],
    read: (name) => {
      const { dtype, byteLength } = tensors.get(name)!;
      return Promise.resolve(decode(new Uint8Array(byteLength).fill(1), dtype));
    },
  };
}

/** Every array of the metadata, decoded. */
const decodeMetadata = (metadata: Metadata) => structuredClone(metadata);

for (const name of ["llama-q4_0", "gemma3", "phi3", "whole-llama3", "types-big"]) {
  Deno.test(`readGguf() decodes or rejects every mutant of ${name}.gguf`, async () => {
    const file = await Deno.readFile(fixture(`gguf/${name}.gguf`));
    const { tensors } = await readGguf(inMemory(file));
    const end = Math.min(...[...tensors.values()].map(({ offset }) => offset));
    // The first 1500 bytes have the numbers; the vocabulary is after them, the tensors at the end.
    const make = (draw: Draw) => {
      const [from, count] = draw(5, 2) ? [0, Math.min(end, 1500)] : [end - 1500, 1500];
      const part = mutate(file.subarray(from, from + count), draw, count, "\0\x01\x08\x09\x1f\xff");
      const mutant = file.slice(0, part.length < count ? from + part.length : undefined);
      mutant.set(part, from);
      return mutant;
    };
    await testMutants(file, make, async (bytes) => {
      const contents = await readGguf(inMemory(bytes));
      await readAll(contents.tensors, bytes.length);
      decodeMetadata(contents.metadata);
      if (name === "types-big") return;
      const a = await readArchitectureOf(describe(contents));
      assert.ok(a.layers.length === a.nLayer && a.nLayer <= contents.tensors.size);
    });
  });
}

const JSON_LETTERS = '0123456789-.,:[]{}"\\e ';

Deno.test("readSafetensorsHeader() decodes or rejects every mutant", async () => {
  const file = await Deno.readFile(fixture("labcore/learned/model.safetensors"));
  const end = 8 + Number(new DataView(file.buffer).getBigUint64(0, true));
  await testMutants(file, (draw) => mutate(file, draw, end, JSON_LETTERS), async (bytes) => {
    await readAll((await readSafetensorsHeader(inMemory(bytes))).tensors, bytes.length);
  });
});

/** Offsets of data.pkl, the first member of a PyTorch checkpoint, and of its two checksums. */
function pickleOf(file: Uint8Array): { begin: number; end: number; checksums: number[] } {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const begin = 30 + view.getUint16(26, true) + view.getUint16(28, true);
  let entry = 0; // the first entry of the directory, by its signature
  while (view.getUint32(entry, true) !== 0x02014b50) entry++;
  const end = begin + view.getUint32(entry + 24, true);
  return { begin, end, checksums: [14, entry + 16] };
}

Deno.test("readTorch() decodes or rejects every mutant of the archive", async () => {
  const file = await Deno.readFile(fixture("labcore/learned/ckpt_last.pt"));
  const { begin, end } = pickleOf(file);
  const directory = file.length - 20_000; // about 100 members
  const make = (draw: Draw) => {
    const [from, count] = draw(5, 3) ? [directory, 20_000] : [0, begin];
    const part = mutate(file.subarray(from, from + count), draw, count, "\0\x01PK\x05\x06\xff");
    const mutant = file.slice(0, from + part.length === file.length ? file.length : undefined);
    mutant.set(part, from);
    return draw(6, 10) ? mutant : mutant.slice(0, draw(7, mutant.length));
  };
  assert.ok(end < directory);
  const expected = await readAll((await readTorch(inMemory(file))).tensors, file.length);
  await testMutants(file, make, async (bytes) => {
    // The tensors' bytes are unchanged, so every mutant that opens must return them.
    const { tensors } = await readTorch(inMemory(bytes));
    assert.deepEqual(await readAll(tensors, bytes.length), expected);
  });
});

Deno.test("readTorch() decodes or rejects every mutant of the pickle, its CRC-32 fixed", async () => {
  const file = await Deno.readFile(fixture("labcore/learned/ckpt_last.pt"));
  const { begin, end, checksums } = pickleOf(file);
  const make = (draw: Draw) => {
    const part = mutate(
      file.subarray(begin, end),
      draw,
      end - begin,
      "().}]tqhXKMJBRcQbuesa\x85\x86\x87\0",
    );
    const mutant = file.slice();
    mutant.set(part, begin);
    const sum = crc32(mutant.subarray(begin, end));
    const view = new DataView(mutant.buffer);
    for (const at of checksums) view.setUint32(at, sum, true);
    return mutant;
  };
  await testMutants(file, make, async (bytes) => {
    await readAll((await readTorch(inMemory(bytes))).tensors, bytes.length);
  });
});

/** Registers a mutation test of a text file, opened by its path. */
function testTextFile(
  name: string,
  alphabet: string,
  source: string,
  open: (path: string) => Promise<void>,
): void {
  Deno.test(`${name} decodes or rejects every mutant`, () =>
    inTempFolder(async (folder) => {
      const file = await Deno.readFile(source);
      const path = `${folder}/${source.replace(/^.*\//, "")}`;
      await testMutants(
        file,
        (draw) => mutate(file, draw, file.length, alphabet),
        async (bytes) => {
          await Deno.writeFile(path, bytes);
          await open(path);
        },
      );
    }));
}

testTextFile(
  "loadConfig()",
  '0123456789-.,="[]# \n\\u',
  new URL("../../configs/bpe_10m.toml", import.meta.url).pathname,
  async (path) => {
    const { generation } = await loadConfig(path);
    assert.ok(!(generation.temperature! < 0) && !(generation.topP! > 1));
  },
);

/** Opens a vocabulary and round-trips its first 100 ids. */
async function openVocabulary(path: string): Promise<void> {
  const tokenizer = await loadTokenizer(path);
  for (let id = 0; id < Math.min(tokenizer.vocabSize, 100); id++) {
    assert.deepEqual(tokenizer.encode(tokenizer.decode([id])), [id]);
  }
}

testTextFile(
  "loadTokenizer() of a meta.json",
  JSON_LETTERS,
  fixture("labcore/learned/meta.json"),
  openVocabulary,
);
testTextFile(
  "loadTokenizer() of LabCore's form",
  JSON_LETTERS,
  fixture("labcore/learned/tokenizer.json"),
  openVocabulary,
);
for (const kind of ["byte-bpe", "unigram", "wordpiece", "metaspace"]) {
  testTextFile(
    `loadTokenizer() of Hugging Face's form, ${kind}`,
    JSON_LETTERS,
    fixture(`tokenizers/${kind}/tokenizer.json`),
    async (path) => {
      const tokenizer = await loadTokenizer(path);
      const ids = tokenizer.encode("Hello, wörld 123");
      assert.ok(ids.every((id) => Number.isInteger(id) && id >= 0));
      tokenizer.decode(ids);
    },
  );
}

Deno.test("openCheckpoint() decodes or rejects every mutant of a shard index", () =>
  inTempFolder(async (folder) => {
    const one = { dtype: "F32", shape: [1], data: Float32Array.of(1) };
    await writeSafetensors(`${folder}/m-1.safetensors`, { a: one, b: one });
    await writeSafetensors(`${folder}/m-2.safetensors`, { c: one });
    const text = JSON.stringify({
      metadata: { total_size: 12 },
      weight_map: { a: "m-1.safetensors", b: "m-1.safetensors", c: "m-2.safetensors" },
    });
    const file = new TextEncoder().encode(text);
    const path = `${folder}/model.safetensors.index.json`;
    await testMutants(
      file,
      (draw) => mutate(file, draw, file.length, JSON_LETTERS),
      async (bytes) => {
        await Deno.writeFile(path, bytes);
        using checkpoint = await openCheckpoint(folder);
        assert.deepEqual(
          checkpoint.tensors().map(({ name }) => name),
          ["a", "b", "c"],
        );
      },
    );
  }));
