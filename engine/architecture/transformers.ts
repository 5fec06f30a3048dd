/**
 * Reader of transformers' configurations, by the table of the family.
 *
 * @module
 */
import type { FamilyFacts, FlagOrKey } from "./families.ts";
import { ConfigKeys } from "./keys.ts";
import { COMMON, type Family, type NormPlaces, type Outline, type Rope } from "./record.ts";
import { readRopes } from "./rope.ts";

/** Reads the configuration of a family in `families.ts`. */
export function readTransformers(
  config: Readonly<Record<string, unknown>>,
  where: string,
  family: Family,
  facts: FamilyFacts,
): Outline {
  const keys = new ConfigKeys(config, where, facts);
  checkOnly(keys, facts);
  const nHead = keys.size("num_attention_heads");
  const nEmbd = keys.size("hidden_size");
  const nKvHead = facts.ungrouped ? nHead : keys.sizeOrNull("num_key_value_heads") ?? nHead;
  if (nHead % nKvHead) keys.fail("num_key_value_heads", `a divisor of the ${nHead} heads`);
  const headDim = keys.sizeOrNull("head_dim") ??
    keys.headDim("hidden_size", "num_attention_heads");
  const norms = normPlaces(keys, facts);
  return {
    ...COMMON,
    family,
    vocabSize: keys.size("vocab_size"),
    nHead,
    nKvHead,
    nEmbd,
    headDim,
    nInner: keys.size("intermediate_size", facts.innerPerWidth && facts.innerPerWidth * nEmbd),
    bias: {
      qkv: flag(keys, facts.bias?.qkv),
      attnProj: flag(keys, facts.bias?.attnProj),
      mlp: flag(keys, facts.bias?.mlp),
      norm: facts.norm === "layer",
      lmHead: facts.bias?.lmHead ?? false,
    },
    activation: keys.activation("hidden_act", undefined, facts.activations),
    gated: facts.gated,
    norm: { kind: facts.norm, eps: keys.positive("norm_eps"), offset: facts.normOffset ?? 0 },
    norms,
    finalNorm: norms !== "sum" && !flag(keys, facts.noFinalNorm),
    parallel: facts.parallel && flag(keys, facts.parallel.when) ? facts.parallel.norms : null,
    qkNorm: qkNormOf(keys, facts),
    positionOffset: facts.positionOffset ?? 0,
    ...readLayers(keys, facts, headDim),
    ...readScales(keys, facts, nEmbd),
    tied: keys.flag("tie_word_embeddings"),
    bosId: keys.ids("bos_token_id")[0] ?? null,
    eosIds: keys.ids("eos_token_id"),
  };
}

/** Number and shapes of the layers, context length, rotary positions. */
function readLayers(keys: ConfigKeys, facts: FamilyFacts, headDim: number) {
  const nLayer = keys.size("num_hidden_layers");
  const maxPositions = keys.size("max_position_embeddings");
  const { rope, ropeLocal } = facts.rope
    ? readRopes(keys, { facts: facts.rope, headDim, maxPositions })
    : { rope: null, ropeLocal: null };
  const rotates = facts.noRopeLayers ? rotaryLayers(keys, nLayer) : () => true;
  const slides = slidingLayers(keys, facts, nLayer, rotates);
  const attentionScale = readAttentionScale(keys, facts, headDim);
  const { window } = facts;
  const isOn = window && (!("when" in window) || keys.flag(window.when));
  const width = isOn ? keys.sizeOrNull("sliding_window") : null;
  return {
    nLayer,
    blockSize: contextLength(rope, maxPositions),
    rope,
    ropeLocal,
    layerOf: (layer: number) => ({
      rope: rotates(layer) ? slides(layer) && ropeLocal || rope : null,
      attentionScale,
      window: slides(layer) ? width : null,
    }),
  };
}

/** Longest context in tokens. YaRN's configurations state the original length and a factor. */
function contextLength(rope: Rope | null, maxPositions: number): number {
  if (rope?.scaling?.type !== "yarn") return maxPositions;
  return Math.max(maxPositions, Math.floor(rope.scaling.factor * rope.scaling.originalPositions));
}

/** Predicate of layers with rotary positions, in families where some have none. */
function rotaryLayers(keys: ConfigKeys, nLayer: number): (layer: number) => boolean {
  if (!keys.has("no_rope_layers")) {
    const interval = keys.size("no_rope_layer_interval");
    return (layer) => (layer + 1) % interval !== 0;
  }
  const list = keys.value("no_rope_layers");
  const isList = Array.isArray(list) && list.length >= nLayer;
  if (!isList || !list.every((rotary) => rotary === 0 || rotary === 1)) {
    keys.fail("no_rope_layers", `a list of a 0 or a 1 for each of ${nLayer} layers`);
  }
  return (layer) => (list as unknown[])[layer] === 1;
}

/** Predicate of layers with a sliding window. */
function slidingLayers(
  keys: ConfigKeys,
  { window }: FamilyFacts,
  nLayer: number,
  rotates: (layer: number) => boolean,
): (layer: number) => boolean {
  if (!window) return () => false;
  if (window.kind === "all") return () => true;
  if (keys.has("layer_types")) {
    const list = keys.value("layer_types");
    const kinds = ["full_attention", "sliding_attention"];
    const isList = Array.isArray(list) && list.length === nLayer;
    if (!isList || !list.every((kind) => kinds.includes(kind))) {
      keys.fail("layer_types", `a list of ${kinds.join(" or ")} for each of ${nLayer} layers`);
    }
    return (layer) => (list as unknown[])[layer] === "sliding_attention";
  }
  switch (window.kind) {
    case "pattern": {
      const every = window.everyKey ? keys.size(window.everyKey, window.every) : window.every;
      return (layer) => (layer + 1) % every !== 0;
    }
    case "from": {
      const from = keys.value(window.fromKey);
      if (typeof from !== "number" || !Number.isInteger(from) || from < 0) {
        return keys.fail(window.fromKey, "a number of layers");
      }
      return (layer) => layer >= from;
    }
    case "noRope":
      return (layer) => !rotates(layer);
  }
}

/** Factor of the attention scores: from the file, or 1/√D. */
function readAttentionScale(
  keys: ConfigKeys,
  { scales: { attention, attentionRoot } = {} }: FamilyFacts,
  headDim: number,
): number {
  if (attention) return keys.positive(attention);
  return 1 / Math.sqrt(attentionRoot ? keys.positive(attentionRoot) : headDim);
}

/** Factors of embeddings, residuals and logits; soft caps of scores and logits. */
function readScales(keys: ConfigKeys, { scales = {}, embedRoot }: FamilyFacts, nEmbd: number) {
  const factor = (key?: string) => key ? keys.positive(key) : 1;
  const cap = (key?: string) => key ? keys.positiveOrNull(key) : null;
  return {
    attentionSoftCap: cap(scales.attentionSoftCap),
    logitSoftCap: cap(scales.logitSoftCap),
    embedScale: embedRoot ? Math.sqrt(nEmbd) : factor(scales.embed),
    embedScaleRounded: embedRoot ?? false,
    residualScale: factor(scales.residual),
    logitScale: 1 / factor(scales.logitDivisor),
  };
}

function flag(keys: ConfigKeys, value: FlagOrKey = false): boolean {
  return typeof value === "string" ? keys.flag(value) : value;
}

function normPlaces(keys: ConfigKeys, { norms = "pre" }: FamilyFacts): NormPlaces {
  if (typeof norms === "string") return norms;
  return keys.flag(norms.preKey) ? "pre" : "sum";
}

function qkNormOf(keys: ConfigKeys, { qkNorm }: FamilyFacts): Outline["qkNorm"] {
  if (typeof qkNorm !== "object") return qkNorm ?? null;
  return keys.flag(qkNorm.headKey) ? "head" : null;
}

/** Refuses unsupported values. */
function checkOnly(keys: ConfigKeys, { only = {}, same = {} }: FamilyFacts): void {
  for (const [key, value] of Object.entries(only)) {
    if (keys.has(key) && keys.value(key) !== value) keys.fail(key, JSON.stringify(value));
  }
  for (const [key, other] of Object.entries(same)) {
    if (keys.has(key) && keys.value(key) !== keys.value(other)) {
      keys.fail(key, `${other} (${keys.value(other)})`);
    }
  }
}
