import assert from "node:assert/strict";
import { inTempFolder } from "../safetensors.ts";
import { fixture } from "../testing.ts";
import { runCli } from "./run.ts";

const MODEL = fixture("tiny/llama");

async function run(...args: string[]) {
  const { code, stdout, stderr } = await runCli(["kernels", ...args]);
  return { code, out: stdout, err: stderr };
}

Deno.test("kernels lists each kind with its variants, calls and size", async () => {
  const { code, out } = await run(MODEL, "--device", "wasm");
  assert.equal(code, 0);
  assert.match(out, /^ {2}kernel +code +variants +calls +size$/m);
  for (const op of ["embed", "norm", "matmul \\d+→\\d+", "writeKv", "attention", "sample"]) {
    assert.match(out, new RegExp(`^  ${op} +wat +\\d+ +\\d+ +[\\d.]+ (B|KiB)$`, "m"));
  }
  assert.match(out, /^ {2}program +wat +4 +4 /m);
});

Deno.test("kernels --dump writes one file per kernel, whole modules included", () =>
  inTempFolder(async (folder) => {
    const target = `${folder}/a/b`;
    const { code, err } = await run(MODEL, "--device", "wasm", "--dump", target);
    assert.equal(code, 0);
    const files = [...Deno.readDirSync(target)].map(({ name }) => name).sort();
    assert.match(err, new RegExp(`wrote ${files.length} files to `));
    assert.ok(files.every((name) => /^[a-zA-Z]+-\d+\.wat$/.test(name)), files.join());
    for (const name of files) {
      const [title, ...text] = (await Deno.readTextFile(`${target}/${name}`)).split("\n");
      assert.match(title, new RegExp(`^;; ${name.split("-")[0]}.*: \\d+ calls?, wasm, wgslm \\d`));
      const isProgram = name.startsWith("program");
      const operands = text.filter((line) => line.startsWith(";; operand "));
      assert.equal(operands.length === 0, isProgram, name);
      for (const line of operands) assert.match(line, /^;; operand \w+ \w+ \[[\d, ]+\], \w+$/);
      const first = isProgram ? /^\(module$/ : /^ {2}\(func \$0 /;
      assert.match(text[operands.length], first, name);
    }
    const programs = files.filter((name) => name.startsWith("program"));
    assert.equal(programs.length, 4);
  }));

Deno.test("kernels --op shows one operation, and lists the operations otherwise", () =>
  inTempFolder(async (folder) => {
    const { code, out } = await run(MODEL, "--device", "wasm", "--op", "norm", "--dump", folder);
    assert.equal(code, 0);
    assert.doesNotMatch(out, /matmul/);
    const files = [...Deno.readDirSync(folder)].map(({ name }) => name);
    assert.ok(files.length > 0 && files.every((name) => name.startsWith("norm-")));
    const unknown = await run(MODEL, "--op", "softmax");
    assert.equal(unknown.code, 2);
    assert.match(
      unknown.err,
      /^error: --op: expected one of embed .*sample program, got "softmax"/,
    );
    const absent = await run(MODEL, "--device", "wasm", "--op", "addPosition");
    assert.equal(absent.code, 1);
    assert.match(absent.err, /^error: Cannot show "addPosition": expected .*has: embed, norm, /m);
  }));

Deno.test("kernels fails in a sentence if no code is generated, or a file blocks the folder", () =>
  inTempFolder(async (folder) => {
    const js = await run(MODEL, "--device", "js");
    assert.equal(js.code, 1);
    assert.match(js.err, /^error: Cannot show kernels of "js": .*--device wasm or webgpu$/m);
    const path = `${folder}/file`;
    await Deno.writeTextFile(path, "mine");
    const blocked = await run(MODEL, "--device", "wasm", "--op", "norm", "--dump", path);
    assert.equal(blocked.code, 1);
    assert.match(blocked.err, /^error: Cannot write ".*file\/norm-1\.wat": /m);
    assert.equal(blocked.out, "");
    assert.equal(await Deno.readTextFile(path), "mine");
  }));
