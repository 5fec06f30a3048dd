import assert from "node:assert/strict";
import {
  locateMember,
  readMember,
  readZip,
  type ZipMember,
} from "../../../../engine/checkpoint/torch/zip.ts";
import { CheckpointError } from "../../../../engine/errors.ts";
import { fixture } from "../../../testing.ts";
import {
  inMemory,
  latin1,
  type Member,
  zipBytes,
  type ZipOptions,
  zipPieces,
} from "../../../torch.ts";

const one: Member = { name: "a/one", data: latin1("first") };
const two: Member = { name: "a/two", data: latin1("the second") };

/** Opens an archive and reads the named members; default all. */
async function readAll(bytes: Uint8Array, names?: string[]): Promise<Record<string, string>> {
  const source = inMemory(bytes);
  const members = await readZip(source);
  const texts: Record<string, string> = {};
  for (const name of names ?? members.keys()) {
    texts[name] = new TextDecoder().decode(await readMember(source, members.get(name)!));
  }
  return texts;
}

/** Asserts that opening or reading throws a CheckpointError that names the file. */
async function refuses(bytes: Uint8Array, message: RegExp): Promise<void> {
  await assert.rejects(readAll(bytes), (error: Error) => {
    assert.ok(error instanceof CheckpointError, error.stack);
    assert.match(error.message, /^Cannot open "x\.pt": /);
    assert.match(error.message, message);
    return true;
  });
}

Deno.test("readZip() reads PyTorch's archives with and without checksums", async () => {
  for (const name of ["trainer2.pt", "no_crc.pt"]) {
    const source = inMemory(await Deno.readFile(fixture(`torch/${name}`)));
    const members = await readZip(source);
    const root = name.slice(0, -3);
    const order = await readMember(source, members.get(`${root}/byteorder`)!);
    assert.equal(new TextDecoder().decode(order), "little");
    const first = members.get(`${root}/data.pkl`)!;
    assert.equal(await locateMember(source, first), 64, "PyTorch puts bytes on multiples of 64");
    assert.equal(first.crc32 === 0, name === "no_crc.pt");
  }
});

Deno.test("readZip() reads zip64 numbers, comments and any name", async () => {
  const expected = { "a/one": "first", "a/two": "the second", "größe/__proto__": "" };
  const members = [one, two, { name: "größe/__proto__", data: new Uint8Array() }];
  const forms: ZipOptions[] = [{}, { zip64: true }, { comment: "made by hand" }];
  for (const options of forms) {
    assert.deepEqual(await readAll(zipBytes(members, options)), expected);
  }
  assert.deepEqual(await readAll(zipBytes([])).then(Object.keys), []);
});

Deno.test("readZip() finds members beyond 4 GiB and reads only the directory", async () => {
  const far = 2 ** 32 + 5;
  const file = zipPieces([{ name: "a/big", data: far }, { ...one, crc32: 0 }, two]);
  const reads: { offset: number; length: number }[] = [];
  const source = inMemory(file, reads);
  const members = await readZip(source);
  assert.equal(members.get("a/big")?.size, far);
  assert.ok(members.get("a/one")!.header > far);
  assert.ok(reads.every(({ offset }) => offset > far - 2 ** 16), "only the end is read");
  assert.equal(
    new TextDecoder().decode(await readMember(source, members.get("a/two")!)),
    "the second",
  );
});

Deno.test("readZip() refuses a file that is cut off anywhere", async () => {
  for (const options of [{}, { zip64: true }]) {
    const whole = zipBytes([one, two], options);
    for (let n = 0; n < whole.length; n++) await refuses(whole.subarray(0, n), /cut off|directory/);
  }
});

Deno.test("readZip() refuses numbers that exceed the file or contradict each other", async () => {
  const huge = 2 ** 53 - 1;
  const cases: [Member[], ZipOptions, RegExp][] = [
    [[{ ...one, size: 10_000 }], {}, /"a\/one" to end before/],
    [[{ ...one, size: huge }], { zip64: true }, /to end before/],
    [[{ ...one, header: huge }, two], { zip64: true }, /to end before/],
    [[one, { ...two, header: 0 }], {}, /to end before byte 0/],
    [[{ ...one, size: 60 }, two], {}, /to fill the space|to end before/],
    [[one, { ...two, name: "a/one" }], {}, /"a\/one" twice/],
    [[one], { end: { count: 2 } }, /large enough for 2 members|2 members/],
    [[one], { end: { count: 60_000 } }, /large enough for 60000 members/],
    [[one], { zip64: true, end: { count: 2 ** 50 } }, /large enough for/],
    [[one, two], { end: { count: 1 } }, /1 members in the directory, got 2/],
    [[one], { end: { size: 5 } }, /a directory that ends/],
    [[one], { end: { begin: 3 } }, /a directory that ends/],
    [[one], { zip64: true, end: { begin: huge } }, /a directory that ends/],
    [[{ ...one, headerName: "a/two" }], {}, /the header of "a\/one"/],
    [[{ ...one, headerName: "a/longer" }], {}, /to fill the space|the header of/],
    [[{ ...one, header: 1 }, two], {}, /the header of|to fill the space/],
    [
      [{ ...one, method: 8 }],
      {},
      /"a\/one" stored as torch.save does, got it compressed \(method 8\)/,
    ],
    [[{ ...one, flags: 1 }], {}, /encrypted/],
    [[{ ...one, crc32: 7 }], {}, /"a\/one" is damaged/],
  ];
  for (const [members, options, message] of cases) {
    await refuses(zipBytes(members, options), message);
  }
});

Deno.test("readZip() refuses split archives, damaged records and names", async () => {
  const bytes = zipBytes([one], { zip64: true });
  const change = (at: number, value: number) => {
    const changed = bytes.slice();
    changed[at < 0 ? changed.length + at : at] = value;
    return changed;
  };
  await refuses(change(-18, 1), /an archive in one file/);
  await refuses(change(-22, 0), /cut off/);
  await refuses(change(-42 + 8, 255), /cut off/); // offset of the zip64 end record
  await refuses(change(-42 + 15, 255), /cut off/);
  await refuses(change(-42 - 56, 0), /cut off/); // the zip64 end record
  const entry = bytes.length - 22 - 20 - 56 - 28 - 5 - 46;
  await refuses(change(entry, 0), /an entry of the directory/);
  await refuses(change(entry + 46, 0xff), /a name in UTF-8/);
  await refuses(change(entry + 46 + 5 + 2, 23), /whole extra fields|zip64 numbers/);
  await refuses(change(entry + 46 + 5, 2), /the zip64 numbers/);
  await refuses(change(entry + 28, 200), /a whole entry/);
});

Deno.test("locateMember() refuses a header that would shift the data", async () => {
  const bytes = zipBytes([one, two]);
  const member: ZipMember = (await readZip(inMemory(bytes))).get("a/one")!;
  assert.equal(await locateMember(inMemory(bytes), member), 64);
  for (let length = 0; length < 256; length++) {
    if (length === bytes[28]) continue;
    const changed = bytes.slice();
    changed[28] = length; // length of the extra field
    await assert.rejects(locateMember(inMemory(changed), member), CheckpointError, `${length}`);
  }
});
