/**
 * llama.cpp as an oracle: client of `llama-oracle`, which `tests/real/get_llama_cpp.sh` compiles.
 *
 * Each process is ended by its signal, if it has one; what waits for it then throws.
 *
 * @module
 */
import { bytesOf } from "../../kernels/tensor.ts";

/** Bytes of a stream, taken in pieces of known length. */
class Bytes {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  #rest = new Uint8Array(0);

  constructor(stream: ReadableStream<Uint8Array>) {
    this.#reader = stream.getReader();
  }

  /** Returns the next `count` bytes, or undefined at the end of the stream. */
  async take(count: number): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const bytes = new Uint8Array(count);
    for (let at = 0; at < count;) {
      if (this.#rest.length === 0) {
        const { value } = await this.#reader.read();
        if (value === undefined && at === 0) return undefined;
        if (value === undefined) throw new Error(`Cannot read llama-oracle: expected more bytes`);
        this.#rest = new Uint8Array(value);
      }
      const piece = this.#rest.subarray(0, count - at);
      bytes.set(piece, at);
      at += piece.length;
      this.#rest = this.#rest.subarray(piece.length);
    }
    return bytes;
  }

  async numbers(count: number): Promise<Float32Array<ArrayBuffer>> {
    const bytes = await this.take(4 * count);
    if (!bytes) throw new Error("Cannot read llama-oracle: expected numbers, got its end");
    return new Float32Array(bytes.buffer);
  }

  async cancel(): Promise<void> {
    await this.#reader.cancel();
  }
}

function start(folder: string, args: string[], signal?: AbortSignal): Deno.ChildProcess {
  const pipes = { stdin: "piped", stdout: "piped", stderr: "inherit" } as const;
  return new Deno.Command(`${folder}/bin/llama-oracle`, { args, signal, ...pipes }).spawn();
}

/** A GGUF model in llama.cpp: keys and values in F32, no flash attention. */
export class LlamaCppModel implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #output: Bytes;

  private constructor(process: Deno.ChildProcess, output: Bytes, readonly vocabSize: number) {
    this.#process = process;
    this.#input = process.stdin.getWriter();
    this.#output = output;
  }

  /**
   * Loads a model.
   *
   * @param folder the folder given to `get_llama_cpp.sh`.
   * @param context largest number of ids of `logits`.
   * @throws {Error} If llama.cpp cannot load it; its reason is on standard error.
   */
  static async open(
    folder: string,
    path: string,
    { context, threads = 1, signal }: {
      readonly context: number;
      readonly threads?: number;
      readonly signal?: AbortSignal;
    },
  ): Promise<LlamaCppModel> {
    const process = start(folder, ["logits", path, `${context}`, `${threads}`], signal);
    const output = new Bytes(process.stdout);
    const head = await output.take(4);
    if (!head) throw new Error(`Cannot load "${path}" into llama.cpp`);
    return new LlamaCppModel(process, output, new Int32Array(head.buffer)[0]);
  }

  /** Logits [ids.length − first, V] of a text from row `first` on; earlier texts are forgotten. */
  async logits(ids: readonly number[], first = 0): Promise<Float32Array<ArrayBuffer>> {
    const window = Int32Array.of(ids.length, first, ...ids);
    await this.#input.write(new Uint8Array(window.buffer));
    return await this.#output.numbers((ids.length - first) * this.vocabSize);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#input.close();
    await this.#output.cancel();
    await this.#process.status;
  }
}

/** A weight in ggml. */
export interface GgmlWeight {
  /** The weight [N, K], decoded. */
  readonly values: Float32Array;
  /** Its product with x [N]; ggml rounds x where the weight has blocks. */
  readonly product: Float32Array;
}

/**
 * Decodes a weight [N, K] by ggml, and multiplies it by x [K].
 *
 * @param dtype name of its type, such as "Q4_K".
 * @throws {Error} If ggml does not know the type.
 */
export async function ggmlWeight(
  folder: string,
  dtype: string,
  [N, K]: readonly [number, number],
  stored: Uint8Array,
  x: Float32Array,
  signal?: AbortSignal,
): Promise<GgmlWeight> {
  const bytes = await answerOf(folder, ["weight", dtype, `${N}`, `${K}`], [stored, x], signal);
  const numbers = new Float32Array(bytes.buffer);
  return { values: numbers.subarray(0, N * K), product: numbers.subarray(N * K) };
}

/**
 * Quantises rows [N, K] by ggml, without an importance matrix.
 *
 * @throws {Error} If ggml does not know the type.
 */
export function ggmlBlocks(
  folder: string,
  dtype: string,
  [N, K]: readonly [number, number],
  values: Float32Array,
  signal?: AbortSignal,
): Promise<Uint8Array<ArrayBuffer>> {
  return answerOf(folder, ["encode", dtype, `${N}`, `${K}`], [values], signal);
}

/** All that the oracle writes for an input. */
async function answerOf(
  folder: string,
  args: string[],
  input: readonly ArrayBufferView[],
  signal?: AbortSignal,
): Promise<Uint8Array<ArrayBuffer>> {
  const process = start(folder, args, signal);
  const feed = async () => {
    const writer = process.stdin.getWriter();
    for (const piece of input) await writer.write(bytesOf(piece));
    await writer.close();
  };
  // It stops reading where it fails; its status says so.
  const [{ success, stdout }] = await Promise.all([process.output(), feed().catch(() => {})]);
  if (success) return stdout.slice();
  throw new Error(`Cannot ask llama-oracle for "${args.join(" ")}": it failed`);
}
