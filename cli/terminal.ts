/**
 * Where the command line speaks: results on standard output, everything else on standard error.
 *
 * @module
 */
import { styleText } from "node:util";

const encoder = new TextEncoder();

/** Whether standard error is a terminal that wants colours and lines that change. */
export const fancy: boolean = Deno.stderr.isTerminal() && !env("NO_COLOR") &&
  env("TERM") !== "dumb";

/** Whether standard output is. */
const fancyOutput: boolean = Deno.stdout.isTerminal() && !env("NO_COLOR") && env("TERM") !== "dumb";

function env(name: string): string {
  try {
    return Deno.env.get(name) ?? "";
  } catch { // not permitted, which is no reason not to run
    return "";
  }
}

type Style = Parameters<typeof styleText>[0];

/** `text` in a style, where standard output shows it. */
export function styled(style: Style, text: string): string {
  return fancyOutput ? styleText(style, text, { validateStream: false }) : text;
}

/**
 * Writes to standard output, all of it.
 * @throws {Deno.errors.BrokenPipe} when nobody reads it any more.
 */
export function print(text: string): void {
  writeAllSync(Deno.stdout, encoder.encode(text));
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
      // A pipe that another program made non-blocking is full for now.
      if (!(error instanceof Deno.errors.WouldBlock)) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
    }
  }
}

/**
 * Whoever wants to know of an interrupt before it ends the command; says whether
 * that is all that it does.
 */
let interruptHandler: (() => boolean) | null = null;

/** Tells of an interrupt. Returns whether somebody took it for themselves. */
export function interruptTaken(): boolean {
  return interruptHandler?.() ?? false;
}

/** Sends interrupts to `handler` first, until the result is disposed of. */
export function takeInterrupts(handler: () => boolean): Disposable {
  interruptHandler = handler;
  return { [Symbol.dispose]: () => interruptHandler = null };
}

/** The line that changes in place, as it stands on the terminal; empty where there is none. */
let status = "";

/** Shows a line that the next one overwrites; only where `fancy`. */
export function showStatus(line: string): void {
  if (line === status) return;
  status = line;
  toStderr(`\r${line}\x1b[K`);
}

/** Takes the changing line off the terminal. */
export function clearStatus(): void {
  if (status) toStderr("\r\x1b[K");
  status = "";
}

/** A line on standard error. */
export function say(line: string): void {
  clearStatus();
  toStderr(`${line}\n`);
}

/** Text on standard error, without an end of line. */
export function ask(text: string): void {
  clearStatus();
  toStderr(text);
}

/** Something that the user should know. */
export function note(sentence: string): void {
  sayMarked("yellow", "note:", sentence);
}

/** What went wrong, on one line. */
export function sayError(sentence: string): void {
  sayMarked("red", "error:", sentence);
}

function sayMarked(style: Style, mark: string, sentence: string): void {
  const shown = fancy ? styleText(style, mark, { validateStream: false }) : mark;
  say(`${shown} ${oneLine(sentence)}`);
}

/**
 * Text that a stranger's file may have a part in, without what would break the
 * line or steer a terminal.
 */
export function oneLine(text: string): string {
  return text.replace(/[\s\p{Cc}]+/gu, (run) => /\p{Cc}/u.test(run) ? " " : run).trim();
}

/** Columns of the terminal. */
export function columns(): number {
  try {
    return Deno.consoleSize().columns || 80;
  } catch {
    return 80;
  }
}

function toStderr(text: string): void {
  try {
    writeAllSync(Deno.stderr, encoder.encode(text));
  } catch { // nobody listens; what matters is on standard output
  }
}
