/**
 * What a model is, in one record, whatever its config.json calls things.
 *
 * @module
 */
import { FAMILIES } from "./families.ts";
import { gpt2, labcore, nanogpt } from "./gpt.ts";
import { ConfigKeys } from "./keys.ts";
import type { Architecture } from "./record.ts";
import { readTransformers } from "./transformers.ts";
import { CheckpointError } from "../errors.ts";

export type { RopeScaling } from "../../kernels/ops/rope.ts";
export type {
  Architecture,
  Biases,
  Family,
  NormKind,
  NormPlaces,
  ParallelNorms,
  Rope,
} from "./record.ts";

/** Families with a reader of their own, by the names that configurations have for them. */
const GPTS: Readonly<Record<string, (keys: ConfigKeys) => Architecture>> = {
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

/** Keys of what is not done here; a repository that does without has them absent, null, false, or at 0 or 1. */
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
 * Reads a config.json, or the `[model]` section of a TOML preset (which has `family` for `model_type`).
 * @param where names the file in messages.
 * @throws {CheckpointError} when a key is missing or has a value that no model can have, or what it asks for is not done here.
 */
export function readArchitecture(config: Record<string, unknown>, where: string): Architecture {
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

/** The keys of the language model within a model of images and text; what stands around them goes first. */
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
