/**
 * Line editor of `generate --chat` on a terminal: arrows, history, bracketed paste, by
 * `node:readline`.
 *
 *     stdin, raw ──▶ pieces up to an end of line ──▶ readline ──▶ line
 *                    paste: ends of line become ␊                 ␊ become ends of line
 *
 * The terminal is raw only while a line is edited, so that Ctrl-C is a signal while the model
 * answers.
 *
 * @module
 */
import { createInterface } from "node:readline";
import { PassThrough, Writable } from "node:stream";
import type { History } from "./history.ts";
import { ask, columns } from "./terminal.ts";
import { runtime } from "../engine/host/runtime.ts";

/** Shown for an end of line within a pasted block. */
const NEWLINE = "␊";

/** What a line ended with: text, Ctrl-C, or the end of the input. */
export type Edited = { readonly line: string } | "interrupt" | "end";

/** Edits lines on the terminal. */
export class LineEditor {
  readonly #paste = new PasteFilter();
  readonly #decoder = new TextDecoder();
  /** Input after the last end of line. */
  #rest = "";

  constructor(readonly history: History) {}

  /**
   * Shows a prompt and edits one line.
   * @throws the signal's reason, if it is aborted.
   */
  async edit(prompt: string, signal?: AbortSignal): Promise<Edited> {
    let edited: Edited | undefined;
    const input = new PassThrough();
    const entries = this.history.entries.map((entry) => entry.replaceAll("\n", NEWLINE));
    const editor = createInterface({
      input,
      output: new TerminalOutput(),
      terminal: true,
      history: entries.reverse(), // the newest first
      historySize: Math.max(1, entries.length),
      prompt,
    });
    editor.on("line", (line) => edited ??= { line: line.replaceAll(NEWLINE, "\n") });
    editor.on("SIGINT", () => edited ??= "interrupt");
    editor.on("SIGTSTP", () => {}); // else readline would stop the process in raw mode
    editor.on("close", () => edited ??= "end");
    runtime.stdin.setRaw(true);
    ask("\x1b[?2004h"); // the terminal marks pasted blocks
    try {
      editor.prompt();
      while (edited === undefined) {
        const piece = await this.#nextPiece(signal);
        if (piece === null) edited = "end";
        // Trick: emitted, not written, so that readline has handled the keys when this returns. A
        // stream would deliver later, and a read begun meanwhile would take the next line's input.
        else input.emit("data", new TextEncoder().encode(piece));
      }
    } finally {
      ask("\x1b[?2004l");
      runtime.stdin.setRaw(false);
      editor.close();
    }
    if (edited === "interrupt") ask("^C\n");
    if (edited === "end") ask("\n");
    if (typeof edited === "object") this.history.add(edited.line);
    return edited;
  }

  /** Keys up to the next end of line; null at the end of the input. */
  async #nextPiece(signal?: AbortSignal): Promise<string | null> {
    while (!this.#rest) {
      const bytes = new Uint8Array(4096);
      const count = await aborting(runtime.stdin.read(bytes), signal);
      if (count === null) return null;
      this.#rest = this.#paste.push(
        this.#decoder.decode(bytes.subarray(0, count), { stream: true }),
      );
    }
    const end = this.#rest.search(/[\r\n]/) + 1 || this.#rest.length;
    const piece = this.#rest.slice(0, end);
    this.#rest = this.#rest.slice(end);
    return piece;
  }
}

/** Where readline draws. */
class TerminalOutput extends Writable {
  constructor() {
    super({
      decodeStrings: false,
      write: (text: string | Uint8Array, _encoding, done) => {
        ask(typeof text === "string" ? text : new TextDecoder().decode(text));
        done();
      },
    });
  }

  get columns(): number {
    return columns();
  }
}

/** `work`, or the signal's reason. */
async function aborting<T>(work: Promise<T>, signal?: AbortSignal): Promise<T> {
  signal?.throwIfAborted();
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal?.reason);
  signal?.addEventListener("abort", abort);
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

const [BEGIN, END] = ["\x1b[200~", "\x1b[201~"];

/** Turns each pasted block (xterm's bracketed paste) into keys of one line. */
export class PasteFilter {
  #isPasting = false;
  /** The beginning of a marker at the end of the last text. */
  #held = "";

  /** Keys for readline, from the terminal's input. */
  push(text: string): string {
    let input = this.#held + text;
    let keys = "";
    for (;;) {
      const marker = this.#isPasting ? END : BEGIN;
      const at = input.indexOf(marker);
      if (at < 0) break;
      keys += this.#keysOf(input.slice(0, at));
      input = input.slice(at + marker.length);
      this.#isPasting = !this.#isPasting;
    }
    // A lone ESC is a key and is not held, but within a block.
    // deno-lint-ignore no-control-regex -- the beginning of a marker
    const held = /\x1b(\[(2(0[01]?)?)?)?$/.exec(input)?.[0] ?? "";
    this.#held = held.length > 1 || this.#isPasting ? held : "";
    return keys + this.#keysOf(input.slice(0, input.length - this.#held.length));
  }

  #keysOf(text: string): string {
    if (!this.#isPasting) return text;
    // deno-lint-ignore no-control-regex -- control characters would act as keys
    return text.replace(/\r\n?|\n/g, NEWLINE).replace(/[\x00-\x08\x0b-\x1f\x7f]/g, "");
  }
}
