/** Checkpoints beyond 4 GiB, as sparse files: the parts that are not read are holes. */
import assert from "node:assert/strict";
import { openCheckpoint } from "../../../engine/checkpoint/checkpoint.ts";
import { bytesOf } from "../../../kernels/tensor.ts";
import { expectSeeks } from "../../bytes_read.ts";
import { frame, inTempFolder } from "../../safetensors.ts";
import { little, storage, tensor, text, torchMembers, zipPieces } from "../../torch.ts";

const GIB = 2 ** 30;

interface Piece {
  readonly at: number;
  readonly bytes: Uint8Array;
}

/** Writes a file of zeros, except for the pieces. */
async function writeSparse(path: string, size: number, pieces: readonly Piece[]): Promise<void> {
  using file = await Deno.open(path, { write: true, create: true, truncate: true });
  await file.truncate(size);
  for (const { at, bytes } of pieces) {
    await file.seek(at, Deno.SeekMode.Start);
    for (let done = 0; done < bytes.length;) done += await file.write(bytes.subarray(done));
  }
}

/** Whether the file system supports sparse files. */
async function supportsSparse(): Promise<boolean> {
  let holes = false;
  await inTempFolder(async (folder) => {
    await writeSparse(`${folder}/x`, 2 ** 24, []);
    const { blocks } = await Deno.stat(`${folder}/x`);
    holes = blocks !== null && blocks * 512 < 2 ** 20;
  });
  return holes;
}

const sparse = await supportsSparse();
if (!sparse) {
  console.warn("SKIPPED: files beyond 4 GiB: the file system has no sparse files");
}

function sparseTest(name: string, test: (folder: string) => Promise<void>): void {
  Deno.test({ name, ignore: !sparse, fn: () => inTempFolder(test) });
}

const VALUES = Float32Array.of(1.5, -2, 3e-3, 4e9, 5, -6);

/** A header for adjacent tensors of given bytes. A tensor as large as VALUES is F32, others U8. */
function headerOf(tensors: readonly (readonly [name: string, bytes: number])[]) {
  let end = 0;
  const entries = tensors.map(([name, bytes]) => {
    const data_offsets = [end, end += bytes];
    const small = bytes === VALUES.byteLength;
    return [name, { dtype: small ? "F32" : "U8", shape: [small ? 6 : bytes], data_offsets }];
  });
  // Padded with blanks to align the data to 8 bytes.
  const json = JSON.stringify(Object.fromEntries(entries));
  const head = frame(json.padEnd(Math.ceil(json.length / 8) * 8));
  return { head, size: head.length + end };
}

sparseTest(
  "openCheckpoint() reads a tensor beyond 4 GiB of a safetensors file",
  async (folder) => {
    const path = `${folder}/model.safetensors`;
    const big = 5 * GIB;
    const { head, size } = headerOf([["big", big], ["far", VALUES.byteLength], ["last", 8]]);
    const [sample, edge] = [Uint8Array.of(7, 8, 9), head.length + 4 * GIB - 1];
    await writeSparse(path, size, [
      { at: 0, bytes: head },
      { at: edge, bytes: sample },
      { at: head.length + big, bytes: bytesOf(VALUES) },
      { at: size - 1, bytes: Uint8Array.of(42) },
    ]);
    await expectSeeks(async () => {
      using checkpoint = await openCheckpoint(path);
      assert.deepEqual(checkpoint.tensors().map(({ name }) => name), ["big", "far", "last"]);
      assert.deepEqual(await checkpoint.read("far"), VALUES);
      assert.deepEqual([...await checkpoint.read("last")], [0, 0, 0, 0, 0, 0, 0, 42]);
      const around = new Uint8Array(5);
      await checkpoint.readBytes("big", 4 * GIB - 2, around);
      assert.deepEqual([...around], [0, 7, 8, 9, 0]);
      await assert.rejects(checkpoint.readBytes("big", big - 1, around), /expected a range of its/);
    });
  },
);

sparseTest(
  "openCheckpoint() reads a shard above 2 GiB and the next shard",
  async (folder) => {
    const names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    const first = headerOf([["a", 3 * GIB], ["b", VALUES.byteLength]]);
    const second = headerOf([["c", VALUES.byteLength]]);
    await writeSparse(`${folder}/${names[0]}`, first.size, [
      { at: 0, bytes: first.head },
      { at: first.size - VALUES.byteLength, bytes: bytesOf(VALUES) },
    ]);
    await writeSparse(`${folder}/${names[1]}`, second.size, [
      { at: 0, bytes: second.head },
      { at: second.head.length, bytes: bytesOf(VALUES.map((value) => -value)) },
    ]);
    await Deno.writeTextFile(
      `${folder}/model.safetensors.index.json`,
      JSON.stringify({ weight_map: { a: names[0], b: names[0], c: names[1] } }),
    );
    await expectSeeks(async () => {
      using checkpoint = await openCheckpoint(folder);
      assert.deepEqual(await checkpoint.read("b"), VALUES);
      assert.deepEqual(await checkpoint.read("c"), VALUES.map((value) => -value));
      const around = new Uint8Array(2);
      await checkpoint.readBytes("a", 2 * GIB - 1, around);
      assert.deepEqual([...around], [0, 0]);
    });
  },
);

/** Folder in the archive. Its length makes the padding larger than the zip64 field. */
const ROOT = "a-model-of-many-bytes";

/** A member's header with its sizes in a zip64 field, which replaces a part of the padding. */
function withLongSizes(header: Uint8Array, size: number): Uint8Array {
  const view = new DataView(header.buffer.slice(0));
  const [nameBytes, extraBytes] = [view.getUint16(26, true), view.getUint16(28, true)];
  const sizes = little(size, 8);
  const zip64 = `\x01\0${little(16, 2)}${sizes}${sizes}`;
  const rest = extraBytes - zip64.length - 4;
  assert.ok(rest >= 0, `room for zip64 numbers in ${extraBytes} bytes of padding`);
  const extra = `${zip64}FB${little(rest, 2)}${"Z".repeat(rest)}`;
  for (const field of [18, 22]) view.setUint32(field, 2 ** 32 - 1, true);
  const bytes = new Uint8Array(view.buffer);
  bytes.set(Uint8Array.from(extra, (c) => c.charCodeAt(0)), 30 + nameBytes);
  return bytes;
}

sparseTest(
  "openCheckpoint() reads a .pt above 4 GiB: storages and views beyond it",
  async (folder) => {
    const path = `${folder}/model.pt`;
    const count = 5 * GIB / 4; // F32 numbers of the first storage
    const [big, far] = [storage("0", "FloatStorage", count), storage("1", "FloatStorage", 6)];
    const members = torchMembers({
      model: {
        view: tensor(big, [2, 3], [3, 1], count - 6),
        transposed: tensor(big, [3, 2], [1, 3], count - 6),
        start: tensor(big, [2], [1]),
        far: tensor(far, [6], [1]),
      },
    }, { storages: { 0: 4 * count, 1: bytesOf(VALUES) }, root: ROOT });
    const { size, pieces } = zipPieces(members);
    const isHeader = ({ bytes }: Piece) =>
      text(bytes.subarray(0, 4)) === "PK\x03\x04" && text(bytes).includes(`${ROOT}/data/0`);
    const header = pieces.find(isHeader)!;
    const begin = header.at + header.bytes.length;
    await writeSparse(path, size, [
      ...pieces.filter((piece) => piece !== header),
      { at: header.at, bytes: withLongSizes(header.bytes, 4 * count) },
      { at: begin + 4 * (count - 6), bytes: bytesOf(VALUES) },
    ]);
    assert.ok(
      pieces.some(({ at, bytes }) => at > 4 * GIB && text(bytes).includes(`${ROOT}/data/1`)),
    );
    await expectSeeks(async () => {
      using checkpoint = await openCheckpoint(path);
      assert.deepEqual(await checkpoint.read("view"), VALUES);
      const [a, b, c, d, e, f] = VALUES;
      assert.deepEqual(await checkpoint.read("transposed"), Float32Array.of(a, d, b, e, c, f));
      assert.deepEqual(await checkpoint.read("start"), new Float32Array(2));
      assert.deepEqual(await checkpoint.read("far"), VALUES);
    });
  },
);
