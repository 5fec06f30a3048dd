/**
 * Configuration reader of rotary positions: `rope_parameters` of transformers 5, `rope_theta` and
 * `rope_scaling` of earlier versions, and the keys of single families.
 *
 * @module
 */
import type { RopeScaling } from "../../kernels/ops/rope.ts";
import { ConfigKeys } from "./keys.ts";
import type { Rope } from "./record.ts";

/** A family's conventions of rotary positions. */
export interface RopeFacts {
  /** Default of the rotated fraction R / D; absent if whole heads are rotated. */
  readonly partial?: number;
  /** Key of R, in families whose files have R instead of a fraction. */
  readonly rotaryDimKey?: string;
  /** Rotates pairs (2i, 2i+1) instead of (i, i + R/2). */
  readonly interleaved?: boolean;
  /** Whether sliding-window layers have their own table. */
  readonly twoBases?: boolean;
  /** Types of scaling that the family replaces by others. */
  readonly types?: Readonly<Record<string, string>>;
}

/** Input of the reader besides the keys. */
export interface RopeContext {
  readonly facts: RopeFacts;
  /** D: width of a head. */
  readonly headDim: number;
  /** Longest context, in tokens. */
  readonly maxPositions: number;
}

/** Types of scaling; `dynamic` acts only beyond the longest context, which no run exceeds. */
const TYPES = ["default", "linear", "dynamic", "llama3", "yarn", "longrope"];

/** Keys of `rope_parameters` by kind of layer. */
const LAYER_KINDS = ["full_attention", "sliding_attention"] as const;

/**
 * Reads the one table of most families, or the two of Gemma 3: for layers with full attention and
 * for layers with a sliding window.
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
  // The older keys scale only the layers with full attention.
  const stretched = new ConfigKeys({ ...full.config, ...scaling.config }, keys.where, {
    path: isEmpty(scaling) ? full.options.path : scaling.options.path,
  });
  return {
    rope: readRope(keys, stretched, "rope_theta", context),
    ropeLocal: readRope(keys, sliding, "rope_local_base_freq", context),
  };
}

/** Reads one table; `settings` overrides the outer keys. */
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
  if (partial === undefined && part !== 1) source.fail(key, "1: the family rotates whole heads");
  if (part === 1 && D % 2) {
    const width = keys.has("head_dim") ? "head_dim" : "hidden_size";
    keys.fail(width, `a value that gives heads of even width, not ${D}`);
  }
  const R = Math.floor(D * part);
  if (R % 2 || R > D || R === 0) {
    source.fail(key, `a factor that rotates an even count of ${D} numbers`);
  }
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

/** YaRN's default factor of cosines and sines: 0.1 · mscale · ln(factor) + 1. */
function yarnMagnitude(settings: ConfigKeys, factor: number): number {
  const magnitude = (scale = 1) => factor <= 1 ? 1 : 0.1 * scale * Math.log(factor) + 1;
  if (!settings.value("mscale") || !settings.value("mscale_all_dim")) return magnitude();
  return magnitude(settings.positive("mscale")) / magnitude(settings.positive("mscale_all_dim"));
}
