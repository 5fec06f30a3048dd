/**
 * Processes of tests: each is killed at a deadline, its outputs are read while it runs, and text on
 * them can be awaited.
 *
 * Its environment is the test's, without the variables of the hub: a cache or a token of the user
 * must not decide a test.
 *
 * @module
 */
import { AssertionError } from "node:assert";
import { overdue, PATIENCE_MS } from "./patience.ts";

/** What a process has written, and how it has ended. */
export interface Output {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ProcessOptions {
  /** Standard input; without it, /dev/null. "open" leaves it to `write()` and `closeInput()`. */
  readonly input?: string | Uint8Array | "open";
  readonly cwd?: string | URL;
  readonly env?: Readonly<Record<string, string>>;
  /** Whether `env` is the whole environment. */
  readonly clearEnv?: boolean;
  /** Milliseconds until it is killed; default `PATIENCE_MS`. */
  readonly patience?: number;
}

type Stream = "stdout" | "stderr";

/** Servers of the tests, whose requests no proxy of the machine must get. */
const LOCAL = "127.0.0.1";

/** The environment of a process. */
function environment(env: Readonly<Record<string, string>>, isWhole: boolean) {
  const ours = Object.entries(isWhole ? {} : Deno.env.toObject())
    .filter(([name]) => !name.startsWith("HF_"));
  return { ...Object.fromEntries(ours), NO_COLOR: "1", NO_PROXY: LOCAL, no_proxy: LOCAL, ...env };
}

/** A running process. */
export class Process {
  readonly #child: Deno.ChildProcess;
  readonly #title: string;
  readonly #input?: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #shown = { stdout: "", stderr: "" };
  /** Ends of the texts that `shows()` has found. */
  readonly #found = { stdout: 0, stderr: 0 };
  readonly #status: Promise<Deno.CommandStatus>;
  #hasEnded = false;
  /** Resolves when a text has grown or the process has ended; then replaced. */
  #news = Promise.withResolvers<void>();

  constructor(command: string, args: readonly string[], options: ProcessOptions = {}) {
    const { input, cwd, env = {}, clearEnv = false, patience = PATIENCE_MS } = options;
    this.#title = [command.replace(/^.*\//, ""), ...args].join(" ");
    this.#child = new Deno.Command(command, {
      args: [...args],
      cwd,
      env: environment(env, clearEnv),
      clearEnv: true,
      stdin: input === undefined ? "null" : "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    if (input !== undefined) this.#input = this.#child.stdin.getWriter();
    if (input !== undefined && input !== "open") this.#feed(input);
    this.#status = this.#run(patience);
    this.#status.catch(() => {}); // thrown by the methods that wait for it
  }

  /**
   * Waits until new text on an output matches: a pattern with `$` sees every state of the text,
   * however it was cut into reads.
   *
   * @throws {AssertionError} If the process ends first, by itself or at its deadline.
   */
  async shows(stream: Stream, pattern: RegExp): Promise<void> {
    for (let end = this.#found[stream];;) {
      const text = this.#shown[stream];
      const from = this.#found[stream];
      while (end < text.length) {
        if (!pattern.test(text.slice(from, ++end))) continue;
        this.#found[stream] = end;
        return;
      }
      if (this.#hasEnded) {
        const how = await this.#status.then(({ code }) => `it ended with ${code}`, () => "no end");
        const message = `expected ${pattern} from ${this.#describe()}, got none; ${how}`;
        throw new AssertionError({ message });
      }
      await this.#news.promise;
    }
  }

  /** Writes to the standard input of a process with `input: "open"`. */
  async write(text: string): Promise<void> {
    // The process may have ended.
    await this.#input!.write(new TextEncoder().encode(text)).catch(() => {});
  }

  async closeInput(): Promise<void> {
    await this.#input!.close().catch(() => {});
  }

  /** Sends a signal; none to a process that has ended, whose status will tell. */
  kill(signal: Deno.Signal): void {
    try {
      this.#child.kill(signal);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
  }

  /**
   * Waits for the end.
   *
   * @throws {AssertionError} With what it has shown, if the deadline has killed it.
   */
  async output(): Promise<Output> {
    const { code } = await this.#status;
    return { code, ...this.#shown };
  }

  async #run(patience: number): Promise<Deno.CommandStatus> {
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      this.kill("SIGKILL");
      // Not awaited: a process of the process may hold the outputs.
      late.reject(overdue(`the end of ${this.#describe()}`, patience));
    }, patience);
    try {
      const all = [this.#child.status, this.#read("stdout"), this.#read("stderr")] as const;
      return (await Promise.race([Promise.all(all), late.promise]))[0];
    } finally {
      clearTimeout(timer);
      this.#hasEnded = true;
      this.#announce();
      if (this.#input) this.closeInput();
    }
  }

  async #read(stream: Stream): Promise<void> {
    for await (const text of this.#child[stream].pipeThrough(new TextDecoderStream())) {
      this.#shown[stream] += text;
      this.#announce();
    }
  }

  async #feed(input: string | Uint8Array): Promise<void> {
    if (typeof input === "string") await this.write(input);
    // The process may end before it has read everything.
    else await this.#input!.write(new Uint8Array(input)).catch(() => {});
    await this.closeInput();
  }

  #announce(): void {
    this.#news.resolve();
    this.#news = Promise.withResolvers();
  }

  #describe(): string {
    const shown = Object.entries(this.#shown).map(([stream, text]) =>
      `${stream} ${JSON.stringify(text.slice(-2000))}`
    );
    return `"${this.#title}" (${shown.join(", ")})`;
  }
}

/** Runs a command to its end. */
export function run(
  command: string,
  args: readonly string[],
  options?: ProcessOptions,
): Promise<Output> {
  return new Process(command, args, options).output();
}

/** Runs this Deno to its end. */
export function runDeno(args: readonly string[], options?: ProcessOptions): Promise<Output> {
  return run(Deno.execPath(), args, options);
}

/** Whether a command is here and succeeds. */
export async function succeeds(command: string, ...args: string[]): Promise<boolean> {
  try {
    return (await run(command, args)).code === 0;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Mounts a file system of so many KiB at a folder; false if this process may not. */
export async function mountTiny(folder: string, kib: number): Promise<boolean> {
  await Deno.mkdir(folder, { recursive: true });
  return await succeeds("mount", "-t", "tmpfs", "-o", `size=${kib}k`, "tmpfs", folder);
}
