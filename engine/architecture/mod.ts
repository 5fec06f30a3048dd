/**
 * From a configuration (config.json, or a preset's `[model]`) to the architecture record.
 *
 * @module
 */
import { FAMILIES } from "./families.ts";
import { gpt2, labcore, nanogpt } from "./gpt.ts";

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

/** Families with a reader of their own, by the names that configurations have for them. */
const GPTS: Readonly<Record<string, (keys: ConfigKeys) => Outline>> = {
  labcore_gpt: labcore,
  labcore,
  nanogpt,
  gpt2,
};

/** Names of the families that one reader reads, by the names that configurations have for them. */
const MODEL_TYPES: Readonly<Record<string, keyof typeof FAMILIES>> = {
  ...Object.fromEntries(
    Object.keys(FAMILIES).map((family) => [family, family as keyof typeof FAMILIES]),
  ),
  gemma3_text: "gemma3",
};

/**
 * Keys of what is not done here; a repository that does without has them absent, null, false, or at
 * 0 or 1.
 */
const REFUSED: Readonly<Record<string, string>> = {
  quantization_config: "absent: this version reads plain F32, F16 and BF16 weights",
  is_encoder_decoder: "false: this version runs decoders",
  add_cross_attention: "false",
  num_experts: "absent: this version runs no mixture of experts",
  num_local_experts: "absent: this version runs no mixture of experts",
  n_routed_experts: "absent: this version runs no mixture of experts",
  moe_num_experts: "absent: this version runs no mixture of experts",
  alibi: "false: this version knows learned and rotary positions",
  use_alibi: "false: this version knows learned and rotary positions",
  use_bidirectional_attention: "false: this version runs decoders",
};

/**
 * Most layers of a configuration without a file; GPT-3 has 96. A file bounds its layers by its
 * tensors.
 */
const MAX_LAYERS = 10_000;

/** A file of weights, whose tensors bound the number of layers. */
export interface LayerBound {
  /** Names the file in messages. */
  readonly path: string;
  /** Number of its tensors. */
  readonly tensors: number;
}

/**
 * Reads a config.json, or the `[model]` section of a TOML preset (which has `family` for
 * `model_type`).
 * @param where names the configuration in messages.
 * @param file the weights that it belongs to, if there are any.
 * @throws {CheckpointError} If a key is missing, has an impossible value, or asks for something
 *   unsupported, or if the file has fewer tensors than the configuration has layers.
 * @throws {RangeError} If a configuration without a file has more than 10,000 layers.
 */
export function readArchitecture(
  config: Record<string, unknown>,
  where: string,
  file?: LayerBound,
): Architecture {
  const outline = readOutline(config, where);
  expectLayers(outline, file);
  const { layerOf, ...shared } = outline;
  return { ...shared, layers: Array.from({ length: shared.nLayer }, (_, i) => layerOf(i)) };
}

/**
 * Checks the number of layers before they are listed.
 * @throws {CheckpointError} If the file has fewer tensors than the model has layers.
 * @throws {RangeError} If there is no file, and more than 10,000 layers.
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
      `Cannot load "${file.path}" as ${family}: ${nLayer} layers, but ${file.tensors} tensors`,
    );
  }
}

/**
 * Reads all of a configuration but the list of its layers, whose number nothing bounds yet.
 * @throws {CheckpointError} If a key is missing, has an impossible value, or asks for something
 *   unsupported.
 */
export function readOutline(config: Record<string, unknown>, where: string): Outline {
  const type = config.model_type ?? config.family;
  const known = typeof type === "string" ? type : "";
  const keys = new ConfigKeys(config, where);
  if (Object.hasOwn(GPTS, known) || Object.hasOwn(MODEL_TYPES, known)) refuseOthers(keys);
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
 * The keys of the language model within a model of images and text; what stands around them goes
 * first.
 */
function textConfig(keys: ConfigKeys): Record<string, unknown> {
  if (!keys.has("text_config")) return keys.config;
  const text = keys.within("text_config");
  refuseOthers(text);
  const around = ["bos_token_id", "eos_token_id", "tie_word_embeddings"].filter((key) =>
    keys.has(key)
  );
  return { ...text.config, ...Object.fromEntries(around.map((key) => [key, keys.config[key]])) };
}

function refuseOthers(keys: ConfigKeys): void {
  for (const [key, expected] of Object.entries(REFUSED)) {
    const value = keys.value(key);
    if (value !== undefined && value !== false && value !== 0 && value !== 1) {
      keys.fail(key, expected);
    }
  }
}
