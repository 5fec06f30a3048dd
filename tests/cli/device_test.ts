/** `--device` on a machine whose only adapter is software, as Mesa's. */
import assert from "node:assert/strict";
import { probeWebGpu } from "../../kernels/mod.ts";
import { fixture } from "../testing.ts";
import { runCli } from "./run.ts";

const adapter = await probeWebGpu();
const software = { ignore: adapter?.software !== true };
if (software.ignore) console.warn("SKIPPED: a software adapter, since there is none here");

const ONE = ["generate", fixture("labcore/learned"), "--prompt", "a", "--max-tokens", "2"];
const notesOf = (stderr: string) =>
  stderr.split("\n").filter((line) => /^(note|error): /.test(line) && !/XDG_RUNTIME/.test(line));

Deno.test(
  "--device cuda takes the CPU where the adapter is software, or fails under --strict",
  software,
  async () => {
    const verbose = await runCli([...ONE, "--device", "cuda", "--verbose"]);
    assert.equal(verbose.code, 0, verbose.stderr);
    assert.match(verbose.stderr, /^(wasm|js) on /m);
    const [note, ...rest] = notesOf(verbose.stderr);
    assert.equal(
      note,
      `note: falling back to the CPU: expected a GPU, got ${adapter!.description}; ` +
        "--device webgpu runs on it",
    );
    assert.deepEqual(rest, []);
    const strict = await runCli([...ONE, "--device", "cuda", "--strict"]);
    assert.deepEqual([strict.code, strict.stdout], [1, ""]);
    assert.match(
      notesOf(strict.stderr)[0],
      /^error: Cannot use --device cuda: expected a GPU, got /,
    );
  },
);

Deno.test(
  "--device webgpu runs on a software adapter, with a note that it is slow",
  software,
  async () => {
    const { code, stderr } = await runCli([...ONE, "--device", "webgpu", "--verbose"]);
    assert.equal(code, 0, stderr);
    assert.match(stderr, /^webgpu on .*in software/m);
    assert.deepEqual(notesOf(stderr), [
      `note: ${adapter!.description}, is slow: --device cpu is faster`,
    ]);
  },
);

Deno.test("--device auto never takes a software adapter, and says nothing", software, async () => {
  const { code, stderr } = await runCli([...ONE, "--verbose"]);
  assert.equal(code, 0, stderr);
  assert.match(stderr, /^(wasm|js) on /m);
  assert.deepEqual(notesOf(stderr), []);
});
