/**
 * Engines of `compare.ts`. Each runs as its users run it and returns tokens per second of one
 * measurement.
 *
 * @module
 */
import type { BenchmarkReport } from "../../mod.ts";
import type { Activations } from "../../kernels/backend.ts";
import type { WeightDtype } from "../../kernels/formats/mod.ts";

/** Threads of every engine. */
export const THREADS = 2;

/** Tokens of the prompt, in the cache when decoding begins; and decoded tokens. */
const [DEPTH, TOKENS] = [128, 64];

/** Generated tokens of the demo, as specified. */
const DEMO_TOKENS = 256;

/** Rates of one round, in tokens per second. */
export interface Rates {
  /** Name and version of the engine. */
  readonly engine: string;
  readonly decode: number;
  readonly prefill: number;
}

/** Generated tokens per second of total time, prompt included. */
export interface DemoRate {
  readonly engine: string;
  readonly rate: number;
}

/** A model to run. */
export interface Work {
  /** A Hugging Face folder, or a GGUF file. */
  readonly path: string;
  /** Dtype of its weights in memory; default as stored. */
  readonly dtype?: WeightDtype;
  readonly activations?: Activations;
}

/** An engine that runs a model. */
export interface Side {
  model(work: Work): Promise<Rates>;
}

/** An engine that runs the demo. */
export interface DemoSide {
  demo(cache: boolean): Promise<DemoRate>;
}

/** Version, and the vectors where they are not those of a plain start. */
function nameOf({ version, simd }: BenchmarkReport["engine"]): string {
  return `wgslm ${version}${simd === "128" ? "" : `, simd ${simd}`}`;
}

/** wgslm through its command line; its decode time includes sampling. */
export class Wgslm implements Side, DemoSide {
  readonly #flags: readonly string[];

  constructor(v8Flags?: string) {
    this.#flags = v8Flags ? [`--v8-flags=${v8Flags}`] : [];
  }

  async model({ path, dtype, activations = "exact" }: Work): Promise<Rates> {
    const sizes = ["--prompt-tokens", `${DEPTH}`, "--gen-tokens", `${TOKENS + 1}`];
    const weights = ["--activations", activations, ...dtype ? ["--dtype", dtype] : []];
    const { engine, results } = await this.#bench([path, ...weights, ...sizes]);
    return {
      engine: nameOf(engine),
      decode: results.decode.tokens_per_sec ?? NaN,
      prefill: results.prefill.tokens_per_sec,
    };
  }

  async demo(cache: boolean): Promise<DemoRate> {
    const flag = cache ? "--use-kv-cache" : "--no-use-kv-cache";
    const { engine, results } = await this.#bench([flag, "--gen-tokens", `${DEMO_TOKENS}`]);
    return { engine: nameOf(engine), rate: results.tokens_per_sec.mean };
  }

  async #bench(args: readonly string[]): Promise<BenchmarkReport> {
    const path = await Deno.makeTempFile({ suffix: ".json" });
    try {
      const cli = new URL("../../cli.ts", import.meta.url).pathname;
      const fixed = ["--device", "wasm", "--threads", `${THREADS}`, "--iters", "1", "--seed", "1"];
      const command = [
        "run",
        "-A",
        ...this.#flags,
        cli,
        "bench",
        ...args,
        ...fixed,
        "--json-out",
        path,
      ];
      await output(Deno.execPath(), command);
      return JSON.parse(await Deno.readTextFile(path)) as BenchmarkReport;
    } finally {
      await Deno.remove(path);
    }
  }
}

/**
 * llama.cpp through its `llama-bench`, which feeds random tokens and does not sample. Models are
 * `NAME-f16.gguf`, … of a folder.
 */
export class LlamaCpp implements Side {
  constructor(readonly program: string, readonly ggufs: string) {}

  async model({ path }: Work): Promise<Rates> {
    const decode = ["-p", "0", "-n", `${TOKENS}`, "-d", `${DEPTH}`];
    const prefill = ["-p", `${DEPTH}`, "-n", "0"];
    const { build_commit, avg_ts } = await this.#bench(path, decode);
    return {
      engine: `llama.cpp ${build_commit}`,
      decode: avg_ts,
      prefill: (await this.#bench(path, prefill)).avg_ts,
    };
  }

  path(model: string, type: string): string {
    return `${this.ggufs}/${model}-${type.toLowerCase()}.gguf`;
  }

  async #bench(path: string, test: readonly string[]): Promise<LlamaBench> {
    // Loaded into memory, not mapped: mapped, the default, F32 and BF16 were a tenth slower.
    const fixed = ["-lm", "none", "-t", `${THREADS}`, "-r", "1", "-o", "json"];
    return JSON.parse(await output(this.program, ["-m", path, ...fixed, ...test]))[0];
  }
}

/** A test in the output of `llama-bench`, with the fields used here. */
interface LlamaBench {
  readonly build_commit: string;
  /** Tokens per second. */
  readonly avg_ts: number;
}

/**
 * transformers on PyTorch; for the demo, a plain GPT on PyTorch. One process, which sleeps while
 * others are measured.
 */
export class Torch implements Side, DemoSide, AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #reader: ReadableStreamDefaultReader<string>;
  #rest = "";

  constructor(python: string) {
    const script = new URL("./torch_side.py", import.meta.url).pathname;
    this.#process = new Deno.Command(python, {
      args: [script, "serve", `${THREADS}`],
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#writer = this.#process.stdin.getWriter();
    this.#reader = this.#process.stdout.pipeThrough(new TextDecoderStream()).getReader();
  }

  async model({ path, dtype }: Work): Promise<Rates> {
    return await this.#ask<Rates>({ folder: path, dtype, depth: DEPTH, tokens: TOKENS });
  }

  async demo(cache: boolean): Promise<DemoRate> {
    const demo = new URL("../demo", import.meta.url).pathname;
    return await this.#ask<DemoRate>({ demo, cache, tokens: DEMO_TOKENS });
  }

  async #ask<T>(question: unknown): Promise<T> {
    await this.#writer.write(new TextEncoder().encode(`${JSON.stringify(question)}\n`));
    while (!this.#rest.includes("\n")) {
      const { value, done } = await this.#reader.read();
      if (done) {
        throw new Error("Cannot measure PyTorch: expected an answer, got the end of its process");
      }
      this.#rest += value;
    }
    const [line, ...rest] = this.#rest.split("\n");
    this.#rest = rest.join("\n");
    return JSON.parse(line);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.close().catch(() => {}); // if it has ended by itself, `#ask` has reported it
    await this.#reader.cancel();
    await this.#process.status;
  }
}

/** Returns a program's standard output; shows its standard error if it fails. */
async function output(program: string, args: readonly string[]): Promise<string> {
  const command = new Deno.Command(program, { args: [...args] });
  const { success, stdout, stderr } = await command.output();
  if (!success) {
    throw new Error(`Cannot measure: ${program} failed\n${new TextDecoder().decode(stderr)}`);
  }
  return new TextDecoder().decode(stdout);
}
