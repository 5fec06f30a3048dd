/**
 * Architecture reader of GGUF files: from metadata and the shapes of tensors to a record.
 *
 *     general.architecture ──ARCHITECTURES──▶ family ──families.ts──▶ conventions
 *     llama.embedding_length, …  ──KEYS──▶ the reader's keys of a config.json
 *     shapes of token_embd, ffn_down, attn_k; biases; output.weight  ──▶ sizes and flags
 *
 * llama.cpp's converter changes some weights, and with them the conventions: norms of Gemma hold
 * 1 + w; rows of queries and keys of Llama are re-ordered so that RoPE rotates neighbours.
 *
 * @module
 */
import type { Checkpoint } from "../checkpoint/checkpoint.ts";
import type { MetadataValue } from "../checkpoint/gguf/metadata.ts";
import { CheckpointError } from "../errors.ts";
import { FAMILIES, type FamilyFacts } from "./families.ts";
import { gpt2 } from "./gpt.ts";
import { ConfigKeys } from "./keys.ts";
import type { Outline, Rope } from "./record.ts";
import { readTransformers } from "./transformers.ts";

/** The parts of a checkpoint that the reader needs. */
export type GgufFile = Pick<Checkpoint, "path" | "metadata" | "tensors" | "read">;

/** Conventions of an architecture of llama.cpp. */
interface GgufArchitecture {
  readonly family: keyof typeof FAMILIES | "gpt2";
  /** Whether RoPE rotates neighbours: rows of queries and keys were re-ordered. */
  readonly interleaved?: boolean;
  /** Layers of a model whose scores are divided by √(C / H) instead of √D. */
  readonly scaledByWidth?: number;
  /** Keys whose features this version lacks for the family; 0 is allowed. */
  readonly refused?: readonly string[];
}

/** llama.cpp's names of the supported architectures. */
const ARCHITECTURES: Readonly<Record<string, GgufArchitecture>> = {
  llama: { family: "llama", interleaved: true },
  qwen2: { family: "qwen2" },
  qwen3: { family: "qwen3" },
  gemma: { family: "gemma" },
  gemma2: { family: "gemma2", scaledByWidth: 46 }, // the 27B model
  gemma3: { family: "gemma3", scaledByWidth: 62 }, // the 27B model
  phi2: { family: "phi" },
  phi3: { family: "phi3" },
  gptneox: { family: "gpt_neox" },
  gpt2: { family: "gpt2" },
  olmo2: { family: "olmo2", refused: ["attention.sliding_window"] }, // OLMo 3
  smollm3: { family: "smollm3", interleaved: true },
  granite: { family: "granite", interleaved: true },
  starcoder2: { family: "starcoder2" },
  stablelm: { family: "stablelm" },
};

/** GGUF keys, after the architecture's name, by the names of the readers. */
const KEYS = {
  hidden_size: "embedding_length",
  num_hidden_layers: "block_count",
  num_attention_heads: "attention.head_count",
  num_key_value_heads: "attention.head_count_kv",
  head_dim: "attention.key_length",
  intermediate_size: "feed_forward_length",
  max_position_embeddings: "context_length",
  rope_theta: "rope.freq_base",
  rope_local_base_freq: "rope.freq_base_swa",
  rotary_dim: "rope.dimension_count",
  original_max_position_embeddings: "rope.scaling.original_context_length",
  sliding_window: "attention.sliding_window",
  sliding_window_pattern: "attention.sliding_window_pattern",
  use_parallel_residual: "use_parallel_residual",
  attn_logit_softcapping: "attn_logit_softcapping",
  final_logit_softcapping: "final_logit_softcapping",
  attention_multiplier: "attention.scale",
  embedding_multiplier: "embedding_scale",
  residual_multiplier: "residual_scale",
  logits_scaling: "logit_scale",
} as const;

/** Factors of Granite, for which llama.cpp takes 0 as none. */
const FACTORS = [
  "attention_multiplier",
  "embedding_multiplier",
  "residual_multiplier",
  "logits_scaling",
] as const;

/** GPT-2's names of the same keys. */
const GPT2_KEYS: Readonly<Record<string, keyof typeof KEYS>> = {
  n_embd: "hidden_size",
  n_layer: "num_hidden_layers",
  n_head: "num_attention_heads",
  n_inner: "intermediate_size",
  n_positions: "max_position_embeddings",
};

/** Keys of features that no family has here, and the allowed value. */
const REFUSED = {
  expert_count: "0: this version runs no mixture of experts",
  "attention.clamp_kqv": "absent",
  "attention.max_alibi_bias": "0: this version supports learned and rotary positions",
};

/** Whether a file holds an architecture that this reader knows. */
function architectureOf({ path, metadata }: GgufFile): [name: string, GgufArchitecture] {
  const name = metadata["general.architecture"];
  if (typeof name === "string" && Object.hasOwn(ARCHITECTURES, name)) {
    return [name, ARCHITECTURES[name]];
  }
  const keys = new ConfigKeys({ "general.architecture": plain(name) }, path);
  return keys.fail("general.architecture", `one of ${Object.keys(ARCHITECTURES).join(" ")}`);
}

/** Whether the rows of queries and keys of a GGUF file were re-ordered by its converter. */
export function hasReorderedRows(metadata: Checkpoint["metadata"]): boolean {
  return ARCHITECTURES[String(metadata["general.architecture"])]?.interleaved ?? false;
}

/**
 * Reads a model's record except its list of layers, whose length is not checked yet.
 * @throws {CheckpointError} If a key is missing, invalid or of an unsupported feature.
 */
export async function readGgufOutline(file: GgufFile): Promise<Outline> {
  const [name, facts] = architectureOf(file);
  const reader = new Reader(file, name, facts);
  reader.refuseUnsupported();
  const outline = await reader.outline();
  const divisors = await reader.divisors(outline);
  return divisors ? withDivisors(outline, divisors) : outline;
}

/** A value of the metadata as a configuration has it; of equal numbers per layer, one. */
function plain(value: MetadataValue | undefined): unknown {
  if (typeof value === "bigint") return String(value);
  if (typeof value !== "object") return value;
  const [first] = value;
  const isOne = typeof first !== "object" && value.every((item) => item === first);
  return value.length && isOne ? plain(first) : value.map(plain);
}

class Reader {
  /** Shapes by the tensors' names. */
  readonly #shapes: ReadonlyMap<string, readonly number[]>;
  readonly #keyNames: Readonly<Record<string, string>>;
  /** Values of the file by its own names, and values of the reader's keys that have none. */
  readonly #config: Record<string, unknown> = {};

  constructor(
    readonly file: GgufFile,
    readonly name: string,
    readonly architecture: GgufArchitecture,
  ) {
    this.#shapes = new Map(file.tensors().map(({ name, shape }) => [name, shape]));
    const norm = this.#facts?.norm === "rms" ? "layer_norm_rms_epsilon" : "layer_norm_epsilon";
    const names = { ...KEYS, norm_eps: `attention.${norm}` };
    this.#keyNames = Object.fromEntries(
      Object.entries(names).map(([key, own]) => [key, `${name}.${own}`]),
    );
    for (const own of Object.values(this.#keyNames)) {
      if (Object.hasOwn(file.metadata, own)) this.#config[own] = plain(file.metadata[own]);
    }
  }

  /** Facts of the family; GPT-2 has its own reader. */
  get #facts(): FamilyFacts | undefined {
    const { family } = this.architecture;
    return family === "gpt2" ? undefined : FAMILIES[family];
  }

  get #keys(): ConfigKeys {
    return new ConfigKeys(this.#config, this.file.path, { keyNames: this.#keyNames });
  }

  /** A key by its name in the file, after the architecture's name. */
  #own(key: string): ConfigKeys {
    const name = `${this.name}.${key}`;
    const { metadata, path } = this.file;
    const config = Object.hasOwn(metadata, name) ? { [name]: plain(metadata[name]) } : {};
    return new ConfigKeys(config, path, { keyNames: { [key]: name } });
  }

  #has(tensor: string): boolean {
    return this.#shapes.has(tensor);
  }

  refuseUnsupported(): void {
    const { refused = [] } = this.architecture;
    const all = [...Object.entries(REFUSED), ...refused.map((key) => [key, "0"] as const)];
    for (const [key, expected] of all) {
      const keys = this.#own(key);
      if (keys.value(key, 0) !== 0) keys.fail(key, expected);
    }
    const causal = this.#own("attention.causal");
    if (!causal.flag("attention.causal", true)) {
      causal.fail("attention.causal", "true: this version runs decoders");
    }
  }

  async outline(): Promise<Outline> {
    this.#readSizes();
    const facts = this.#facts;
    const { path } = this.file;
    if (!facts) return this.#gpt2();
    const window = this.#window(facts);
    const config = { ...this.#config, ...await this.#rope() };
    const outline = readTransformers(config, path, this.architecture.family as never, {
      ...facts,
      keyNames: { ...facts.keyNames, ...this.#keyNames },
      defaults: { ...facts.defaults, norm_eps: undefined, max_position_embeddings: undefined },
      ungrouped: false,
      normOffset: 0, // the converter adds 1 to Gemma's norms
      bias: {
        qkv: this.#has("blk.0.attn_q.bias") || this.#has("blk.0.attn_qkv.bias"),
        attnProj: this.#has("blk.0.attn_output.bias"),
        mlp: this.#has("blk.0.ffn_up.bias"),
        lmHead: this.#has("output.bias"),
      },
      rope: facts.rope && {
        ...facts.rope,
        partial: 1,
        rotaryDimKey: "rotary_dim",
        interleaved: this.architecture.interleaved,
      },
      window,
    });
    // llama.cpp does not round the factor of Gemma's embeddings.
    return { ...outline, embedScaleRounded: false };
  }

  #gpt2(): Outline {
    const keyNames = Object.fromEntries(
      Object.entries(GPT2_KEYS).map(([key, own]) => [key, this.#keyNames[own]]),
    );
    keyNames.layer_norm_epsilon = this.#keyNames.norm_eps;
    const keys = new ConfigKeys(this.#config, this.file.path, { keyNames });
    keys.positive("layer_norm_epsilon");
    return gpt2(keys);
  }

  /**
   * Sets keys that have no default in a GGUF, and sizes that tensors show: converters write four
   * times the width for the MLP, and all heads for the key/value heads, in some families.
   */
  #readSizes(): void {
    const config = this.#config;
    const set = (key: keyof typeof KEYS, value: unknown) => config[this.#keyNames[key]] = value;
    const orSet = (key: keyof typeof KEYS, value: unknown) => config[this.#keyNames[key]] ??= value;
    const keys = this.#keys;
    const [C, H] = [keys.size("hidden_size"), keys.size("num_attention_heads")];
    orSet("head_dim", C % H ? null : C / H);
    const D = keys.sizeOrNull("head_dim") ?? keys.headDim("hidden_size", "num_attention_heads");
    const valueLength = this.#own("attention.value_length");
    if (valueLength.size("attention.value_length", D) !== D) {
      valueLength.fail("attention.value_length", `${D}, as attention.key_length`);
    }
    orSet("num_key_value_heads", H);
    const [k] = this.#shapes.get("blk.0.attn_k.weight") ?? [];
    if (k && k % D === 0) set("num_key_value_heads", k / D);
    const [, F] = this.#shapes.get("blk.0.ffn_down.weight") ?? [];
    if (F) set("intermediate_size", F);
    for (const key of FACTORS) {
      if (config[this.#keyNames[key]] === 0) delete config[this.#keyNames[key]];
    }
    orSet("rope_theta", 10000);
    orSet("rope_local_base_freq", 10000);
    orSet("rotary_dim", D);
    orSet("attention_multiplier", 1 / Math.sqrt(D));
    const positions = this.#shapes.get("position_embd.weight")?.[0];
    if (positions) set("max_position_embeddings", positions);
    const embedding = this.#shapes.get("token_embd.weight");
    if (!embedding) {
      throw new CheckpointError(
        `Cannot load "${this.file.path}": expected a tensor token_embd.weight, got none; ` +
          "a file with a vocabulary alone is no model",
      );
    }
    const { metadata } = this.file;
    const id = (name: string) => plain(metadata[`tokenizer.ggml.${name}_token_id`]);
    const eos = ["eos", "eot", "eom"].map(id).filter((value) => value !== undefined);
    Object.assign(config, {
      vocab_size: embedding[0],
      tie_word_embeddings: !this.#has("output.weight"),
      bos_token_id: id("bos") ?? null,
      eos_token_id: eos.length ? [...new Set(eos)] : null,
      query_pre_attn_scalar: keys.size("num_hidden_layers") === this.architecture.scaledByWidth
        ? C / H
        : D,
    });
    // StableLM's converter writes the key as true if the model's configuration has none.
    if (this.#facts?.parallel?.norms === 1) {
      set("use_parallel_residual", !this.#has("blk.0.ffn_norm.weight"));
    }
  }

  /** The family's windows; a GGUF may list the layers that have one, or state every nth without. */
  #window({ window }: FamilyFacts): FamilyFacts["window"] {
    const config = this.#config;
    const own = this.#keyNames.sliding_window;
    if (config[own] === 0) config[own] = null;
    const pattern = this.#keyNames.sliding_window_pattern;
    const given = config[pattern];
    if (window?.kind !== "pattern") return window;
    if (typeof given === "boolean" || Array.isArray(given)) {
      delete config[pattern];
      const layers = Array.isArray(given) ? given : [given];
      config.layer_types = layers.map((slides) => slides ? "sliding_attention" : "full_attention");
    }
    return { ...window, everyKey: "sliding_window_pattern" };
  }

  /** The scaling of RoPE as a config.json has it; empty if there is none. */
  async #rope(): Promise<Record<string, unknown>> {
    const factors = await Promise.all(
      ["short", "long"].map((kind) => this.#list(`rope_factors_${kind}`)),
    );
    const own = (key: string, fallback: number | null) => {
      const keys = this.#own(`rope.scaling.${key}`);
      return keys.has(`rope.scaling.${key}`) || fallback !== null
        ? keys.positive(`rope.scaling.${key}`, fallback ?? undefined)
        : undefined;
    };
    const attention = own("attn_factor", null);
    if (factors[0] && factors[1]) {
      return {
        rope_scaling: {
          rope_type: "longrope",
          short_factor: factors[0],
          long_factor: factors[1],
          ...attention && { attention_factor: attention },
        },
      };
    }
    const types = this.#own("rope.scaling.type");
    const legacy = this.#own("rope.scale_linear").value("rope.scale_linear");
    const type = types.value("rope.scaling.type", legacy === undefined ? "none" : "linear");
    const factor = () =>
      legacy === undefined
        ? own("factor", 1)
        : this.#own("rope.scale_linear").positive("rope.scale_linear");
    switch (type) {
      case "none":
      case "longrope": // of a model within its original context
        return {};
      case "linear":
        return { rope_scaling: { rope_type: "linear", factor: factor() } };
      case "yarn": {
        const scale = factor()!;
        const magnitude = (attention ?? 1) * (1 + (scale > 1 ? 0.1 * Math.log(scale) : 0));
        return {
          rope_scaling: {
            rope_type: "yarn",
            factor: scale,
            beta_fast: own("yarn_beta_fast", 32),
            beta_slow: own("yarn_beta_slow", 1),
            attention_factor: magnitude,
          },
        };
      }
      default:
        return types.fail("rope.scaling.type", "one of none linear yarn longrope");
    }
  }

  /** Divisors of RoPE's frequencies, as Llama 3's files have them; undefined if there are none. */
  async divisors({ rope }: Outline): Promise<number[] | undefined> {
    const list = rope ? await this.#list("rope_freqs") : undefined;
    if (!list || !rope) return undefined;
    const { scaling, rotaryDim } = rope;
    const isLinear = scaling?.type === "linear";
    const isList = list.length === rotaryDim / 2 && list.every((n) => n > 0 && n < Infinity);
    if (!isList || (scaling && !isLinear)) {
      this.#keys.fail(
        "rope_freqs.weight",
        `${rotaryDim / 2} positive divisors and no other scaling of rope`,
      );
    }
    return isLinear ? list.map((divisor) => divisor * scaling.factor) : list;
  }

  /** The numbers of a short tensor. */
  async #list(name: string): Promise<number[] | undefined> {
    const shape = this.#shapes.get(`${name}.weight`);
    if (!shape) return undefined;
    if (shape.length !== 1) this.#keys.fail(`${name}.weight`, "a list of numbers");
    return [...await this.file.read(`${name}.weight`)];
  }
}

/** The record with divisors of the frequencies in every layer that has them. */
function withDivisors(outline: Outline, divisors: readonly number[]): Outline {
  const rope: Rope = { ...outline.rope!, scaling: { type: "divisors", divisors } };
  return {
    ...outline,
    rope,
    layerOf: (layer) => {
      const shape = outline.layerOf(layer);
      return shape.rope === outline.rope ? { ...shape, rope } : shape;
    },
  };
}
