import assert from "node:assert/strict";
import { openCheckpoint } from "../../../../engine/checkpoint/checkpoint.ts";
import { Checksums } from "../../../../engine/checkpoint/torch/checksums.ts";
import { locateMember, readZip } from "../../../../engine/checkpoint/torch/zip.ts";
import { crc32 } from "../../../../engine/host/crc32.ts";
import { loadModel } from "../../../../engine/load.ts";
import { inTempFolder } from "../../../safetensors.ts";
import { fixture } from "../../../testing.ts";
import { inMemory } from "../../../torch.ts";

const CHECKPOINT = fixture("people/nanogpt/beside/ckpt.pt");
const DAMAGED = { name: "CheckpointError", message: /to have the checksum .*the file is damaged/ };

/** Offsets of the storages in an archive. */
async function storagesOf(bytes: Uint8Array<ArrayBuffer>) {
  const source = inMemory(bytes);
  const members = [...(await readZip(source)).values()].filter(({ name }) => /\/data\//.test(name));
  return await Promise.all(members.map(async (member) => ({
    member,
    start: await locateMember(source, member),
  })));
}

Deno.test("loadModel() detects a flipped bit in any storage of the model", async () => {
  const whole = Deno.readFileSync(CHECKPOINT);
  const storages = (await storagesOf(whole)).sort((a, b) => b.member.size - a.member.size);
  await inTempFolder(async (folder) => {
    const path = `${folder}/ckpt.pt`;
    let found = 0;
    // The largest storages are weights; the optimizer's are as large, but never read.
    for (const { start, member } of storages.slice(0, 12)) {
      const damaged = whole.slice();
      damaged[start + Math.floor(member.size / 3)] ^= 4;
      Deno.writeFileSync(path, damaged);
      for (const dtype of ["F32", "BF16"] as const) {
        try {
          await using _model = await loadModel(path, { device: "js", dtype });
        } catch (error) {
          assert.equal((error as Error).name, "CheckpointError");
          assert.match((error as Error).message, DAMAGED.message);
          found++;
        }
      }
    }
    assert.ok(found >= 6 && found % 2 === 0, `${found}`);
  });
});

Deno.test("Checkpoint.read() verifies tensors and views with checksums", async () => {
  const damage = async (file: string, name: string) => {
    const bytes = Deno.readFileSync(fixture(`torch/${file}`));
    for (const { start, member } of await storagesOf(bytes)) {
      if (member.size) bytes[start + member.size - 1] ^= 1;
    }
    return await inTempFolder(async (folder) => {
      await Deno.writeFile(`${folder}/x.pt`, bytes);
      using checkpoint = await openCheckpoint(`${folder}/x.pt`);
      return await checkpoint.read(name);
    });
  };
  for (const name of ["base", "transposed", "permuted"]) {
    await assert.rejects(damage("views.pt", name), DAMAGED);
  }
  // A partial read cannot be verified.
  assert.equal((await damage("views.pt", "rows")).length, 12);
  assert.ok((await damage("no_crc.pt", "wte.weight")).length > 0);
});

Deno.test("Checksums.saw() verifies pieces of several storages", () => {
  const bytes = Uint8Array.from({ length: 100 }, (_, i) => 7 * i);
  const member = (name: string, size: number, sum: number) => ({
    name,
    size,
    crc32: sum,
    header: 0,
    limit: 1000,
  });
  const make = () => {
    const checksums = new Checksums(inMemory(new Uint8Array(1000)));
    checksums.add(100, member("a/data/0", 100, crc32(bytes)));
    checksums.add(300, member("a/data/1", 100, crc32(bytes) ^ 1));
    return checksums;
  };
  const checksums = make();
  checksums.saw(100, bytes.subarray(0, 1));
  checksums.saw(300, bytes.subarray(0, 99));
  checksums.saw(101, bytes.subarray(1, 60));
  checksums.saw(160, bytes.subarray(60));
  assert.throws(() => checksums.saw(399, bytes.subarray(99)), DAMAGED);
  // A gap ends a run; a read of the first byte begins a new one.
  checksums.saw(100, bytes.subarray(0, 50));
  checksums.saw(170, bytes.subarray(70));
  checksums.saw(100, bytes);
  const other = bytes.slice();
  other[3]++;
  assert.throws(() => checksums.saw(100, other), DAMAGED);
});
