/** The line of the README that installs the command. */
import assert from "node:assert/strict";
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
    const { success, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [args[0], "--root", folder, "--cached-only", ...args.slice(1)],
      cwd: ROOT,
    }).output();
    assert.ok(success, new TextDecoder().decode(stderr));
    const env = { PATH: `${Deno.execPath().replace(/[^/]*$/, "")}:${Deno.env.get("PATH")}` };
    const run = async (...args: string[]) => {
      const command = new Deno.Command(`${folder}/bin/wgslm`, { args, cwd: folder, env });
      const { code, stdout } = await command.output();
      assert.equal(code, 0);
      return new TextDecoder().decode(stdout);
    };
    assert.equal(await run("--version"), `${VERSION}\n`);
    // The demo, its tokenizer and threads are found from there.
    const text = await run("generate", "--max-tokens", "20", "--seed", "1", "--threads", "2");
    assert.ok(text.length > 19, text);
  }));
