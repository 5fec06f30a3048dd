/** Least permissions, an unset home, and files nested too deep: a run, or one sentence. */
import assert from "node:assert/strict";
import { withChatModel } from "../chat_model.ts";
import { HubServer } from "../hub_server.ts";
import { inTempFolder } from "../safetensors.ts";
import { fixture } from "../testing.ts";
import type { Output } from "../process.ts";
import { DENO_DIR, runCli } from "./run.ts";

const MODEL = fixture("labcore/learned");
const ONE_THREAD =
  /^note: runs on one thread: threads read their modules .* --allow-read=\S+\/kernels lets them$/m;
/** Mesa's drivers complain about an environment that they may not read. */
const withoutDrivers = (text: string) => text.replace(/^error: XDG_RUNTIME_DIR .*\n/gm, "");

function assertFails({ code, stdout, stderr }: Output, message: RegExp): void {
  assert.match(withoutDrivers(stderr), message);
  assert.match(withoutDrivers(stderr), /^(note: .*\n)*error: [^\n]+\n$/); // no stack
  assert.deepEqual([code, stdout], [1, ""]);
}

Deno.test("--allow-read=MODEL is enough on the CPU, on one thread with a note", async () => {
  const permissions = [`--allow-read=${MODEL}`];
  const write = ["generate", MODEL, "--prompt", "a", "--seed", "1", "--max-tokens", "8"];
  const whole = await runCli([...write, "--threads", "1"]);
  for (const threads of [[], ["--threads", "2"]]) {
    const least = await runCli([...write, ...threads, "--device", "wasm"], { permissions });
    assert.equal(least.code, 0, least.stderr);
    assert.equal(least.stdout, whole.stdout);
    if (threads.length) assert.match(least.stderr, ONE_THREAD);
  }
  const asked = await runCli([...write, "--threads", "1", "--device", "wasm"], { permissions });
  assert.equal(asked.stderr, "");

  const short = ["--iters", "1", "--gen-tokens", "2", "--device", "cpu", "--threads", "2"];
  const bench = await runCli(["bench", MODEL, ...short], { permissions });
  assert.equal(bench.code, 0, bench.stderr);
  assert.match(bench.stderr, ONE_THREAD);
  assert.equal((await runCli(["inspect", MODEL], { permissions })).code, 0);
  const kernels = await runCli(["kernels", MODEL, "--threads", "2"], { permissions });
  assert.equal(kernels.code, 0, kernels.stderr);

  const kernelsFolder = new URL("../../kernels", import.meta.url).pathname;
  const granted = [`--allow-read=${MODEL},${kernelsFolder}`];
  const both = await runCli([...write, "--threads", "2", "--device", "wasm"], {
    permissions: granted,
  });
  // A machine with one processor says so.
  const said = both.stderr.replace(/^note: 2 threads wait for 1 processor: .*\n/, "");
  assert.deepEqual([both.code, said, both.stdout], [0, "", whole.stdout]);
});

Deno.test("outputs and the hub need no more than docs/cli.md says", () =>
  inTempFolder(async (folder) => {
    const files = Object.fromEntries(
      ["config.json", "model.safetensors", "tokenizer.json"].map((name) => [
        name,
        Deno.readFileSync(`${MODEL}/${name}`),
      ]),
    );
    await using server = new HubServer({ "owner/name": { files } });
    const env = { HF_ENDPOINT: server.url, HF_HOME: folder, HF_TOKEN: "" };
    const cache = [`--allow-read=${folder}`, "--allow-env"];
    const hub = ["generate", "hf:owner/name", "--prompt", "a", "--max-tokens", "2"];
    const out = [`--allow-read=${MODEL},${folder}`, `--allow-write=${folder}`];
    const runs: [permissions: string[], args: string[]][] = [
      [[...cache, `--allow-write=${folder}`, "--allow-net"], hub],
      [cache, [...hub, "--offline"]],
      [out, ["inspect", MODEL, "--json-out", `${folder}/out/fits.json`]],
      [out, ["kernels", MODEL, "--dump", `${folder}/kernels`, "--device", "wasm"]],
      [[`--allow-read=${fixture("../../bench/demo")}`], ["generate", "--max-tokens", "2"]],
    ];
    for (const [permissions, args] of runs) {
      const { code, stderr } = await runCli(args, { permissions, env });
      assert.equal(code, 0, `${args.join(" ")}: ${stderr}`);
    }
  }));

Deno.test("devices runs without permissions, and says what it cannot know", async () => {
  const { code, stdout, stderr } = await runCli(["devices"], { permissions: [] });
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^ {2}memory +not known without --allow-sys=systemMemoryInfo$/m);
  assert.match(stdout, /^wasm: 1 thread$/m);
});

Deno.test("a denied permission ends a run with the flag that grants it, at once", () =>
  inTempFolder(async (folder) => {
    const read = `--allow-read=${MODEL}`;
    const toml = new URL("../../configs/base.toml", import.meta.url).pathname;
    const short = ["bench", MODEL, "--iters", "1", "--device", "js"];
    const cases: [permissions: string[], args: string[], flag: RegExp][] = [
      [[], ["inspect", MODEL], /--allow-read/],
      [[], ["inspect"], /--allow-read/],
      [[read], [...short, "--config", toml], /base\.toml.*--allow-read/],
      [[read], [...short, "--json-out", `${folder}/b.json`], /Cannot write .*--allow-read/],
      [
        [`${read},${folder}`],
        [...short, "--json-out", `${folder}/b.json`],
        /Cannot write .*--allow-write/,
      ],
      [[read], ["inspect", "hf:owner/name"], /--allow-env/],
      [["--allow-read", "--allow-env"], ["inspect", "hf:owner/name"], /--allow-net/],
    ];
    for (const [permissions, args, flag] of cases) {
      const env = { HF_TOKEN: "hf_token", HF_HOME: folder };
      const result = await runCli(args, { permissions, env });
      assertFails(result, flag);
      assert.doesNotMatch(result.stderr, /\d times|hf_token/); // not tried again
    }
  }));

Deno.test("ids run when the vocabulary above a nanoGPT folder may not be read", async () => {
  const folder = fixture("people/nanogpt/repo/out-harbour-bias");
  const permissions = [`--allow-read=${folder}`];
  const args = ["generate", folder, "--max-tokens", "2", "--device", "js"];
  const ids = await runCli([...args, "--ids", "1"], { permissions });
  assert.equal(ids.code, 0, ids.stderr);
  assert.match(ids.stdout, /^\d+,\d+\n$/);
  const text = await runCli([...args, "--prompt", "a"], { permissions });
  assertFails(text, /meta\.pkl.*--allow-read.*--meta FILE/);
  assert.equal((await runCli([...args, "--prompt", "a"])).code, 0);
});

Deno.test("without a home the hub's cache is asked for in a sentence, and local models run", () =>
  inTempFolder(async (folder) => {
    const bare = { PATH: Deno.env.get("PATH") ?? "", DENO_DIR };
    const write = ["generate", MODEL, "--prompt", "a", "--max-tokens", "2"];
    const local = await runCli(write, { env: bare, clearEnv: true });
    assert.equal(local.code, 0, local.stderr);
    const hub = ["inspect", "hf:owner/name", "--offline"];
    const none = await runCli(hub, { env: bare, clearEnv: true });
    assertFails(none, /expected a home folder, got none; set HF_HOME or HOME$/m);
    const named = await runCli(hub, { env: { ...bare, HF_HOME: folder }, clearEnv: true });
    assertFails(named, /is not in the cache at "\S+\/hub"/);
  }));

Deno.test("a file nested 100,000 deep is refused with its name, and no overflow", () =>
  withChatModel(async (folder) => {
    const nested = (open: string, close: string) => open.repeat(1e5) + "1" + close.repeat(1e5);
    const values = [nested("[", "]"), nested('{"a":', "}"), nested('{"\\n":', "}")];
    for (const name of ["config.json", "tokenizer.json", "tokenizer_config.json"]) {
      const path = `${folder}/${name}`;
      const sound = await Deno.readTextFile(path);
      for (const value of values) {
        await Deno.writeTextFile(path, `${sound.trimEnd().slice(0, -1)},"extra":${value}}`);
        const result = await runCli(["generate", folder, "--prompt", "a", "--device", "js"]);
        assertFails(result, new RegExp(`Cannot read ".*${name}".*more than 512 levels of nesting`));
      }
      await Deno.writeTextFile(path, sound);
    }
    const toml = `${folder}/c.toml`;
    const keys = Array(1e5).fill("a").join(".");
    for (
      const text of [`a = ${values[0]}`, `a = ${nested("{a=", "}")}`, `${keys} = 1`, `[${keys}]`]
    ) {
      await Deno.writeTextFile(toml, `${text}\n`);
      const result = await runCli(["generate", folder, "--prompt", "a", "--config", toml]);
      assertFails(result, /Cannot read ".*c\.toml": expected (TOML|at most 512 levels)/);
    }
  }));
