/** The line of the README that installs the command. */
import assert from "node:assert/strict";
import { run, runDeno } from "../process.ts";
import { inTempFolder } from "../safetensors.ts";
import { VERSION } from "../../engine/measure/report.ts";

const ROOT = new URL("../../", import.meta.url).pathname;

Deno.test("the README's install line gives a command that runs from any folder", {
  ignore: Deno.build.os === "windows",
}, () =>
  inTempFolder(async (folder) => {
    const readme = await Deno.readTextFile(`${ROOT}README.md`);
    const line = /^(deno install -g .*?)\s*(#.*)?$/m.exec(readme)?.[1].trim();
    assert.ok(line, "a line `deno install -g …`");
    const [, ...args] = line.split(/\s+/);
    // Into a folder of the test, from the packages that the tests have.
    const installed = await runDeno(
      [args[0], "--root", folder, "--cached-only", ...args.slice(1)],
      { cwd: ROOT },
    );
    assert.equal(installed.code, 0, installed.stderr);
    const env = { PATH: `${Deno.execPath().replace(/[^/]*$/, "")}:${Deno.env.get("PATH")}` };
    const wgslm = async (...args: string[]) => {
      const { code, stdout, stderr } = await run(`${folder}/bin/wgslm`, args, { cwd: folder, env });
      assert.equal(code, 0, stderr);
      return stdout;
    };
    assert.equal(await wgslm("--version"), `${VERSION}\n`);
    // The demo, its tokenizer and threads are found from there.
    const text = await wgslm("generate", "--max-tokens", "20", "--seed", "1", "--threads", "2");
    assert.ok(text.length > 19, text);
  }));
