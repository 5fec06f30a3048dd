/**
 * The shaders that the engine makes for models of many shapes, given to the browser's compiler.
 *
 * @module
 */
import { type Architecture, readArchitecture } from "../../../engine/architecture/mod.ts";
import { TILES } from "../../../kernels/ops/matmul/wgsl.ts";
import { measureWebGpu } from "../../../kernels/mod.ts";
import type { WeightDtype } from "../../../kernels/formats/mod.ts";
import { openWebGpuBackend, type WebGpuOptions } from "../../../kernels/webgpu/backend.ts";
import { Spy } from "../../kernels/spy.ts";
import { anyWeights, architectureOf, runnerOn } from "./page.ts";

/** What became of the shaders. */
export interface Compiled {
  /** Distinct shaders. */
  readonly shaders: number;
  /** Of those, the ones that use subgroups. */
  readonly withSubgroups: number;
  /** Pipelines that were made of them. */
  readonly pipelines: number;
  /** All that the compiler says of them, each with its operation's name. */
  readonly messages: readonly string[];
}

/** A model whose passes are recorded. */
interface Shape {
  readonly a: Architecture;
  readonly slots: number;
  readonly chunk: number;
}

const DTYPES: readonly WeightDtype[] = ["F32", "F16", "BF16"];

/** GPT-2's own width and vocabulary, in one layer; and ragged ones, over a long context. */
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
 * Records the passes of models in folders of the fixtures, of `SHAPES` in every dtype; the first
 * model with every tile too, or measures the adapter.
 * @param software whether kernels are those for a processor that plays the GPU, or for a GPU.
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

/** Records what a model records, on a backend of its own. */
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

/** Records with each tile in turn, by a store that holds it for the choice of every product. */
async function recordTiles(shapes: readonly Shape[]): Promise<void> {
  let kept: string | null = null;
  const store = {
    load: () => Promise.resolve(kept),
    save: (_key: string, text: string) => Promise.resolve(void (kept = text)),
  };
  await record({ software: false, store }, shapes, ["BF16"]); // measures, and keeps its choices
  for (let tile = 0; tile < Math.max(TILES.decode.length, TILES.prefill.length); tile++) {
    const { choices, ...rest } = JSON.parse(kept!);
    for (const key of Object.keys(choices)) choices[key] = tile;
    kept = JSON.stringify({ ...rest, choices });
    await record({ software: false, store }, shapes, ["BF16"]);
  }
}

/**
 * Watches what is compiled. Tint checks every shader as it is; a pipeline, which takes a software
 * adapter a hundred times as long, is made once for all shaders of the same bindings, shared memory
 * and lanes, and stands in for the others: what is recorded is not run.
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
      const key = borderOf(this.#codes.get(descriptor.compute.module)!);
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

/** What the compiler says of a shader, warnings too. */
async function messagesOf(module: GPUShaderModule, label?: string): Promise<string[]> {
  const { messages } = await module.getCompilationInfo();
  return messages.map(({ type, message, lineNum }) =>
    `${label}, line ${lineNum}: ${type}: ${message}`
  );
}

/**
 * All that a pipeline is refused by, once its shader is valid: bindings, memory
 * that lanes share, and lanes.
 */
function borderOf(code: string): string {
  const shared = code.match(/var<workgroup>[^;]*;/g) ?? [];
  const constants = (code.match(/^const [^;]*;/gm) ?? []).filter((line) =>
    shared.some((declared) => declared.includes(line.split(" ")[1]))
  );
  const bindings = code.match(/@group[^;]*;|@workgroup_size\([^)]*\)/g) ?? [];
  return [...shared, ...constants, ...bindings].join("\n");
}
