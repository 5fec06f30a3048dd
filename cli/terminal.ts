/**
 * Output of the command line: results on standard output, everything else on standard error.
 *
 * @module
 */
import { styleText } from "node:util";
import { runtime } from "../engine/host/runtime.ts";

const encoder = new TextEncoder();

/** Whether standard error is a terminal that can change a line in place. */
export const fancy: boolean = runtime.stderr.isTerminal() && env("TERM") !== "dumb";

/** Whether colours are wanted (https://no-color.org). */
const isColoured = !env("NO_COLOR") && env("TERM") !== "dumb";

/** Whether standard output is a terminal. */
const isOutputShown = runtime.stdout.isTerminal();

function env(name: string): string {
  try {
    return runtime.env.get(name) ?? "";
  } catch { // not permitted: as if it were not set
    return "";
  }
}

type Style = Parameters<typeof styleText>[0];

/** `text` in a style, if standard output shows styles. */
export function styled(style: Style, text: string): string {
  if (!isOutputShown || !isColoured) return text;
  return styleText(style, text, { validateStream: false });
}

/**
 * Writes to standard output, all of it.
 * @throws {Deno.errors.BrokenPipe} If its reader has closed it.
 */
export function print(text: string): void {
  writeAllSync(runtime.stdout, encoder.encode(text));
}

/** Prints a model's text: as it is into a pipe, with visible control characters on a terminal. */
export function printText(text: string): void {
  print(isOutputShown ? visible(text) : text);
}

/** Writes to a stream or a file until every byte is out. */
export function writeAllSync(
  to: { writeSync(bytes: Uint8Array): number },
  bytes: Uint8Array,
): void {
  for (let done = 0; done < bytes.length;) {
    try {
      done += to.writeSync(bytes.subarray(done));
    } catch (error) {
      // A pipe that another program made non-blocking is full: try again in 5 ms.
      if (!(error instanceof runtime.errors.WouldBlock)) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    }
  }
}

/** Handles an interrupt before the command does; returns false to let it end the command. */
let interruptHandler: (() => boolean) | null = null;

/** Offers an interrupt to the handler. Returns whether the handler took it. */
export function interruptTaken(): boolean {
  return interruptHandler?.() ?? false;
}

/** Sends interrupts to `handler` first, until the result is disposed of. */
export function takeInterrupts(handler: () => boolean): Disposable {
  interruptHandler = handler;
  return { [Symbol.dispose]: () => interruptHandler = null };
}

/** The line that changes in place, as it is on the terminal; empty if there is none. */
let status = "";

/** Shows a line that the next one overwrites; only if `fancy`. */
export function showStatus(line: string): void {
  const shown = visible(line);
  if (shown === status) return;
  toStderr(eraseLine(status, columns()) + shown);
  status = shown;
}

/** Takes the changing line off the terminal. */
export function clearStatus(): void {
  if (status) toStderr(eraseLine(status, columns()));
  status = "";
}

/**
 * The control sequence that erases a line. A terminal that became narrower has wrapped the line
 * over several rows; the cursor is in the last one.
 */
export function eraseLine(line: string, width: number): string {
  const rows = Math.ceil([...line].length / width);
  return rows > 1 ? `\r\x1b[${rows - 1}A\x1b[J` : "\r\x1b[J";
}

/** A line on standard error. */
export function say(line: string): void {
  clearStatus();
  toStderr(`${visible(line)}\n`);
}

/** Text on standard error, without an end of line. */
export function ask(text: string): void {
  clearStatus();
  toStderr(text);
}

/** Something that the user should know. */
export function note(sentence: string): void {
  sayLabelled("yellow", "note:", sentence);
}

/** Sentences of `noteOnce` so far. */
const noted = new Set<string>();

/** As `note`, but the same sentence only once: a sweep opens one model many times. */
export function noteOnce(sentence: string): void {
  if (noted.has(sentence)) return;
  noted.add(sentence);
  note(sentence);
}

/** An error, on one line. */
export function sayError(sentence: string): void {
  sayLabelled("red", "error:", sentence);
}

function sayLabelled(style: Style, label: string, sentence: string): void {
  const shown = fancy && isColoured ? styleText(style, label, { validateStream: false }) : label;
  clearStatus();
  toStderr(`${shown} ${visible(oneLine(sentence))}\n`);
}

/** Characters that steer a terminal or reverse its text: C0, DEL, C1, bidi overrides. */
const STEERING = /(?![\n\t])[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu;

/**
 * Text with its control characters made visible: ESC as ␛, CSI as <U+009B>. Ends of line and tabs
 * stay.
 */
export function visible(text: string): string {
  return text.replace(/\r\n/g, "\n").replace(STEERING, (character) => {
    const code = character.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    if (code === 0x7f) return "␡";
    return `<U+${code.toString(16).toUpperCase().padStart(4, "0")}>`;
  });
}

/** A name or a text from a file on one line: a space for each run of control characters. */
export function oneLine(text: string): string {
  const line = text.replace(/[\s\p{Cc}]+/gu, (run) => /\p{Cc}/u.test(run) ? " " : run);
  return visible(line).trim();
}

/** Columns of the terminal. */
export function columns(): number {
  try {
    return runtime.consoleSize().columns || 80;
  } catch {
    return 80;
  }
}

function toStderr(text: string): void {
  try {
    writeAllSync(runtime.stderr, encoder.encode(text));
  } catch { // closed: the results are on standard output
  }
}
