import assert from "node:assert/strict";
import { fixture } from "../testing.ts";

/** Mounts a file system of 8 KiB; null if this process may not. */
async function mountTiny(): Promise<string | null> {
  const folder = await Deno.makeTempDir();
  try {
    const mount = new Deno.Command("mount", {
      args: ["-t", "tmpfs", "-o", "size=8k", "tmpfs", folder],
      stderr: "null",
    });
    if ((await mount.output()).success) return folder;
  } catch {
    // no program `mount`
  }
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
      const cli = new URL("../../cli.ts", import.meta.url).pathname;
      const { code, stderr } = await new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", cli, fixture("labcore/learned"), "--gen-tokens", "4", "--iters", "1"]
          .concat("--warmup-tokens", "0", "--prompt", "ROMEO:", "--json-out", report),
      }).output();
      const text = new TextDecoder().decode(stderr);
      assert.equal(code, 1, text);
      assert.match(text, /error: Cannot write .*report\.json.*/);
      assert.equal(await Deno.readTextFile(report), "{}");
      assert.deepEqual([...Deno.readDirSync(tiny!)].map((e) => e.name).sort(), [
        "filler",
        "report.json",
      ]);
    } finally {
      await new Deno.Command("umount", { args: [tiny!] }).output();
      await Deno.remove(tiny!);
    }
  },
});
