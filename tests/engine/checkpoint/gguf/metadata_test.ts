/** GGUF's metadata: every type, in both byte orders, and every rule broken. */
import assert from "node:assert/strict";
import { readGguf } from "../../../../engine/checkpoint/gguf/mod.ts";
import { CheckpointError } from "../../../../engine/errors.ts";
import { ggufBytes, type GgufFile, type WrittenValue } from "../../../gguf.ts";
import { inMemory } from "../../../safetensors.ts";

const open = (file: GgufFile) => readGguf(inMemory(ggufBytes(file), "a.gguf"));

const VALUES: readonly (readonly [WrittenValue, unknown])[] = [
  [["u8", 255], 255],
  [["i8", -128], -128],
  [["u16", 65535], 65535],
  [["i16", -2], -2],
  [["u32", 2 ** 32 - 1], 2 ** 32 - 1],
  [["i32", -(2 ** 31)], -(2 ** 31)],
  [["f32", 1e-5], Math.fround(1e-5)],
  [["bool", 1], true],
  [["bool", 0], false],
  [["text", "Ġ t\u0000\ufeffé🙂"], "Ġ t\u0000\ufeffé🙂"],
  [["u64", 7], 7],
  [["u64", 2n ** 64n - 1n], 2n ** 64n - 1n],
  [["i64", -(2n ** 53n)], -(2n ** 53n)],
  [["i64", -3], -3],
  [["f64", 0.1], 0.1],
  [["list", "text", []], []],
  [["list", "text", ["\ufeffa", "", "🙂"]], ["\ufeffa", "", "🙂"]],
  [["list", "bool", [1, 0]], [true, false]],
  [["list", "u64", [2n ** 60n, 1]], [2n ** 60n, 1]],
  [["list", "f32", [0.5, -0.25]], [0.5, -0.25]],
  [["list", "list", [["list", "u8", [1, 2]], ["list", "text", ["x"]]]], [[1, 2], ["x"]]],
];

for (const isBig of [false, true]) {
  for (const version of [2, 3]) {
    Deno.test(`readGguf() reads metadata of every type, version ${version}, ${isBig ? "big" : "little"}-endian`, async () => {
      const pairs = VALUES.map(([value], i) => [`key.${i}`, value] as const);
      const { metadata } = await open({ pairs, version, isBig });
      assert.deepEqual(Object.entries(metadata), VALUES.map(([, value], i) => [`key.${i}`, value]));
    });
  }
}

Deno.test("readGguf() treats __proto__ as any other key and decodes an array once", async () => {
  const { metadata } = await open({
    pairs: [["__proto__", ["u8", 1]], ["list", ["list", "text", ["a"]]]],
  });
  assert.deepEqual(Object.entries(metadata), [["__proto__", 1], ["list", ["a"]]]);
  assert.equal(metadata.list, metadata.list);
});

Deno.test("a vocabulary of 256,000 texts is skipped at open and decoded when it is read", async () => {
  const tokens = Array.from({ length: 256_000 }, (_, i) => `token ${i}é`);
  const { metadata } = await open({
    pairs: [["tokens", ["list", "text", tokens]], ["n", ["u8", 1]]],
  });
  assert.equal(metadata.n, 1);
  assert.equal(typeof Object.getOwnPropertyDescriptor(metadata, "tokens")?.get, "function");
  assert.deepEqual(metadata.tokens, tokens);
});

Deno.test("an array of texts that are not UTF-8 is refused when it is read", async () => {
  const text = (...bytes: number[]) => [bytes.length, 0, 0, 0, 0, 0, 0, 0, ...bytes];
  const wrong = [[text(0xff)], [text(0xc3), text(0xa9)], [text(0x61), text(0xf0, 0x9f)]];
  for (const texts of wrong) {
    const count = [texts.length, 0, 0, 0, 0, 0, 0, 0];
    const raw = Uint8Array.of(8, 0, 0, 0, ...count, ...texts.flat());
    const { metadata } = await open({ pairs: [["tokens", ["raw", 9, raw]]] });
    assert.throws(() => metadata.tokens, {
      name: "CheckpointError",
      message: /^Cannot open "a\.gguf": expected "tokens"(\[1\])? to be UTF-8$/,
    });
  }
});

/** Bytes of a little-endian u64. */
const u64 = (value: bigint) => new Uint8Array(BigUint64Array.of(value).buffer);
const u32 = (value: number) => new Uint8Array(Uint32Array.of(value).buffer);
const list = (type: number, count: bigint, ...bytes: number[]) =>
  ["raw", 9, Uint8Array.of(...u32(type), ...u64(count), ...bytes)] as const;

/** An array in an array, `depth` times. */
function nested(depth: number): WrittenValue {
  const levels = Array.from({ length: depth - 1 }, () => [...u32(9), ...u64(1n)]).flat();
  return ["raw", 9, Uint8Array.of(...levels, ...u32(0), ...u64(0n))];
}

Deno.test("readGguf() refuses metadata that breaks a rule, in one sentence", async () => {
  const cases: [GgufFile, RegExp][] = [
    [{ pairs: [["a", ["u8", 1]], ["a", ["u8", 1]]] }, /every key once, got "a" twice/],
    [{ pairs: [["a", ["raw", 13, new Uint8Array(8)]]] }, /"a" to have a type from 0 to 12, got 13/],
    [{ pairs: [["a", ["raw", 7, Uint8Array.of(2)]]] }, /0 or 1 for "a" at byte \d+/],
    [{ pairs: [["a", list(7, 2n, 1, 3)]] }, /0 or 1 for "a"/],
    [{ pairs: [["a", list(13, 1n, 0)]] }, /"a" to have a type from 0 to 12, got 13/],
    [{ pairs: [["a", list(4, 2n ** 62n)]] }, /at most \d+ elements of "a" in the rest .* got 46/],
    [{ pairs: [["a", list(8, 2n ** 40n)]] }, /at most \d+ texts of "a"/],
    [{ pairs: [["a", list(8, 1n, ...u64(2n ** 63n))]] }, /at most \d+ bytes of "a"/],
    [{ pairs: [["a", list(9, 2n ** 40n)]] }, /at most \d+ arrays of "a"/],
    [{ pairs: [["a", nested(9)]] }, /at most 8 levels of arrays in "a"/],
    [{ pairs: [["a", ["raw", 8, u64(2n ** 64n - 1n)]]] }, /at most \d+ bytes of a/],
    [{ pairs: [["a", ["text", Uint8Array.of(0xc0)]]] }, /a at byte \d+ to be UTF-8/],
    [{ counts: { pairs: 2n ** 63n } }, /at most \d+ keys in the rest of the file, got 92/],
    [{ counts: { pairs: 1n }, pairs: [] }, /at most 0 keys/],
    [{ counts: { tensors: 2n ** 64n - 1n } }, /at most \d+ tensors in the rest of the file/],
    [
      { pairs: [["general.alignment", ["u32", 0]]] },
      /general\.alignment to be a power of two, got 0/,
    ],
    [{ pairs: [["general.alignment", ["u32", 24]]] }, /power of two, got 24/],
    [{ pairs: [["general.alignment", ["text", "32"]]] }, /power of two, got 32/],
  ];
  for (const [file, message] of cases) {
    await assert.rejects(open(file), (error) => {
      assert.ok(error instanceof CheckpointError, String((error as Error).stack));
      assert.match(error.message, /^Cannot open "a\.gguf": expected /);
      assert.match(error.message, message);
      return true;
    });
  }
  assert.deepEqual((await open({ pairs: [["a", nested(8)]] })).metadata.a, [[[[[[[[]]]]]]]]);
});
