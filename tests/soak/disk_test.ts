import assert from "node:assert/strict";
import { runCli } from "../cli/run.ts";
import { mountTiny, run } from "../process.ts";
import { fixture } from "../testing.ts";

const folder = await Deno.makeTempDir();
const isTiny = Deno.build.os === "linux" && await mountTiny(folder, 8);
if (!isTiny) {
  console.warn("SKIPPED: a full disk, since no file system can be mounted here");
  await Deno.remove(folder);
}

Deno.test({
  name: "bench on a full disk exits 1 with one sentence, and keeps the old report",
  ignore: !isTiny,
  async fn() {
    try {
      const report = `${folder}/report.json`;
      await Deno.writeTextFile(report, "{}");
      await Deno.writeFile(`${folder}/filler`, new Uint8Array(4096));
      const { code, stderr } = await runCli([
        ...[fixture("labcore/learned"), "--gen-tokens", "4", "--iters", "1"],
        ...["--warmup-tokens", "0", "--prompt", "ROMEO:", "--json-out", report],
      ]);
      assert.equal(code, 1, stderr);
      assert.match(stderr, /error: Cannot write .*report\.json.*/);
      assert.equal(await Deno.readTextFile(report), "{}");
      assert.deepEqual([...Deno.readDirSync(folder)].map((e) => e.name).sort(), [
        "filler",
        "report.json",
      ]);
    } finally {
      await run("umount", [folder]);
      await Deno.remove(folder);
    }
  },
});
