/**
 * Model architectures: from a configuration (config.json or a preset's `[model]`) to a record.
 *
 * @module
 */
import { FAMILIES } from "./families.ts";
import { type GgufFile, readGgufOutline } from "./gguf.ts";
import { gpt2, labcore, nanogpt } from "./gpt.ts";

export { hasReorderedRows } from "./gguf.ts";
export { gptConfigOf, isGptConfig } from "./gpt.ts";
import { ConfigKeys } from "./keys.ts";
import type { Architecture, Outline } from "./record.ts";
import { readTransformers } from "./transformers.ts";
import { CheckpointError } from "../errors.ts";

export type { RopeScaling } from "../../kernels/ops/rope.ts";
export type {
  Architecture,
  Biases,
  Family,
  LayerShape,
  NormKind,
  NormPlaces,
  ParallelNorms,
  Rope,
} from "./record.ts";

/** Families with their own reader, by `model_type`. */
const GPTS: Readonly<Record<string, (keys: ConfigKeys) => Outline>> = {
  labcore_gpt: labcore,
  labcore,
  nanogpt,
  gpt2,
};

/** Families that `readTransformers` reads, by `model_type`. */
const MODEL_TYPES: Readonly<Record<string, keyof typeof FAMILIES>> = {
  ...Object.fromEntries(
    Object.keys(FAMILIES).map((family) => [family, family as keyof typeof FAMILIES]),
  ),
  gemma3_text: "gemma3",
};

/**
 * Keys of unsupported features, and the supported value for the error message. A model without the
 * feature has no such key, or null, false, 0 or 1.
 */
const REFUSED: Readonly<Record<string, string>> = {
  quantization_config: "absent: this version reads plain F32, F16 and BF16 weights",
  is_encoder_decoder: "false: this version runs decoders",
  add_cross_attention: "false",
  num_experts: "absent: this version runs no mixture of experts",
  num_local_experts: "absent: this version runs no mixture of experts",
  n_routed_experts: "absent: this version runs no mixture of experts",
  moe_num_experts: "absent: this version runs no mixture of experts",
  alibi: "false: this version supports learned and rotary positions",
  use_alibi: "false: this version supports learned and rotary positions",
  use_bidirectional_attention: "false: this version runs decoders",
};

/**
 * Limit of layers in a configuration without weights; GPT-3 has 96. With weights, the number of
 * tensors is the limit.
 */
const MAX_LAYERS = 10_000;

/** A weight file, whose number of tensors limits the number of layers. */
export interface LayerBound {
  /** Path of the file, for messages. */
  readonly path: string;
  /** Number of tensors in the file. */
  readonly tensors: number;
}

/**
 * Reads a config.json, or the `[model]` section of a TOML preset (which has `family` instead of
 * `model_type`).
 * @param where name of the configuration in messages.
 * @param file the weights of the model, if there are any.
 * @throws {CheckpointError} If a key is missing, invalid or of an unsupported feature, or if the
 *   file has fewer tensors than the configuration has layers.
 * @throws {RangeError} If a configuration without a file has more than 10,000 layers.
 */
export function readArchitecture(
  config: Record<string, unknown>,
  where: string,
  file?: LayerBound,
): Architecture {
  return withLayers(readOutline(config, where), file);
}

/**
 * Reads the metadata of a GGUF file.
 * @throws {CheckpointError} If a key is missing, invalid or of an unsupported feature, or if the
 *   file has fewer tensors than the model has layers.
 */
export async function readGguf(file: GgufFile): Promise<Architecture> {
  const outline = await readGgufOutline(file);
  return withLayers(outline, { path: file.path, tensors: file.tensors().length });
}

/** The record with the list of layers, after a check of its length. */
function withLayers(outline: Outline, file?: LayerBound): Architecture {
  expectLayers(outline, file);
  const { layerOf, ...shared } = outline;
  return { ...shared, layers: Array.from({ length: shared.nLayer }, (_, i) => layerOf(i)) };
}

/**
 * Checks the number of layers before an array of that length is made.
 * @throws {CheckpointError} If the file has fewer tensors than the model has layers.
 * @throws {RangeError} If there is no file and the model has more than 10,000 layers.
 */
export function expectLayers(
  { family, nLayer }: Pick<Architecture, "family" | "nLayer">,
  file?: LayerBound,
): void {
  if (!file && nLayer > MAX_LAYERS) {
    throw new RangeError(
      `Cannot make a model: expected at most ${MAX_LAYERS} layers, got ${nLayer}`,
    );
  }
  if (file && nLayer > file.tensors) {
    throw new CheckpointError(
      `Cannot load "${file.path}" as ${family}: expected at least one tensor for each of ` +
        `${nLayer} layers, got ${file.tensors} tensors`,
    );
  }
}

/**
 * Reads a configuration except the list of layers, whose length is not checked yet.
 * @throws {CheckpointError} If a key is missing, invalid or of an unsupported feature.
 */
export function readOutline(config: Record<string, unknown>, where: string): Outline {
  const type = config.model_type ?? config.family;
  const known = typeof type === "string" ? type : "";
  const keys = new ConfigKeys(config, where);
  if (Object.hasOwn(GPTS, known) || Object.hasOwn(MODEL_TYPES, known)) refuseUnsupported(keys);
  if (Object.hasOwn(GPTS, known)) return GPTS[known](keys);
  if (!Object.hasOwn(MODEL_TYPES, known)) {
    const names = [...Object.keys(GPTS), ...Object.keys(MODEL_TYPES)];
    throw new CheckpointError(
      `Cannot read "${where}": expected a model_type of ${names.join(" ")}, got ${
        JSON.stringify(type) ?? "none"
      }`,
    );
  }
  const family = MODEL_TYPES[known];
  return readTransformers(textConfig(keys), where, family, FAMILIES[family]);
}

/**
 * The configuration of the language model inside a multimodal model. Ids and tying in the outer
 * configuration override the inner ones.
 */
function textConfig(keys: ConfigKeys): Record<string, unknown> {
  if (!keys.has("text_config")) return keys.config;
  const text = keys.within("text_config");
  refuseUnsupported(text);
  const outer = ["bos_token_id", "eos_token_id", "tie_word_embeddings"].filter((key) =>
    keys.has(key)
  );
  return { ...text.config, ...Object.fromEntries(outer.map((key) => [key, keys.config[key]])) };
}

function refuseUnsupported(keys: ConfigKeys): void {
  for (const [key, expected] of Object.entries(REFUSED)) {
    const value = keys.value(key);
    if (value !== undefined && value !== false && value !== 0 && value !== 1) {
      keys.fail(key, expected);
    }
  }
}
