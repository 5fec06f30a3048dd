import assert from "node:assert/strict";
import { runCli } from "../cli/run.ts";
import { run, succeeds } from "../process.ts";
import { fixture } from "../testing.ts";

/** Mounts a file system of 8 KiB; null if this process may not. */
async function mountTiny(): Promise<string | null> {
  const folder = await Deno.makeTempDir();
  if (await succeeds("mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", folder)) return folder;
  await Deno.remove(folder);
  return null;
}

const tiny = Deno.build.os === "linux" ? await mountTiny() : null;
if (!tiny) console.warn("SKIPPED: a full disk, since no file system can be mounted here");

Deno.test({
  name: "bench on a full disk exits 1 with one sentence, and keeps the old report",
  ignore: !tiny,
  async fn() {
    try {
      const report = `${tiny}/report.json`;
      await Deno.writeTextFile(report, "{}");
      await Deno.writeFile(`${tiny}/filler`, new Uint8Array(4096));
      const { code, stderr } = await runCli([
        ...[fixture("labcore/learned"), "--gen-tokens", "4", "--iters", "1"],
        ...["--warmup-tokens", "0", "--prompt", "ROMEO:", "--json-out", report],
      ]);
      assert.equal(code, 1, stderr);
      assert.match(stderr, /error: Cannot write .*report\.json.*/);
      assert.equal(await Deno.readTextFile(report), "{}");
      assert.deepEqual([...Deno.readDirSync(tiny!)].map((e) => e.name).sort(), [
        "filler",
        "report.json",
      ]);
    } finally {
      await run("umount", [tiny!]);
      await Deno.remove(tiny!);
    }
  },
});
