/** The screen of a terminal: colours, the progress bar, resizing, a model's control characters. */
import assert from "node:assert/strict";
import { withChatModel } from "../chat_model.ts";
import { inTempFolder } from "../safetensors.ts";
import { fixture } from "../testing.ts";
import { hasTerminal, runOnTerminal } from "./on_terminal.ts";
import { runCli } from "./run.ts";

const here = { ignore: !hasTerminal };
const run = (args: string[], env: Record<string, string>) => runOnTerminal(args, [], env);

const BENCH = [
  fixture("labcore/learned"),
  "--iters",
  "1",
  "--warmup-tokens",
  "0",
  "--device",
  "js",
];
/** A bar that is full, and what clears it. */
const BAR = /\[#+\] \d+ of \d+ tokens/;

Deno.test(
  "NO_COLOR takes colours away, not the progress bar; a dumb terminal has neither",
  here,
  async () => {
    const args = [...BENCH, "--gen-tokens", "4", "--stream"];
    // deno-lint-ignore no-control-regex -- the colour of "note:"
    const colour = /\x1b\[33m/;
    const plain = await run(args, { TERM: "xterm", NO_COLOR: "1" });
    assert.match(plain.screen, BAR);
    assert.doesNotMatch(plain.screen, colour);
    const coloured = await run(args, { TERM: "xterm", NO_COLOR: "" });
    assert.match(coloured.screen, BAR);
    assert.match(coloured.screen, colour);
    const dumb = await run(args, { TERM: "dumb", NO_COLOR: "" });
    assert.doesNotMatch(dumb.screen, BAR);
    // deno-lint-ignore no-control-regex -- any control sequence
    assert.doesNotMatch(dumb.screen, /\x1b/);
  },
);

Deno.test("a terminal that became narrower keeps no row of the progress bar", here, async () => {
  // A key makes it narrower, once the bar is there.
  const resize = (words: string) =>
    `stty cols 100 -echo; (read key </dev/tty; stty cols 30 </dev/tty) & ${words}`;
  // deno-lint-ignore no-control-regex -- up the rows that the line takes now, then erase
  const erased = /\r\x1b\[([1-9])A\x1b\[J/;
  const { code, screen } = await runOnTerminal(
    [...BENCH, "--gen-tokens", "10000000"],
    [
      ["", /iteration 1 of 1 \[.*\] \d+ of 10000000 tokens/],
      ["\n", erased],
      // deno-lint-ignore no-control-regex -- takes the bar away
      ["\x03", /\x1b\[J/],
    ],
    { TERM: "xterm" },
    resize,
  );
  assert.equal(code, 130, screen);
  const first = erased.exec(screen);
  assert.ok(first, "the wrapped rows are erased");
  // The line before it was of up to 99 columns: at most 4 rows of 30.
  const line = screen.slice(0, first.index).split("\x1b[J").at(-1)!;
  assert.equal(Number(first[1]), Math.ceil(line.length / 30) - 1);
});

Deno.test(
  "generate shows a model's control characters on a terminal",
  here,
  () =>
    withChatModel(async (folder) => {
      const path = `${folder}/tokenizer.json`;
      const tokenizer = JSON.parse(await Deno.readTextFile(path));
      const vocab: [string, number][] = Object.entries(tokenizer.model.vocab);
      const steering = ["\x1b", "\x07", "\x9b", "\u202e", "\u2066"];
      tokenizer.model.vocab = Object.fromEntries(vocab.filter(([, id]) => id < 98));
      tokenizer.added_tokens.push(
        ...vocab.filter(([, id]) => id >= 98).map(([, id], i) => ({
          id,
          content: steering[i % 5] + String.fromCharCode(0x4e00 + i),
          special: false,
        })),
      );
      await Deno.writeTextFile(path, JSON.stringify(tokenizer));
      const args = ["generate", folder, "--prompt", "hi", "--max-tokens", "60", "--seed", "1"];
      const { code, screen } = await run([...args, "--device", "js"], { TERM: "dumb" });
      assert.equal(code, 0, screen);
      assert.doesNotMatch(screen.replaceAll("\r\n", ""), /[\p{Cc}\u202e\u2066]/u);
      for (const shown of ["␛", "␇", "<U+009B>", "<U+202E>", "<U+2066>"]) {
        assert.ok(screen.includes(shown), `${shown} in ${JSON.stringify(screen)}`);
      }
    }),
);

Deno.test("inspect shows the metadata of a file without its control characters", () =>
  inTempFolder(async (folder) => {
    await Deno.copyFile(`${fixture("tiny/llama")}/config.json`, `${folder}/config.json`);
    const bytes = await Deno.readFile(`${fixture("tiny/llama")}/model.safetensors`);
    const size = Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + size)));
    header.__metadata__ = { format: "pt", "who\u001b[2J": "\u202eme\u0007" };
    const text = new TextEncoder().encode(JSON.stringify(header));
    const file = new Uint8Array(8 + text.length + bytes.length - 8 - size);
    new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
    file.set(text, 8);
    file.set(bytes.subarray(8 + size), 8 + text.length);
    await Deno.writeFile(`${folder}/model.safetensors`, file);
    const { stdout: shown } = await runCli(["inspect", folder]);
    assert.match(shown, /^ {2}who \[2J +<U\+202E>me$/m);
    assert.doesNotMatch(shown.replaceAll("\n", ""), /[\p{Cc}\u202e]/u);
  }));
