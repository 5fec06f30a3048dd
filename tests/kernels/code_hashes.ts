/**
 * Hashes of generated code: the bytes of every WASM module and the text of every WGSL shader of a
 * model's passes, except the code that packs and uploads weights.
 *
 *     deno run -A tests/kernels/code_hashes.ts [filter]
 *
 * Two checkouts that print the same lines generate the same code.
 *
 * @module
 */
import { loadModel } from "../../engine/load.ts";
import type { LoadOptions, RandomModel } from "../../engine/load.ts";
import { fixture } from "../testing.ts";
import { FakeGpu } from "./fake_gpu.ts";

const DTYPES = ["F32", "F16", "BF16"] as const;

/** Opcode of `f32x4.relaxed_madd`; an engine that rejects it has no relaxed SIMD. */
const RELAXED_MADD = [0xfd, 0x85, 0x02];

/** Random models: GPT-2's width, a ragged width over a long context, GPT-2's vocabulary. */
const SHAPES: Readonly<Record<string, Record<string, unknown>>> = {
  wide: gpt2({ n_embd: 768, n_head: 12, n_layer: 2, vocab_size: 512, n_positions: 1024 }),
  vocabulary: gpt2({ n_embd: 64, n_head: 2, n_layer: 1, vocab_size: 50257, n_positions: 128 }),
  ragged: {
    model_type: "llama",
    vocab_size: 311,
    hidden_size: 528,
    intermediate_size: 1001,
    num_hidden_layers: 1,
    num_attention_heads: 8,
    num_key_value_heads: 2,
    head_dim: 66,
    max_position_embeddings: 8192,
  },
};

/** Options of a model, and overrides of the engine's or adapter's features. */
interface Variant {
  readonly name: string;
  readonly options: LoadOptions;
  readonly relaxed?: boolean;
  readonly gpu?: { readonly software: boolean; readonly subgroups: boolean };
}

const VARIANTS: readonly Variant[] = [
  { name: "wasm 1 thread", options: { device: "wasm", threads: 1 } },
  { name: "wasm 2 threads", options: { device: "wasm", threads: 2 } },
  { name: "wasm unfused", options: { device: "wasm", threads: 1 }, relaxed: false },
  ...[true, false].flatMap((software) =>
    [true, false].map((subgroups) => ({
      name: `webgpu ${software ? "software" : "hardware"}${subgroups ? " subgroups" : ""}`,
      options: { device: "webgpu" as const, tune: false },
      gpu: { software, subgroups },
    }))
  ),
];

function gpt2(keys: Record<string, number>): Record<string, unknown> {
  return { model_type: "gpt2", ...keys };
}

/** Model folders in the fixtures. */
function folders(): string[] {
  return ["labcore", "tiny"].flatMap((parent) =>
    [...Deno.readDirSync(fixture(parent))].filter((entry) => entry.isDirectory)
      .map(({ name }) => `${parent}/${name}`)
  ).sort();
}

/** Records compiled WASM modules, in order, until disposed. */
class Watch implements Disposable {
  readonly wasm: Uint8Array[] = [];
  readonly #compile = WebAssembly.compile;
  readonly #validate = WebAssembly.validate;

  constructor(relaxed: boolean) {
    WebAssembly.compile = (bytes: BufferSource | Response | Promise<Response>) => {
      this.wasm.push(new Uint8Array(bytes as Uint8Array).slice());
      return this.#compile.call(WebAssembly, bytes as BufferSource);
    };
    WebAssembly.validate = (bytes) =>
      (relaxed || !contains(bytes as Uint8Array, RELAXED_MADD)) &&
      this.#validate.call(WebAssembly, bytes);
  }

  [Symbol.dispose](): void {
    WebAssembly.compile = this.#compile;
    WebAssembly.validate = this.#validate;
  }
}

function contains(bytes: Uint8Array, part: readonly number[]): boolean {
  return bytes.some((_, at) => part.every((byte, i) => bytes[at + i] === byte));
}

/** Hash of the code of a model, dtype and backend. */
async function hashOf(
  source: string | RandomModel,
  dtype: typeof DTYPES[number],
  { options, relaxed = true, gpu }: Variant,
): Promise<string> {
  using fake = gpu && new FakeGpu(gpu);
  using watch = new Watch(relaxed);
  {
    await using model = await loadModel(source, { dtype, ...options });
    await model.logits([1, 2, 3]);
  }
  // The first module packs weights.
  return fake ? await hashShaders(fake) : await hashAll(watch.wasm.slice(1));
}

async function sha256(bytes: Uint8Array): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes.slice())).toHex();
}

/** Number of the tuner's candidate tiles for decode, and for prefill. */
const TILES = 8;

/** A line per tile that the tuner may choose; the tuner's cache file forces the choice. */
async function* tileHashes(source: RandomModel, dtype: typeof DTYPES[number]) {
  const variant = { name: "tiles", options: { device: "webgpu" as const } };
  const gpu = { software: false, subgroups: true };
  const folder = await Deno.makeTempDir();
  const before = Deno.env.get("XDG_CACHE_HOME");
  Deno.env.set("XDG_CACHE_HOME", folder);
  try {
    await hashOf(source, dtype, { ...variant, gpu }); // measures and stores its choices
    const [{ name }] = Deno.readDirSync(`${folder}/wgslm/tiles`);
    const path = `${folder}/wgslm/tiles/${name}`;
    const { choices, ...rest } = JSON.parse(Deno.readTextFileSync(path));
    for (let tile = 0; tile < TILES; tile++) {
      for (const key of Object.keys(choices)) choices[key] = tile;
      Deno.writeTextFileSync(path, JSON.stringify({ ...rest, choices }));
      // An invalid choice would be measured again, with unpredictable code.
      using fake = new FakeGpu(gpu);
      await using model = await loadModel(source, { dtype, ...variant.options });
      await model.logits([1, 2, 3]);
      const same = JSON.stringify(JSON.parse(Deno.readTextFileSync(path)).choices) ===
        JSON.stringify(choices);
      if (same) yield `tile ${tile}: ${await hashShaders(fake)}`;
    }
  } finally {
    if (before === undefined) Deno.env.delete("XDG_CACHE_HOME");
    else Deno.env.set("XDG_CACHE_HOME", before);
    await Deno.remove(folder, { recursive: true });
  }
}

/** Hash of the shaders in sorted order, except those that upload weights and try features. */
async function hashShaders({ shaders }: FakeGpu): Promise<string> {
  const codes = [...shaders].filter(([, op]) => op !== "weight" && op !== "trial")
    .map(([code]) => code).sort();
  return await hashAll(codes.map((code) => new TextEncoder().encode(code)));
}

async function hashAll(parts: readonly Uint8Array[]): Promise<string> {
  const hashes = await Promise.all(parts.map(sha256));
  const all = await sha256(new TextEncoder().encode(hashes.join("\n")));
  return `${parts.length} ${all.slice(0, 24)}`;
}

/** A line per model, dtype and variant whose label contains `only`. */
export async function codeHashes(only = ""): Promise<string[]> {
  const sources: [string, string | RandomModel][] = [
    ...folders().map((name): [string, string] => [name, fixture(name)]),
    ...Object.entries(SHAPES).map(([name, config]): [string, RandomModel] => [name, { config }]),
  ];
  const lines: string[] = [];
  for (const [name, source] of sources) {
    for (const variant of VARIANTS) {
      for (const dtype of DTYPES) {
        const label = `${name}, ${variant.name}, ${dtype}`;
        if (!label.includes(only)) continue;
        lines.push(`${label}: ${await hashOf(source, dtype, variant)}`);
      }
    }
  }
  for (const [name, config] of Object.entries(SHAPES)) {
    if (name === "vocabulary" || !`${name}, tiles`.includes(only)) continue;
    for (const dtype of DTYPES) {
      for await (const line of tileHashes({ config }, dtype)) {
        lines.push(`${name}, tiles, ${dtype}, ${line}`);
      }
    }
  }
  return lines;
}

if (import.meta.main) {
  for (const line of await codeHashes(Deno.args[0])) console.log(line);
}
