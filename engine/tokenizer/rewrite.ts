/**
 * Normalizers and pre-tokenizers of a tokenizer.json, rewritten for the JavaScript library so that
 * it gives the output of Hugging Face's tokenizers. The library lacks some options, and uses
 * JavaScript's white space, digits and lower case in place of Unicode's. Such steps become Replace,
 * or Split with an explicit pattern, in which the library translates `\s` and `\w` to Unicode.
 *
 * @module
 */
import { isRecord } from "../json.ts";
import { withoutPossessive } from "./possessive.ts";
import { readBehavior } from "./split.ts";
import { type Fail, isId, show, Unsupported } from "./vocabulary.ts";

type Step = Record<string, unknown>;

/** GPT-2's word pattern, the default split of ByteLevel. */
const GPT2_WORDS = String
  .raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;

/** Content of a character class: Unicode punctuation and the symbols of ASCII. */
const PUNCTUATION = String.raw`\p{P}!-\/:-@\[-\x60{-~`;

/** Blocks that BertNormalizer treats as Chinese characters. */
const CHINESE = String.raw`[\u4E00-\u9FFF\u3400-\u4DBF\u{20000}-\u{2A6DF}\u{2A700}-\u{2B73F}` +
  String.raw`\u{2B740}-\u{2B81F}\u{2B820}-\u{2CEAF}\uF900-\uFAFF\u{2F800}-\u{2FA1F}]`;

/** Lower-cases Σ to σ. JavaScript gives ς at the end of a word; Rust ignores the context. */
const SIGMA: Step = { type: "Replace", pattern: { String: "Σ" }, content: "σ" };

/** Rewrites a normalizer for the library. */
export function rewriteNormalizer(normalizer: unknown, fail: Fail): Step | null {
  if (normalizer == null) return null;
  const step = asStep(normalizer, "normalizer", fail);
  switch (step.type) {
    case "Sequence":
      return sequence(
        "normalizers",
        asList(step.normalizers, "normalizers", fail),
        (one) => rewriteNormalizer(one, fail),
      );
    case "Lowercase":
      return { type: "Sequence", normalizers: [SIGMA, step] };
    case "BertNormalizer": {
      const { clean_text = true, handle_chinese_chars = true, lowercase = true } = step;
      return {
        type: "Sequence",
        normalizers: [
          { type: "BertNormalizer", clean_text },
          ...(handle_chinese_chars
            // $& is the match, as in JavaScript's replace().
            ? [{ type: "Replace", pattern: { Regex: CHINESE }, content: " $& " }]
            : []),
          ...(lowercase ? [SIGMA] : []),
          { type: "BertNormalizer", lowercase, strip_accents: step.strip_accents ?? null },
        ],
      };
    }
    case "Replace": {
      const pattern = checkPattern(step.pattern, fail);
      const content = asText(step.content, "the content of Replace", fail);
      return { ...step, pattern: portable(pattern), content: content.replaceAll("$", "$$$$") };
    }
    case "Strip":
      return sequence("normalizers", [
        ...(step.strip_left ? [remove(String.raw`\A\s+`)] : []),
        // The lookbehind allows a match only at the first space; else n spaces take O(n²).
        ...(step.strip_right ? [remove(String.raw`(?<!\s)\s+\z`)] : []),
      ]);
    case "Prepend":
      asText(step.prepend, "the text of Prepend", fail);
      return step;
    default:
      return step;
  }
}

/** Rewrites a pre-tokenizer for the library. */
export function rewritePreTokenizer(preTokenizer: unknown, fail: Fail): Step | null {
  if (preTokenizer == null) return null;
  const step = asStep(preTokenizer, "pre_tokenizer", fail);
  switch (step.type) {
    case "Sequence":
      return sequence(
        "pretokenizers",
        asList(step.pretokenizers, "pretokenizers", fail),
        (one) => rewritePreTokenizer(one, fail),
      );
    case "ByteLevel":
      return sequence("pretokenizers", [
        // Metaspace with a space as its replacement only prepends a space.
        ...(step.add_prefix_space ? [{ type: "Metaspace", replacement: " " }] : []),
        ...(step.use_regex === false ? [] : [isolate(GPT2_WORDS)]),
        { type: "ByteLevel", add_prefix_space: false, use_regex: false },
      ]);
    case "Digits":
      return isolate(step.individual_digits ? String.raw`\p{N}` : String.raw`\p{N}+`);
    case "Whitespace":
      return matches(String.raw`\w+|[^\w\s]+`);
    case "WhitespaceSplit":
      return matches(String.raw`\S+`);
    case "BertPreTokenizer":
      return matches(`[^\\s${PUNCTUATION}]+|[${PUNCTUATION}]`);
    case "Punctuation":
      return split(`[${PUNCTUATION}]`, step.behavior ?? "Isolated");
    case "CharDelimiterSplit":
      return split(escape(asText(step.delimiter, "the delimiter", fail)), "Removed");
    case "Metaspace":
      return metaspace(step, fail);
    case "FixedLength":
      if (!isId(step.length) || step.length === 0) {
        fail(`the length of FixedLength to be a positive number, got ${show(step.length)}`);
      }
      return step;
    case "Split": {
      const { Regex, String: text } = checkPattern(step.pattern, fail);
      return split(Regex ?? escape(text!), step.behavior, step.invert === true);
    }
    default:
      return step;
  }
}

/** When Metaspace prepends its replacement; older files call it add_prefix_space. */
export function prependScheme({ prepend_scheme, add_prefix_space }: Step): unknown {
  return prepend_scheme ?? (add_prefix_space === false ? "never" : "always");
}

/** Metaspace's replacement for a space, one character. */
export function metaspaceReplacement({ replacement = "▁" }: Step, fail: Fail): string {
  const text = asText(replacement, "the replacement of Metaspace", fail);
  if ([...text].length !== 1) {
    fail(`the replacement of Metaspace to be one character, got ${show(text)}`);
  }
  return text;
}

function metaspace(step: Step, fail: Fail): Step {
  const replacement = metaspaceReplacement(step, fail);
  const replaced = { type: "Metaspace", replacement, prepend_scheme: prependScheme(step) };
  if (step.split === false) return replaced;
  return sequence("pretokenizers", [
    replaced,
    split(escape(replacement), "MergedWithNext"),
  ]);
}

/** A Split step; `withSplits()` adds the behaviors that the library lacks. */
function split(pattern: string, name: unknown, invert = false): Step {
  const behavior = readBehavior(name);
  if (!behavior) throw new Unsupported(`a Split with behavior ${show(name)}`);
  return { type: "Split", pattern: portable({ Regex: pattern }), behavior, invert };
}

/** A Split step that keeps matches and the text between them as separate words. */
function isolate(pattern: string): Step {
  return split(pattern, "isolated");
}

/** A Split step that keeps matches and drops the text between them. */
function matches(pattern: string): Step {
  return split(pattern, "removed", true);
}

/** A pattern for the library, which drops the + of a possessive quantifier. */
function portable(pattern: { Regex?: string; String?: string }): Step {
  return pattern.Regex === undefined ? pattern : { Regex: withoutPossessive(pattern.Regex) };
}

/** A Replace step that deletes matches. */
function remove(pattern: string): Step {
  return { type: "Replace", pattern: { Regex: pattern }, content: "" };
}

function sequence(key: string, steps: readonly unknown[], rewrite = (step: unknown) => step): Step {
  return { type: "Sequence", [key]: steps.map((step) => rewrite(step)) };
}

/** Escapes text for use as a pattern. */
function escape(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\\/-]/g, "\\$&");
}

/** Checks the pattern of a Split or Replace. */
export function checkPattern(pattern: unknown, fail: Fail): { Regex?: string; String?: string } {
  if (isRecord(pattern)) {
    if (typeof pattern.Regex === "string") return { Regex: pattern.Regex };
    if (typeof pattern.String === "string" && pattern.String !== "") {
      return { String: pattern.String };
    }
  }
  return fail(`a pattern of a Regex or a String, got ${show(pattern)}`);
}

/** Checks a step: an object with a type. */
export function asStep(value: unknown, what: string, fail: Fail): Step & { readonly type: string } {
  if (!isRecord(value) || typeof value.type !== "string") {
    return fail(`${what} to be an object with a type, got ${show(value)}`);
  }
  return { ...value, type: value.type };
}

/** Checks that a value is a list. */
export function asList(value: unknown, what: string, fail: Fail): readonly unknown[] {
  return Array.isArray(value) ? value : fail(`${what} to be a list, got ${show(value)}`);
}

/** Checks that a value is text. */
export function asText(value: unknown, what: string, fail: Fail): string {
  return typeof value === "string" ? value : fail(`${what} to be text, got ${show(value)}`);
}
