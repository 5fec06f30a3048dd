import assert from "node:assert/strict";
import { eraseLine, oneLine, visible } from "../../cli/terminal.ts";

Deno.test("oneLine() takes out what breaks a line or steers a terminal", () => {
  assert.equal(oneLine(" a \n b\t\x1b[2Jc  d\x9be\n"), "a b [2Jc  d e");
  assert.equal(oneLine("a\u202eb"), "a<U+202E>b");
});

Deno.test("oneLine() ends when a file has a million blanks in a row", () => {
  const text = `a${" ".repeat(1e6)}b`;
  assert.equal(oneLine(`${text}\n${text}`), `${text} ${text}`);
});

Deno.test("visible() shows control characters, and leaves lines, tabs and other scripts", () => {
  assert.equal(visible("a\tb\r\nc\n"), "a\tb\nc\n");
  assert.equal(visible("\x1b[2J\x07\x00\x7f\r"), "␛[2J␇␀␡␍");
  assert.equal(visible("\x9b\x85"), "<U+009B><U+0085>");
  const bidi = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069";
  assert.match(visible(bidi), /^(<U\+20[26][\dA-E]>){9}$/);
  const other = "שלום 👩‍👩‍👧 e\u0301 한";
  assert.equal(visible(other), other);
});

Deno.test("eraseLine() goes up the rows that a line takes at the new width", () => {
  assert.equal(eraseLine("", 80), "\r\x1b[J");
  assert.equal(eraseLine("x".repeat(80), 80), "\r\x1b[J");
  assert.equal(eraseLine("x".repeat(81), 80), "\r\x1b[1A\x1b[J");
  assert.equal(eraseLine("x".repeat(99), 30), "\r\x1b[3A\x1b[J");
});
