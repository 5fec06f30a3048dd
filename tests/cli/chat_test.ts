/** `generate --chat` from the command line, from a pipe, and on a terminal. */
import assert from "node:assert/strict";
import { CHAT_TEMPLATE, withChatModel } from "../chat_model.ts";
import { fixture } from "../testing.ts";
import type { Output } from "../process.ts";
import { hasTerminal, runOnTerminal, type Step } from "./on_terminal.ts";
import { runCli } from "./run.ts";

function argumentsOf(folder: string, flags: readonly string[]): string[] {
  return ["generate", folder, "--chat", "--device", "js", "--temperature", "0", ...flags];
}

/** Runs `generate --chat` with this standard input. */
function chat(folder: string, input: string, ...flags: string[]): Promise<Output> {
  return runCli(argumentsOf(folder, flags), { input });
}

const SHORT = ["--max-tokens", "6"];
const CUT = "note: the answer was cut at 6 tokens; --max-tokens gives it more\n";

Deno.test("generate --chat answers every line of a pipe, and remembers earlier ones", () =>
  withChatModel(async (folder) => {
    const { code, stdout, stderr } = await chat(folder, "Hi\n\n  \nyes\r\nlast", ...SHORT);
    assert.equal(stderr, CUT);
    assert.equal(code, 0);
    const answers = stdout.split("\n");
    assert.equal(answers.length, 4);
    // The whole conversation as one prompt gives the same answer as the kept cache.
    const turns = ["Hi", answers[0], "yes", answers[1], "last"].map((content, i) =>
      `<|im_start|>${["user", "assistant"][i % 2]}\n${content}<|im_end|>\n`
    );
    const { stdout: anew } = await runCli([
      ...argumentsOf(folder, SHORT).filter((arg) => arg !== "--chat"),
      "--prompt",
      `${turns.join("")}<|im_start|>assistant\n`,
    ]);
    assert.equal(anew, `${answers[2]}\n`);
    const single = await chat(folder, "", ...SHORT, "--prompt", "Hi");
    assert.deepEqual(single, { code: 0, stdout: `${answers[0]}\n`, stderr: "" });
  }));

Deno.test("generate --chat ends at /exit, and refuses an input without lines", () =>
  withChatModel(async (folder) => {
    const { code, stdout } = await chat(folder, "Hi\n/exit\nyes\n", ...SHORT);
    assert.deepEqual([code, stdout.split("\n").length], [0, 2]);
    const nothing = await chat(folder, "\n");
    assert.equal(nothing.code, 2);
    assert.match(nothing.stderr, /^error: --chat needs a --prompt, or lines on standard input/);
  }));

Deno.test("generate --chat ends with a sentence when the context is full", () =>
  withChatModel(async (folder) => {
    const long = await chat(folder, `Hi\n${"x".repeat(200)}\nno\n`, ...SHORT);
    assert.deepEqual([long.code, long.stdout.split("\n").length], [1, 2]);
    assert.match(
      long.stderr,
      /^error: Cannot answer: the conversation takes 2\d\d tokens, and the context has 128$/m,
    );
    const { code, stderr } = await chat(folder, "Hi\nno\n", "--context", "32");
    assert.equal(code, 0);
    assert.equal(
      stderr,
      "note: the context of 32 tokens is full, so the conversation ends here\n",
    );
  }));

Deno.test("generate --chat sends a system message, and shows the error of a template", () =>
  withChatModel(
    async (folder) => {
      const { code, stdout, stderr } = await chat(folder, "Hi\n", "--system", "Be brief.");
      assert.deepEqual([code, stdout], [1, ""]);
      assert.match(
        stderr,
        /^error: Cannot apply the chat template of ".*tokenizer\.json": No Be brief\.$/m,
      );
      assert.equal((await chat(folder, "Hi\n", ...SHORT)).code, 0);
    },
    {
      chat_template:
        `{% if messages[0].role == 'system' %}{{ raise_exception('No ' + messages[0].content) }}{% endif %}${CHAT_TEMPLATE}`,
    },
  ));

Deno.test("generate --chat without a template fails before a line is read", async () => {
  const { code, stdout, stderr } = await chat(fixture("labcore/learned"), "Hi\n");
  assert.deepEqual([code, stdout], [1, ""]);
  assert.match(stderr, /^error: Cannot apply a chat template: a character vocabulary has none$/m);
});

const onTerminal = (folder: string, flags: readonly string[], steps: readonly Step[]) =>
  runOnTerminal(argumentsOf(folder, flags), steps, { TERM: "dumb" });

Deno.test({
  name: "generate --chat on a dumb terminal prompts for each turn, and ends with its input",
  ignore: !hasTerminal,
  fn: () =>
    withChatModel(async (folder) => {
      const { code, screen } = await onTerminal(folder, SHORT, [
        ["", /> $/],
        ["Hi\n", /\n> $/],
        ["\n", /> $/],
        ["yes\n", /\n> $/],
        ["\x04", /\n/],
      ]);
      assert.equal(code, 0);
      assert.equal(screen.match(/^> /gm)?.length, 4, JSON.stringify(screen));
    }),
});

Deno.test({
  name: "generate --chat on a dumb terminal ends an answer at an interrupt, itself at the next",
  ignore: !hasTerminal,
  fn: () =>
    withChatModel(async (folder) => {
      const path = `${folder}/config.json`;
      const config = JSON.parse(await Deno.readTextFile(path));
      const long = { ...config, max_position_embeddings: 100_000 };
      await Deno.writeTextFile(path, JSON.stringify(long));
      const flags = ["--max-tokens", "90000", "--context", "100000"];
      const { code, screen } = await onTerminal(folder, flags, [
        ["", /> $/],
        ["Hi\n", /\n.{3}/],
        ["\x03", /\n> $/],
        ["yes\n", /\n.{3}/],
        ["\x03", /\n> $/],
        ["\x03", /\^C/],
      ]);
      assert.equal(code, 130, screen);
    }),
});
