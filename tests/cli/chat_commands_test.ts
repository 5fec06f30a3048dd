/** Commands of `generate --chat`, its line editor, and its history. */
import assert from "node:assert/strict";
import { PasteFilter } from "../../cli/line_editor.ts";
import { withChatModel } from "../chat_model.ts";
import { hasTerminal, runOnTerminal, type Step } from "./on_terminal.ts";
import { DENO_DIR, runCli } from "./run.ts";

const FLAGS = ["--chat", "--device", "js", "--temperature", "0", "--max-tokens", "4"];
const argumentsOf = (folder: string) => ["generate", folder, ...FLAGS];
/** The editor's prompt, empty: with text before the cursor, keys are still under way. */
// deno-lint-ignore no-control-regex -- what places the cursor
const PROMPT = /> \x1b\[3G$/;

const edit = (folder: string, steps: readonly Step[], env: Record<string, string> = {}) =>
  runOnTerminal(
    argumentsOf(folder),
    [["", PROMPT], ...steps],
    { TERM: "xterm", DENO_DIR, XDG_CACHE_HOME: `${folder}/cache`, ...env },
  );

const historyOf = (folder: string) =>
  Deno.readTextFileSync(`${folder}/cache/wgslm/chat_history`).trim().split("\n")
    .map((line) => JSON.parse(line) as string);

Deno.test("generate --chat refuses an unknown command, and never shows it to the model", () =>
  withChatModel(async (folder) => {
    const plain = await runCli(argumentsOf(folder), { input: "Hi\nyes\n" });
    const { code, stdout, stderr } = await runCli(argumentsOf(folder), {
      input: "Hi\n/frobnicate now\n/Help\nyes\n",
    });
    assert.deepEqual([code, stdout], [0, plain.stdout]);
    assert.match(stderr, /^note: there is no command \/frobnicate; \/help lists them.*$/m);
    assert.match(stderr, /^note: there is no command \/Help; .*$/m);
    // A path is text.
    const path = await runCli(argumentsOf(folder), { input: "/usr/bin\n" });
    assert.equal(path.stdout.split("\n").length, 2);
  }));

Deno.test("generate --chat has commands to clear, save, load, draw again and count", () =>
  withChatModel(async (folder) => {
    const file = `${folder}/saved.json`;
    const [first, second] = (await runCli(argumentsOf(folder), { input: "Hi\nyes\n" })).stdout
      .split("\n");
    const saved = await runCli(argumentsOf(folder), {
      input:
        `/help\nHi\n/stats\n/save ${file}\n/regen\n/clear\n/regen\nHi\n/load ${file}\nyes\n/exit\nno\n`,
    });
    assert.equal(saved.code, 0);
    // Greedy: drawn again, and after /clear, the answers are the same.
    assert.deepEqual(saved.stdout.split("\n"), [first, first, first, second, ""]);
    for (const name of ["help", "clear", "system", "save", "load", "regen", "stats", "exit"]) {
      assert.match(saved.stderr, new RegExp(`^  /${name}\\b.*  \\w`, "m"));
    }
    assert.match(saved.stderr, /^1 answer; last answer 4 tokens, .* tok\/s; context \d+ of 128/m);
    assert.match(saved.stderr, /^wrote 2 messages to .*saved\.json$/m);
    assert.match(saved.stderr, /^note: there is no answer to draw again$/m);
    assert.match(saved.stderr, /^loaded 2 messages$/m);
    assert.deepEqual(JSON.parse(await Deno.readTextFile(file)), {
      messages: [{ role: "user", content: "Hi" }, { role: "assistant", content: first }],
    });
  }));

Deno.test("generate --chat sets the system message, as --system does", () =>
  withChatModel(async (folder) => {
    const input = "Hi\n";
    const asked = await runCli([...argumentsOf(folder), "--system", "Be brief."], { input });
    const set = await runCli(argumentsOf(folder), { input: `/system Be brief.\n${input}` });
    assert.equal(set.stdout, asked.stdout);
    const none = await runCli(argumentsOf(folder), { input });
    assert.notEqual(none.stdout, asked.stdout);
    const removed = await runCli([...argumentsOf(folder), "--system", "Be brief."], {
      input: `/system\n${input}`,
    });
    assert.equal(removed.stdout, none.stdout);
  }));

Deno.test("generate --chat goes on after a command that fails", () =>
  withChatModel(async (folder) => {
    await Deno.writeTextFile(`${folder}/bad.json`, '{"messages": [{"role": 1}]}');
    const { code, stdout, stderr } = await runCli(argumentsOf(folder), {
      input:
        `/load ${folder}/none\n/load ${folder}/bad.json\n/save\n/save ${folder}\n/clear x\nHi\n`,
    });
    assert.equal(code, 0);
    assert.equal(stdout.split("\n").length, 2);
    const notes = stderr.split("\n").filter((line) => line.startsWith("note: "));
    assert.match(notes[0], /^note: Cannot load ".*none": No such file/);
    assert.match(notes[1], /^note: Cannot load ".*bad\.json": expected \{ "messages": /);
    assert.match(notes[2], /^note: \/save needs a file$/);
    assert.match(notes[3], /^note: Cannot write ".*": it is a folder$/);
    assert.match(notes[4], /^note: \/clear takes no argument$/);
  }));

Deno.test("the editor moves by arrows, finds earlier lines, and keeps them for the next run", {
  ignore: !hasTerminal,
}, () =>
  withChatModel(async (folder) => {
    const first = await edit(folder, [
      ["H\x1b[Di\x1b[D\x1b[3~J\r", PROMPT], // H, iH by the left arrow, H by Delete, JH
      ["\x04", /\n/],
    ]);
    assert.equal(first.code, 0);
    assert.deepEqual(historyOf(folder), ["JH"]);
    const again = await edit(folder, [["\x1b[A!\r", PROMPT], ["/exit\r", /\n/]]);
    assert.equal(again.code, 0);
    assert.deepEqual(historyOf(folder), ["JH", "JH!", "/exit"]);
    assert.equal(Deno.statSync(`${folder}/cache/wgslm/chat_history`).mode! & 0o777, 0o600);
  }));

Deno.test(
  "a pasted block is one turn",
  { ignore: !hasTerminal },
  () =>
    withChatModel(async (folder) => {
      const { code, screen } = await edit(folder, [
        ["\x1b[200~one\r\ntwo\nthree\x1b[201~\r", PROMPT],
        [`/save ${folder}/saved.json\r`, /wrote 2 messages[^]*> \S\[3G$/],
        ["\x04", /\n/],
      ]);
      assert.equal(code, 0, screen);
      const { messages } = JSON.parse(await Deno.readTextFile(`${folder}/saved.json`));
      assert.equal(messages[0].content, "one\ntwo\nthree");
    }),
);

Deno.test("PasteFilter finds its markers however the input is cut", () => {
  const text = "a\x1b[200~b\nc\x03\x1b[201~\rd\x1b[A";
  for (let at = 0; at <= text.length; at++) {
    if (at === text.indexOf("\x1b") + 1) continue; // ESC alone is a key
    const filter = new PasteFilter();
    const keys = filter.push(text.slice(0, at)) + filter.push(text.slice(at));
    assert.equal(keys, "ab␊c\rd\x1b[A", `cut at ${at}`);
  }
});

Deno.test("Ctrl-C at the editor's prompt ends with 130, on a line of its own", {
  ignore: !hasTerminal,
}, () =>
  withChatModel(async (folder) => {
    const { code, screen } = await edit(folder, [["abc\x03", /\^C\r\n/]]);
    assert.equal(code, 130);
    assert.ok(screen.endsWith("\n"), JSON.stringify(screen));
    // And without a home there is no history, and no error.
    const homeless = await edit(folder, [["Hi\r", PROMPT], ["\x04", /\n/]], {
      HOME: "",
      XDG_CACHE_HOME: "",
    });
    assert.equal(homeless.code, 0, homeless.screen);
    assert.doesNotMatch(homeless.screen, /error|note: Cannot/);
  }));

Deno.test("Ctrl-C stops an answer of the editor's chat, and the prompt has a line of its own", {
  ignore: !hasTerminal,
}, () =>
  withChatModel(async (folder) => {
    const path = `${folder}/config.json`;
    const config = JSON.parse(await Deno.readTextFile(path));
    await Deno.writeTextFile(
      path,
      JSON.stringify({ ...config, max_position_embeddings: 100_000 }),
    );
    const args = [...argumentsOf(folder), "--max-tokens", "90000", "--context", "100000"];
    const { code, screen } = await runOnTerminal(
      args,
      [
        ["", PROMPT],
        ["Hi\r", /l\S.{3}/], // the answer has begun
        ["\x03", PROMPT],
        ["\x04", /\n/],
      ],
      { TERM: "xterm", DENO_DIR, XDG_CACHE_HOME: `${folder}/cache` },
    );
    assert.equal(code, 0, screen);
    // Tokens that were drawn before the signal may follow ^C, ends of lines among them.
    assert.match(screen, /\^C[^]*\r\n[^\n]*> /);
  }));
