/**
 * Compilation of the engine's shaders, for models of many shapes, by the browser's compiler (Tint).
 *
 * @module
 */
import { type Architecture, readArchitecture } from "../../../engine/architecture/mod.ts";
import { TILES } from "../../../kernels/ops/matmul/tiles.ts";
import { measureWebGpu } from "../../../kernels/mod.ts";
import type { WeightDtype } from "../../../kernels/formats/mod.ts";
import { openWebGpuBackend, type WebGpuOptions } from "../../../kernels/webgpu/backend.ts";
import { Spy } from "../../kernels/spy.ts";
import { anyWeights, architectureOf, runnerOn } from "./page.ts";

/** Result of compiling all shaders. */
export interface Compiled {
  /** Number of distinct shaders. */
  readonly shaders: number;
  /** Number of them that use subgroups. */
  readonly withSubgroups: number;
  /** Number of pipelines created from them. */
  readonly pipelines: number;
  /** The compiler's messages, each with the operation's name. */
  readonly messages: readonly string[];
}

/** A model whose passes to record. */
interface Shape {
  readonly a: Architecture;
  readonly slots: number;
  readonly chunk: number;
}

const DTYPES: readonly WeightDtype[] = ["F32", "F16", "BF16"];

/** One layer each: GPT-2's width and vocabulary; ragged widths over a long context. */
const SHAPES: readonly Shape[] = [
  shape(1024, 128, {
    model_type: "gpt2",
    vocab_size: 50257,
    n_positions: 1024,
    n_embd: 768,
    n_layer: 1,
    n_head: 12,
  }),
  shape(8192, 13, {
    model_type: "llama",
    vocab_size: 311,
    hidden_size: 528,
    intermediate_size: 1001,
    num_hidden_layers: 1,
    num_attention_heads: 8,
    num_key_value_heads: 2,
    head_dim: 66,
    max_position_embeddings: 8192,
  }),
];

function shape(slots: number, chunk: number, config: Record<string, unknown>): Shape {
  return { a: readArchitecture(config, "config"), slots, chunk };
}

/**
 * Records the passes of models in folders of the fixtures, and of `SHAPES` in every dtype. For a
 * GPU, records the first model with every tile too; for a software adapter, measures the adapter.
 * @param software whether to use the kernels for a software adapter, or those for a GPU.
 */
export async function compileAll(
  software: boolean,
  folders: readonly string[],
): Promise<Compiled> {
  using compilation = new Compilation();
  const families = await Promise.all(folders.map(architectureOf));
  const shapes = families.map((a) => ({ a, slots: Math.min(a.blockSize, 256), chunk: 8 }));
  await record({ software, tune: false }, shapes, ["F32"]);
  await record({ software, tune: false }, SHAPES, DTYPES);
  if (software) await measureWebGpu();
  else await recordTiles(shapes.slice(0, 1));
  return await compilation.end();
}

/** Records the passes of models on a new backend. */
async function record(
  options: WebGpuOptions,
  shapes: readonly Shape[],
  dtypes: readonly WeightDtype[],
): Promise<void> {
  await using backend = await openWebGpuBackend(options);
  for (const { a, slots, chunk } of shapes) {
    for (const dtype of dtypes) await runnerOn(backend, a, anyWeights(a, dtype), slots, chunk);
  }
}

/** Records with each tile, by a store that names it as the tuner's choice for every matmul. */
async function recordTiles(shapes: readonly Shape[]): Promise<void> {
  let stored: string | null = null;
  const store = {
    load: () => Promise.resolve(stored),
    save: (_key: string, text: string) => Promise.resolve(void (stored = text)),
  };
  await record({ software: false, store }, shapes, ["BF16"]); // measures and saves its choices
  for (let tile = 0; tile < Math.max(TILES.decode.length, TILES.prefill.length); tile++) {
    const { choices, ...rest } = JSON.parse(stored!);
    for (const key of Object.keys(choices)) choices[key] = tile;
    stored = JSON.stringify({ ...rest, choices });
    await record({ software: false, store }, shapes, ["BF16"]);
  }
}

/**
 * Collects the messages and pipelines of compilation. Tint checks every shader. A pipeline, which
 * takes a software adapter a hundred times as long, is created once per interface (bindings, shared
 * memory, lanes) and reused for other shaders with it: the passes are recorded, not run.
 */
class Compilation implements Disposable {
  readonly #shaders = new Map<string, Promise<string[]>>();
  readonly #codes = new WeakMap<object, string>();
  readonly #spy = new Spy();
  readonly #make = GPUDevice.prototype.createComputePipelineAsync;
  #pipelines = 0;

  constructor() {
    this.#spy.on(GPUDevice, "createShaderModule", (_, result, [descriptor]) => {
      const { label, code } = descriptor as GPUShaderModuleDescriptor;
      const module = result as GPUShaderModule;
      this.#codes.set(module, code);
      if (!this.#shaders.has(code)) this.#shaders.set(code, messagesOf(module, label));
    });
    const made = new WeakMap<GPUDevice, Map<string, Promise<GPUComputePipeline>>>();
    const make = (device: GPUDevice, descriptor: GPUComputePipelineDescriptor) => {
      const pipelines = made.get(device) ?? new Map<string, Promise<GPUComputePipeline>>();
      made.set(device, pipelines);
      const key = interfaceOf(this.#codes.get(descriptor.compute.module)!);
      let pipeline = pipelines.get(key);
      if (!pipeline) {
        pipeline = this.#make.call(device, descriptor);
        pipelines.set(key, pipeline);
        this.#pipelines++;
      }
      return pipeline;
    };
    GPUDevice.prototype.createComputePipelineAsync = function (descriptor) {
      return make(this, descriptor);
    };
  }

  async end(): Promise<Compiled> {
    const messages = (await Promise.all(this.#shaders.values())).flat();
    const codes = [...this.#shaders.keys()];
    return {
      shaders: codes.length,
      withSubgroups: codes.filter((code) => /\bsubgroup\w+\(/.test(code)).length,
      pipelines: this.#pipelines,
      messages,
    };
  }

  [Symbol.dispose](): void {
    GPUDevice.prototype.createComputePipelineAsync = this.#make;
    this.#spy[Symbol.dispose]();
  }
}

/** The compiler's messages about a shader, including warnings. */
async function messagesOf(module: GPUShaderModule, label?: string): Promise<string[]> {
  const { messages } = await module.getCompilationInfo();
  return messages.map(({ type, message, lineNum }) =>
    `${label}, line ${lineNum}: ${type}: ${message}`
  );
}

/**
 * The properties for which a pipeline of a valid shader can be rejected: bindings, workgroup memory
 * and workgroup size.
 */
function interfaceOf(code: string): string {
  const shared = code.match(/var<workgroup>[^;]*;/g) ?? [];
  const constants = (code.match(/^const [^;]*;/gm) ?? []).filter((line) =>
    shared.some((declared) => declared.includes(line.split(" ")[1]))
  );
  const bindings = code.match(/@group[^;]*;|@workgroup_size\([^)]*\)/g) ?? [];
  return [...shared, ...constants, ...bindings].join("\n");
}
