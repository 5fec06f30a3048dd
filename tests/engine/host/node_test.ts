/** The runtime interface for Node, run on Deno's built-in modules, against Deno's own. */
import assert from "node:assert/strict";
import { nodeRuntime } from "../../../engine/host/node.ts";
import type { Runtime } from "../../../engine/host/runtime_api.ts";

const NODE = nodeRuntime();

/** Calls a function in a new folder, with each runtime; both results must be equal. */
function onBoth(name: string, act: (runtime: Runtime, folder: string) => unknown): void {
  Deno.test(`node.ts: ${name}`, async () => {
    const results: unknown[] = [];
    for (const runtime of [Deno, NODE]) {
      const folder = await Deno.makeTempDir({ prefix: "wgslm-" });
      try {
        results.push(await act(runtime, folder));
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    }
    assert.deepEqual(results[1], results[0]);
  });
}

/** Class of an error, and the system's number in its sentence. */
function refusal(runtime: Runtime, act: () => unknown): string[] {
  try {
    act();
  } catch (error) {
    assert.ok(error instanceof Error);
    const name = Object.entries(runtime.errors).find(([, type]) => error instanceof type)?.[0];
    return [name ?? "another", /\(os error \d+\)/.exec(error.message)?.[0] ?? error.message];
  }
  return ["none"];
}

onBoth("reads, writes and appends texts", async (runtime, folder) => {
  const path = `${folder}/a/b/text`;
  runtime.mkdirSync(`${folder}/a/b`, { recursive: true });
  runtime.writeTextFileSync(path, "one\n");
  runtime.writeTextFileSync(path, "two\n", { append: true, mode: 0o600 });
  await runtime.writeTextFile(`${path}2`, "three");
  await runtime.copyFile(path, `${path}3`);
  await runtime.symlink("text", `${path}4`, { type: "file" });
  await runtime.rename(`${path}2`, `${path}5`);
  await runtime.remove(`${path}3`);
  const names: string[] = [];
  for await (const { name } of runtime.readDir(`${folder}/a/b`)) names.push(name);
  return {
    names: names.sort(),
    texts: [runtime.readTextFileSync(path), await runtime.readTextFile(`${path}5`)],
    bytes: [...await runtime.readFile(path)],
    link: runtime.readLinkSync(`${path}4`),
    real: runtime.realPathSync(`${path}4`) === Deno.realPathSync(path),
    kinds: [
      runtime.statSync(path).isFile,
      runtime.statSync(folder).isDirectory,
      runtime.lstatSync(`${path}4`).isSymlink,
      (await runtime.stat(`${path}4`)).size,
    ],
  };
});

onBoth("reads and writes within an open file", async (runtime, folder) => {
  const path = `${folder}/file`;
  const bytes = new Uint8Array(4);
  using file = runtime.openSync(path, { read: true, write: true, createNew: true, mode: 0o640 });
  const written = file.writeSync(Uint8Array.of(1, 2, 3, 4, 5, 6));
  file.seekSync(1, runtime.SeekMode.Start);
  const read = [file.readSync(bytes), ...bytes, await file.read(bytes), file.readSync(bytes)];
  await file.write(Uint8Array.of(7));
  file.truncateSync(3);
  await file.seek(0, runtime.SeekMode.Start);
  file.syncDataSync();
  file.syncSync();
  read.push(await file.read(bytes), ...bytes);
  const { size, isFile, ino } = file.statSync();
  const same = ino === (await runtime.stat(path)).ino && ino === (await file.stat()).ino;
  await file.truncate();
  return { written, read, size, isFile, same, now: runtime.statSync(path).size };
});

onBoth("appends to an open file, and keeps what another has added", (runtime, folder) => {
  const path = `${folder}/lines`;
  using file = runtime.openSync(path, { read: true, append: true, create: true });
  file.lockSync(true);
  file.writeSync(Uint8Array.of(1));
  Deno.writeFileSync(path, Uint8Array.of(2), { append: true });
  file.writeSync(Uint8Array.of(3));
  return [...Deno.readFileSync(path)];
});

onBoth("throws the same errors", (runtime, folder) => {
  Deno.writeTextFileSync(`${folder}/file`, "text");
  const none = `${folder}/none`;
  return [
    () => runtime.statSync(none),
    () => runtime.openSync(none),
    () => runtime.readTextFileSync(folder),
    () => runtime.openSync(`${folder}/file`, { write: true, createNew: true }),
    () => runtime.statSync(`${folder}/file/below`),
    () => runtime.removeSync(none),
    () => runtime.renameSync(none, `${none}2`),
    () => runtime.readLinkSync(`${folder}/file`),
    () => runtime.mkdirSync(`${folder}/file/below`, { recursive: true }),
    () => runtime.mkdirSync(`${folder}/file`, { recursive: true }),
    () => runtime.mkdirSync("/proc/none/below", { recursive: true }),
    () => runtime.mkdirSync(folder, { recursive: true }),
  ].map((act) => refusal(runtime, act));
});

onBoth("rejects instead of throwing where a promise is expected", async (runtime, folder) => {
  const failed = runtime.open(`${folder}/none`);
  return await failed.then(() => "opened", (error) => error instanceof runtime.errors.NotFound);
});

Deno.test("node.ts: facts of the process are those of Deno", async () => {
  assert.equal(NODE.build.os, Deno.build.os);
  assert.equal(NODE.build.arch, Deno.build.arch);
  assert.equal(NODE.systemMemoryInfo().total, Deno.systemMemoryInfo().total);
  assert.equal(NODE.cwd(), Deno.cwd());
  assert.equal(NODE.stdout.isTerminal(), Deno.stdout.isTerminal());
  NODE.env.set("WGSLM_NODE_TEST", "set");
  assert.equal(Deno.env.get("WGSLM_NODE_TEST"), "set");
  assert.equal(NODE.env.get("WGSLM_NO_SUCH"), undefined);
  const program = new NODE.Command(Deno.execPath(), { args: ["eval", "console.log(1 + 1)"] });
  const { success, stdout } = await program.output();
  assert.deepEqual([success, new TextDecoder().decode(stdout)], [true, "2\n"]);
  assert.equal((await new NODE.Command("wgslm-no-such", { args: [] }).output()).success, false);
});
