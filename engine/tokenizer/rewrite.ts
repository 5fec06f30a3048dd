/**
 * Writes a normalizer or a pre-tokenizer of a tokenizer.json anew, so that the library does
 * what Hugging Face's own does. Where the library leaves an option out, or takes JavaScript's
 * white space, digits and lower case for Unicode's, the same is said by steps that it does
 * right: Replace, and Split by an explicit pattern (there the library turns `\s`, `\w` and
 * the like into Unicode's).
 *
 * @module
 */
import { isRecord } from "../json.ts";
import { withoutPossessive } from "./possessive.ts";
import { readBehavior } from "./split.ts";
import { type Fail, isId, show, Unread } from "./vocabulary.ts";

type Step = Record<string, unknown>;

/** GPT-2's words; what ByteLevel splits by unless it is told not to. */
const GPT2_WORDS = String
  .raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;

/** Inside of a class: punctuation, and ASCII's symbols with it. */
const PUNCTUATION = String.raw`\p{P}!-\/:-@\[-\x60{-~`;

/** The blocks that BertNormalizer takes for Chinese characters. */
const CHINESE = String.raw`[\u4E00-\u9FFF\u3400-\u4DBF\u{20000}-\u{2A6DF}\u{2A700}-\u{2B73F}` +
  String.raw`\u{2B740}-\u{2B81F}\u{2B820}-\u{2CEAF}\uF900-\uFAFF\u{2F800}-\u{2FA1F}]`;

/** JavaScript writes a sigma that ends a word as ς; Rust looks at each character alone. */
const SIGMA: Step = { type: "Replace", pattern: { String: "Σ" }, content: "σ" };

/** The normalizer for the library. */
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
            // The content is of JavaScript's replace(): $& is what was found.
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
        // From the first of the spaces only: to try from each of them takes time squared.
        ...(step.strip_right ? [remove(String.raw`(?<!\s)\s+\z`)] : []),
      ]);
    case "Prepend":
      asText(step.prepend, "the text of Prepend", fail);
      return step;
    default:
      return step;
  }
}

/** The pre-tokenizer for the library. */
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
        // Metaspace with a space for its mark only sets one before.
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

/** How Metaspace sets a mark before the text; older files have another name for it. */
export function prependScheme({ prepend_scheme, add_prefix_space }: Step): unknown {
  return prepend_scheme ?? (add_prefix_space === false ? "never" : "always");
}

/** Metaspace's mark, one character. */
export function metaspaceMark({ replacement = "▁" }: Step, fail: Fail): string {
  const mark = asText(replacement, "the replacement of Metaspace", fail);
  if ([...mark].length !== 1) {
    fail(`the replacement of Metaspace to be one character, got ${show(mark)}`);
  }
  return mark;
}

function metaspace(step: Step, fail: Fail): Step {
  const replacement = metaspaceMark(step, fail);
  const marked = { type: "Metaspace", replacement, prepend_scheme: prependScheme(step) };
  if (step.split === false) return marked;
  return sequence("pretokenizers", [
    marked,
    split(escape(replacement), "MergedWithNext"),
  ]);
}

/** A Split; `withSplits` adds the behaviors that the library lacks. */
function split(pattern: string, name: unknown, invert = false): Step {
  const behavior = readBehavior(name);
  if (!behavior) throw new Unread(`a Split with behavior ${show(name)}`);
  return { type: "Split", pattern: portable({ Regex: pattern }), behavior, invert };
}

/** Matches, and the text between them. */
function isolate(pattern: string): Step {
  return split(pattern, "isolated");
}

/** Matches, without the text between them. */
function matches(pattern: string): Step {
  return split(pattern, "removed", true);
}

/** A pattern for the library, which drops the second sign of a possessive quantifier. */
function portable(pattern: { Regex?: string; String?: string }): Step {
  return pattern.Regex === undefined ? pattern : { Regex: withoutPossessive(pattern.Regex) };
}

/** Takes away what matches. */
function remove(pattern: string): Step {
  return { type: "Replace", pattern: { Regex: pattern }, content: "" };
}

function sequence(key: string, steps: readonly unknown[], rewrite = (step: unknown) => step): Step {
  return { type: "Sequence", [key]: steps.map((step) => rewrite(step)) };
}

/** A text as a pattern that matches it. */
function escape(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\\/-]/g, "\\$&");
}

/** Checks a pattern of Split or Replace. */
export function checkPattern(pattern: unknown, fail: Fail): { Regex?: string; String?: string } {
  if (isRecord(pattern)) {
    if (typeof pattern.Regex === "string") return { Regex: pattern.Regex };
    if (typeof pattern.String === "string" && pattern.String !== "") {
      return { String: pattern.String };
    }
  }
  return fail(`a pattern of a Regex or a String, got ${show(pattern)}`);
}

/** Checks a step: an object with its type. */
export function asStep(value: unknown, what: string, fail: Fail): Step & { readonly type: string } {
  if (!isRecord(value) || typeof value.type !== "string") {
    return fail(`${what} to be of a type, got ${show(value)}`);
  }
  return { ...value, type: value.type };
}

/** Checks the steps of a sequence. */
export function asList(value: unknown, what: string, fail: Fail): readonly unknown[] {
  return Array.isArray(value) ? value : fail(`${what} to be a list, got ${show(value)}`);
}

/** Checks a text. */
export function asText(value: unknown, what: string, fail: Fail): string {
  return typeof value === "string" ? value : fail(`${what} to be text, got ${show(value)}`);
}
