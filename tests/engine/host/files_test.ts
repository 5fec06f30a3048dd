import assert from "node:assert/strict";
import { exists, openFile, readJsonObject } from "../../../engine/host/files.ts";
import { CheckpointError } from "../../../engine/errors.ts";
import { within } from "../../patience.ts";
import { succeeds } from "../../process.ts";
import { inTempFolder } from "../../safetensors.ts";
import { fixture } from "../../testing.ts";

const CONFIG = fixture("tiny/gpt2/config.json");

Deno.test("openFile() reads ranges in any order", async () => {
  await inTempFolder(async (folder) => {
    const path = `${folder}/file`;
    const bytes = Uint8Array.from({ length: 1000 }, (_, i) => i % 251);
    await Deno.writeFile(path, bytes);
    using source = await openFile(path);
    assert.equal(source.name, path);
    assert.equal(source.size, bytes.length);
    for (const [offset, count] of [[900, 100], [0, 1], [999, 1], [1000, 0], [10, 500], [0, 1000]]) {
      const into = new Uint8Array(count);
      await source.read(offset, into);
      assert.deepEqual(into, bytes.slice(offset, offset + count));
    }
    // Concurrent reads do not disturb each other's position.
    const [a, b] = [new Uint8Array(3), new Uint8Array(3)];
    await Promise.all([source.read(7, a), source.read(100, b)]);
    assert.deepEqual([...a, ...b], [7, 8, 9, 100, 101, 102]);
  });
});

Deno.test("ByteSource.read() reports how many bytes a short file has", async () => {
  await inTempFolder(async (folder) => {
    const path = `${folder}/file`;
    await Deno.writeFile(path, new Uint8Array(100));
    using source = await openFile(path);
    await assert.rejects(
      source.read(95, new Uint8Array(10)),
      new CheckpointError(`Cannot read "${path}": expected 10 bytes at 95, got 5`),
    );
    await Deno.truncate(path, 20); // as if it is rewritten while open
    await assert.rejects(
      source.read(50, new Uint8Array(1)),
      new CheckpointError(`Cannot read "${path}": expected 1 bytes at 50, got 0`),
    );
  });
});

Deno.test("openFile() refuses a missing file, a folder, a pipe or a device", async () => {
  await inTempFolder(async (folder) => {
    await assert.rejects(
      openFile(`${folder}/none`),
      new CheckpointError(`Cannot open "${folder}/none": there is no such file`),
    );
    const irregular = [folder];
    if (Deno.build.os !== "windows") {
      const pipe = `${folder}/pipe`;
      assert.ok(await succeeds("mkfifo", pipe));
      irregular.push(pipe, "/dev/zero");
    }
    for (const path of irregular) {
      await assert.rejects(
        within("an answer without a writer", () => openFile(path)),
        new CheckpointError(`Cannot open "${path}": expected a regular file`),
      );
    }
  });
});

Deno.test({
  name: "openFile() and exists() throw CheckpointError without permission",
  permissions: { read: false },
  fn: async () => {
    const refusal = { name: "CheckpointError", message: /^Cannot open ".*": .*read access/ };
    await assert.rejects(openFile(CONFIG), refusal);
    await assert.rejects(readJsonObject(CONFIG), refusal);
    // "There is no such file" would be misleading.
    await assert.rejects(exists(CONFIG), refusal);
  },
});

const mayReadAll = Deno.build.os === "windows" || Deno.uid() === 0;
if (mayReadAll) {
  console.warn("files_test.ts: SKIPPED, a file without permission: root may read all files");
}

Deno.test({
  name: "openFile() throws CheckpointError for an unreadable file",
  ignore: mayReadAll,
  fn: () =>
    inTempFolder(async (folder) => {
      const path = `${folder}/file`;
      await Deno.writeFile(path, new Uint8Array(1), { mode: 0o000 });
      await assert.rejects(openFile(path), {
        name: "CheckpointError",
        message: /^Cannot open ".*denied/,
      });
    }),
});

Deno.test("exists() is true for files and folders only", async () => {
  assert.ok(await exists(CONFIG));
  assert.ok(await exists(fixture("tiny")));
  assert.ok(!await exists(fixture("none")));
  assert.ok(!await exists(`${CONFIG}/below-a-file`));
});

Deno.test("readJsonObject() accepts a byte order mark and blanks", async () => {
  await inTempFolder(async (folder) => {
    const path = `${folder}/a.json`;
    for (const text of ['{"é": [1]}', '\ufeff{"é": [1]}', ' \n{"é": [1]}\n']) {
      await Deno.writeTextFile(path, text);
      assert.deepEqual(await readJsonObject(path), { é: [1] });
    }
  });
});

Deno.test("readJsonObject() refuses a file that is cut off anywhere", async () => {
  await inTempFolder(async (folder) => {
    const path = `${folder}/a.json`;
    const whole = new TextEncoder().encode('{"é": [1.5, null, {"b": "\\u00e9"}]}');
    for (let length = 0; length < whole.length; length++) {
      await Deno.writeFile(path, whole.slice(0, length));
      await assert.rejects(
        readJsonObject(path),
        { name: "CheckpointError", message: /^Cannot read ".*": expected JSON, got ./ },
        `${length} bytes`,
      );
    }
  });
});

Deno.test("readJsonObject() refuses any value but an object", async () => {
  await inTempFolder(async (folder) => {
    const path = `${folder}/a.json`;
    for (const text of ["[]", "null", "3", '"a"', "true", '[{"a": 1}]']) {
      await Deno.writeTextFile(path, text);
      await assert.rejects(
        readJsonObject(path),
        new CheckpointError(`Cannot read "${path}": expected a JSON object`),
      );
    }
    await Deno.writeFile(path, Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d));
    await assert.rejects(readJsonObject(path), {
      name: "CheckpointError",
      message: /expected JSON/,
    });
  });
});

Deno.test("readJsonObject() refuses a huge file before reading it", async () => {
  await inTempFolder(async (folder) => {
    const path = `${folder}/a.json`;
    await Deno.writeTextFile(path, "{}");
    await Deno.truncate(path, 3e9);
    await assert.rejects(
      readJsonObject(path),
      new CheckpointError(
        `Cannot read "${path}": expected at most 100000000 bytes of JSON, got 3000000000`,
      ),
    );
  });
});
