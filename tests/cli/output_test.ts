import assert from "node:assert/strict";
import { OutputError, prepareOutput, sameFile } from "../../cli/output.ts";

async function inFolder(test: (folder: string) => void | Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await test(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const names = (folder: string) => [...Deno.readDirSync(folder)].map(({ name }) => name).sort();

Deno.test("an output creates its folders, and preparing it leaves no file", () =>
  inFolder((folder) => {
    const output = prepareOutput(`${folder}/a/b/out.json`);
    assert.deepEqual(names(`${folder}/a/b`), []);
    output.write("text\n");
    assert.deepEqual(names(`${folder}/a/b`), ["out.json"]);
    assert.equal(Deno.readTextFileSync(`${folder}/a/b/out.json`), "text\n");
  }));

Deno.test("an existing file is replaced and keeps its mode", {
  ignore: Deno.build.os === "windows",
}, () =>
  inFolder((folder) => {
    const path = `${folder}/out.md`;
    Deno.writeTextFileSync(path, "a longer text than the new one");
    Deno.chmodSync(path, 0o640);
    prepareOutput(path).write("new");
    assert.equal(Deno.readTextFileSync(path), "new");
    assert.equal(Deno.statSync(path).mode! & 0o777, 0o640);
  }));

Deno.test("a symbolic link stays a link, and its target is replaced, existing or not", {
  ignore: Deno.build.os === "windows",
}, () =>
  inFolder((folder) => {
    Deno.mkdirSync(`${folder}/real`);
    Deno.writeTextFileSync(`${folder}/real/old`, "old");
    Deno.symlinkSync("real/old", `${folder}/link`);
    Deno.symlinkSync("real/new", `${folder}/dangling`);
    Deno.symlinkSync("link", `${folder}/chain`);
    prepareOutput(`${folder}/chain`).write("one");
    prepareOutput(`${folder}/dangling`).write("two");
    assert.ok(Deno.lstatSync(`${folder}/link`).isSymlink);
    assert.ok(Deno.lstatSync(`${folder}/chain`).isSymlink);
    assert.ok(Deno.lstatSync(`${folder}/dangling`).isSymlink);
    assert.equal(Deno.readTextFileSync(`${folder}/real/old`), "one");
    assert.equal(Deno.readTextFileSync(`${folder}/real/new`), "two");
    assert.deepEqual(names(`${folder}/real`), ["new", "old"]);
    Deno.symlinkSync("loop", `${folder}/loop`);
    assert.throws(() => prepareOutput(`${folder}/loop`), OutputError);
  }));

Deno.test("a file name of the maximal length works", () =>
  inFolder((folder) => {
    const path = `${folder}/${"x".repeat(250)}.json`;
    prepareOutput(path).write("text");
    assert.equal(Deno.readTextFileSync(path), "text");
  }));

Deno.test("prepareOutput() refuses what cannot be written, in a sentence", () =>
  inFolder((folder) => {
    Deno.writeTextFileSync(`${folder}/file`, "");
    const sentence = (path: string) => new RegExp(`^Cannot write "${path}": `);
    for (const path of [folder, `${folder}/file/out.json`, `${folder}/file/deeper/out.json`]) {
      assert.throws(() => prepareOutput(path), { name: "OutputError", message: sentence(path) });
    }
    assert.deepEqual(names(folder), ["file"]);
  }));

Deno.test("a device is written to and not replaced", { ignore: Deno.build.os !== "linux" }, () => {
  prepareOutput("/dev/null").write("text");
  assert.ok(Deno.statSync("/dev/null").isCharDevice);
  const full = prepareOutput("/dev/full");
  assert.throws(() => full.write("text"), { name: "OutputError", message: /No space left/ });
  assert.ok(Deno.statSync("/dev/full").isCharDevice);
});

Deno.test("sameFile() recognises two paths to one file", () =>
  inFolder((folder) => {
    assert.ok(sameFile(`${folder}/a`, `${folder}/./a`));
    assert.ok(sameFile("not/there/a", "./not//there/./a"));
    assert.ok(!sameFile(`${folder}/a`, `${folder}/b`));
    if (Deno.build.os === "windows") return;
    Deno.symlinkSync("a", `${folder}/link`);
    assert.ok(sameFile(`${folder}/link`, `${folder}/a`));
    assert.ok(!sameFile("/dev/null", "/dev/null"));
  }));
