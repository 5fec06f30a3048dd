/**
 * Runtime interface for Node and Bun, over their built-in modules.
 *
 * @module
 */
import { builtin } from "./builtin.ts";
import { asRuntimeError, mapped, NODE_ERRORS } from "./node_errors.ts";
import { nodeFiles } from "./node_files.ts";
import type { InputStream, OutputStream, Runtime } from "./runtime_api.ts";

/** Names of systems and processors in Deno. */
const NAMES: Readonly<Record<string, string>> = {
  win32: "windows",
  sunos: "solaris",
  x64: "x86_64",
  arm64: "aarch64",
};

/** Makes the runtime interface. */
export function nodeRuntime(): Runtime {
  const { process } = globalThis;
  const os = builtin("node:os")!;
  const [system, arch] = [process.platform, process.arch].map((name) => NAMES[name] ?? name);
  return {
    ...nodeFiles(),
    args: process.argv.slice(2),
    Command: NodeCommand,
    build: {
      os: system as Runtime["build"]["os"],
      arch: arch as Runtime["build"]["arch"],
      target: `${arch}-${system}`,
    },
    env: {
      get: (name) => process.env[name],
      set: (name, value) => void (process.env[name] = value),
    },
    errors: NODE_ERRORS,
    SeekMode: { Start: 0 },
    // Node's permissions are checked by each call.
    permissions: { querySync: () => ({ state: "granted" }) },
    stdin: nodeInput(),
    stdout: nodeOutput(1),
    stderr: nodeOutput(2),
    consoleSize: () => ({ columns: columns() }),
    systemMemoryInfo: () => ({ total: os.totalmem(), available: os.freemem() }),
    addSignalListener: (signal, handler) => void process.on(signal, handler),
    removeSignalListener: (signal, handler) => void process.off(signal, handler),
    exit: (status) => process.exit(status),
  };
}

function nodeOutput(descriptor: 1 | 2): OutputStream {
  const [fs, tty] = [builtin("node:fs")!, builtin("node:tty")!];
  return {
    // Not the streams of `process`: on a pipe they would make it non-blocking.
    writeSync: mapped((bytes: Uint8Array) => fs.writeSync(descriptor, bytes)),
    isTerminal: () => tty.isatty(descriptor),
  };
}

function nodeInput(): InputStream {
  const isTerminal = () => builtin("node:tty")!.isatty(0);
  return {
    read: readInput,
    get readable() {
      const source: UnderlyingDefaultSource<Uint8Array<ArrayBuffer>> = {
        async pull(controller) {
          const bytes = new Uint8Array(CHUNK_BYTES);
          const count = await readInput(bytes);
          if (count === null) controller.close();
          else controller.enqueue(bytes.subarray(0, count));
        },
      };
      return new ReadableStream(source, { highWaterMark: 0 });
    },
    isTerminal,
    setRaw: (isRaw) => void globalThis.process.stdin.setRawMode(isRaw),
  };
}

/** Bytes that are read from standard input at once, at most. */
const CHUNK_BYTES = 1 << 16;

/** Reads what has arrived, at least one byte; null at the end. */
async function readInput(into: Uint8Array): Promise<number | null> {
  const { stdin } = globalThis.process;
  for (;;) {
    if (stdin.errored) throw asRuntimeError(stdin.errored);
    const chunk: Uint8Array | null = stdin.read();
    if (chunk) {
      const taken = chunk.subarray(0, into.length);
      into.set(taken);
      if (chunk.length > taken.length) stdin.unshift(chunk.subarray(taken.length));
      return taken.length;
    }
    if (stdin.readableEnded || stdin.destroyed) return null;
    await new Promise((resolve) => {
      const events = ["readable", "end", "close", "error"];
      const settle = (): void => {
        for (const event of events) stdin.off(event, settle);
        resolve(null);
      };
      for (const event of events) stdin.on(event, settle);
    });
  }
}

/** A program whose standard output is read. */
class NodeCommand {
  constructor(
    readonly program: string,
    readonly options: { readonly args?: string[]; readonly cwd?: string | URL },
  ) {}

  output(): Promise<{ success: boolean; stdout: Uint8Array<ArrayBuffer> }> {
    const { execFile } = builtin("node:child_process")!;
    const { args = [], cwd } = this.options;
    return new Promise((resolve) => {
      execFile(this.program, args, { cwd, encoding: "buffer" }, (error, stdout) => {
        resolve({ success: error === null, stdout: new Uint8Array(stdout) });
      });
    });
  }
}

/** Columns of the terminal that messages or results go to. */
function columns(): number {
  const { isatty } = builtin("node:tty")!;
  if (isatty(2)) return globalThis.process.stderr.columns;
  if (isatty(1)) return globalThis.process.stdout.columns;
  throw new Error("expected a terminal, got none");
}
