/**
 * Rotary positions in all spellings: `rope_parameters` of transformers 5, `rope_theta` and
 * `rope_scaling` before it, and the keys that single families have of their own.
 *
 * @module
 */
import type { RopeScaling } from "../../kernels/ops/rope.ts";
import { ConfigKeys } from "./keys.ts";
import type { Rope } from "./record.ts";

/** What a family has to say of its rotary positions. */
export interface RopeFacts {
  /** Part of a head that is rotated unless the file says otherwise; default whole heads. */
  readonly partial?: number;
  /** Key of R, the rotated numbers of a head, in families that give it instead of a part. */
  readonly rotaryDimKey?: string;
  /** Pairs (2i, 2i+1). */
  readonly interleaved?: boolean;
  /** Whether sliding layers have a table of their own, by these keys. */
  readonly twoBases?: boolean;
  /** Types that the family takes for another. */
  readonly types?: Readonly<Record<string, string>>;
}

/** What the reader needs beside the keys. */
export interface RopeContext {
  readonly facts: RopeFacts;
  /** D */
  readonly headDim: number;
  /** The longest context, in tokens. */
  readonly maxPositions: number;
}

/** Types of scaling; `dynamic` changes nothing up to the longest context, where every run ends. */
const TYPES = ["default", "linear", "dynamic", "llama3", "yarn", "longrope"];

/** Keys of `rope_parameters` for layers of one kind. */
const LAYER_KINDS = ["full_attention", "sliding_attention"] as const;

/**
 * Reads the one table of most families, or the two of Gemma 3: for layers that see all and for
 * those that see a window.
 */
export function readRopes(
  keys: ConfigKeys,
  context: RopeContext,
): { rope: Rope; ropeLocal: Rope | null } {
  const scaling = keys.within("rope_scaling");
  const parameters = keys.within("rope_parameters");
  const isEmpty = ({ config }: ConfigKeys) => Object.keys(config).length === 0;
  if (!context.facts.twoBases) {
    if (LAYER_KINDS.some((kind) => parameters.has(kind))) {
      keys.fail("rope_parameters", "one set of values for all layers");
    }
    const settings = isEmpty(scaling) ? parameters : scaling;
    return { rope: readRope(keys, settings, "rope_theta", context), ropeLocal: null };
  }
  if (!isEmpty(parameters) && !LAYER_KINDS.some((kind) => parameters.has(kind))) {
    keys.fail("rope_parameters", `values for ${LAYER_KINDS.join(" and ")}`);
  }
  const [full, sliding] = LAYER_KINDS.map((kind) => parameters.within(kind));
  // The old spelling has a scaling for full layers alone.
  const stretched = new ConfigKeys({ ...full.config, ...scaling.config }, keys.where, {
    path: isEmpty(scaling) ? full.options.path : scaling.options.path,
  });
  return {
    rope: readRope(keys, stretched, "rope_theta", context),
    ropeLocal: readRope(keys, sliding, "rope_local_base_freq", context),
  };
}

/** One table. `settings` goes before the keys beside it. */
function readRope(
  keys: ConfigKeys,
  settings: ConfigKeys,
  thetaKey: string,
  context: RopeContext,
): Rope {
  const theta = settings.has("rope_theta")
    ? settings.positive("rope_theta")
    : keys.positive(thetaKey);
  const rotaryDim = readRotaryDim(keys, settings, context);
  const scaling = readScaling(keys, settings, rotaryDim, context);
  const interleaved = context.facts.interleaved ?? false;
  return { theta, rotaryDim, interleaved, ...scaling && { scaling } };
}

function readRotaryDim(
  keys: ConfigKeys,
  settings: ConfigKeys,
  { facts: { partial, rotaryDimKey }, headDim: D }: RopeContext,
): number {
  if (rotaryDimKey) {
    const R = keys.size(rotaryDimKey);
    return R % 2 || R > D ? keys.fail(rotaryDimKey, `an even number of at most ${D}`) : R;
  }
  const key = "partial_rotary_factor";
  const source = settings.has(key) ? settings : keys;
  const part = source.positive(key, partial ?? 1);
  if (partial === undefined && part !== 1) source.fail(key, "1, as the family has it");
  if (part === 1 && D % 2) {
    const width = keys.has("head_dim") ? "head_dim" : "hidden_size";
    keys.fail(width, `such that a head of ${D} has an even number to turn`);
  }
  const R = Math.floor(D * part);
  if (R % 2 || R > D || R === 0) source.fail(key, `an even part of a head of ${D}, above 0`);
  return R;
}

function readScaling(
  keys: ConfigKeys,
  settings: ConfigKeys,
  rotaryDim: number,
  { facts: { types }, maxPositions }: RopeContext,
): RopeScaling | undefined {
  const typeKey = settings.has("rope_type") ? "rope_type" : "type";
  const given = settings.value(typeKey, "default");
  const type = types?.[String(given)] ?? given;
  const originalPositions = (): number => {
    const key = "original_max_position_embeddings";
    return keys.value(key) === undefined ? settings.size(key, maxPositions) : keys.size(key);
  };
  switch (type) {
    case "default":
    case "dynamic":
      return undefined;
    case "linear":
      return { type, factor: settings.positive("factor") };
    case "llama3": {
      const lowFreqFactor = settings.positive("low_freq_factor");
      const highFreqFactor = settings.positive("high_freq_factor");
      if (highFreqFactor <= lowFreqFactor) {
        settings.fail("high_freq_factor", `larger than low_freq_factor (${lowFreqFactor})`);
      }
      return {
        type,
        factor: settings.positive("factor"),
        lowFreqFactor,
        highFreqFactor,
        originalPositions: originalPositions(),
      };
    }
    case "yarn": {
      const original = originalPositions();
      const factor = settings.positive("factor", maxPositions / original);
      return {
        type,
        factor,
        betaFast: settings.positive("beta_fast", 32),
        betaSlow: settings.positive("beta_slow", 1),
        truncate: settings.flag("truncate", true),
        originalPositions: original,
        attentionFactor: settings.positive("attention_factor", yarnMagnitude(settings, factor)),
      };
    }
    case "longrope": {
      const original = originalPositions();
      const factor = settings.positive("factor", maxPositions / original);
      return {
        type,
        shortFactor: settings.positives("short_factor", rotaryDim / 2),
        longFactor: settings.positives("long_factor", rotaryDim / 2),
        originalPositions: original,
        attentionFactor: settings.positive(
          "attention_factor",
          factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original)),
        ),
      };
    }
    default:
      return settings.fail(typeKey, `one of ${TYPES.join(" ")}`);
  }
}

/** What YaRN multiplies cosines and sines by, where the file does not say. */
function yarnMagnitude(settings: ConfigKeys, factor: number): number {
  const magnitude = (scale = 1) => factor <= 1 ? 1 : 0.1 * scale * Math.log(factor) + 1;
  if (!settings.value("mscale") || !settings.value("mscale_all_dim")) return magnitude();
  return magnitude(settings.positive("mscale")) / magnitude(settings.positive("mscale_all_dim"));
}
