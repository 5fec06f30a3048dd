import assert from "node:assert/strict";
import { oneLine } from "../../cli/terminal.ts";

Deno.test("oneLine() takes out what breaks a line or steers a terminal", () => {
  assert.equal(oneLine(" a \n b\t\x1b[2Jc  d\x9be\n"), "a b [2Jc  d e");
});

Deno.test("oneLine() ends when a file has a million blanks in a row", () => {
  const text = `a${" ".repeat(1e6)}b`;
  assert.equal(oneLine(`${text}\n${text}`), `${text} ${text}`);
});
