/**
 * Streaming token decoders of a tokenizer.json: tokens to text, one token at a time. Llama 2's:
 *
 *     token ─▶ Replace ─▶ ByteFallback ─▶ Fuse ─▶ Strip ─▶ text
 *                         holds bytes
 *
 * Each decoder of the chain holds back text that a later token may still change and passes on the
 * rest. decode() is a stream that is flushed after the last id, so both give the same text.
 *
 * The output is that of Hugging Face's tokenizers, with one difference: their stream emits
 * characters of ByteFallback as soon as their bytes are complete, even if a later byte makes the
 * whole run invalid. Here a run of bytes is held until it ends.
 *
 * @module
 */
import { CHARACTER_BYTES } from "./byte_level.ts";
import { withinDeadline } from "./deadline.ts";
import {
  asList,
  asStep,
  asText,
  checkPattern,
  metaspaceReplacement,
  prependScheme,
} from "./rewrite.ts";
import { type Fail, isId, show, Unsupported } from "./vocabulary.ts";

/** State of a decoder for one sequence; unusable after flush(). */
export interface Link {
  /** Takes a token; returns the text that no later token can change. */
  push(token: string): readonly string[];
  /** Returns the text held back. */
  flush(): readonly string[];
}

/** Creates the state of a decoder for a new sequence. */
export type NewLink = () => Link;

/** Replacement for a byte of invalid UTF-8. */
const REPLACEMENT = "\ufffd";

/** Maximum output of a decoder for one token or fused text, in UTF-16 units. */
const MAX_TEXT = 10_000_000;

/** Reads the decoder of a tokenizer.json; without one, tokens are joined with spaces. */
export function readDecoder(decoder: unknown, fail: Fail): NewLink {
  if (decoder == null) return each((token, i) => i === 0 ? token : ` ${token}`);
  const steps = flatten(decoder, fail);
  const links: NewLink[] = [];
  let fused = false; // the decoders from here on get one token, in pieces
  for (const step of steps) {
    if (step.type === "Fuse") {
      fused = true;
      continue;
    }
    const link = readLink(step, fail);
    links.push(fused ? piecewise(step) ?? whole(link) : link);
    if (step.type === "ByteLevel") fused = true;
  }
  return () => chain(links.map((start) => start()));
}

type Step = ReturnType<typeof asStep>;

function flatten(decoder: unknown, fail: Fail, depth = 0): Step[] {
  const step = asStep(decoder, "decoder", fail);
  if (step.type !== "Sequence") return [step];
  if (depth > 100) return fail("decoders nested no deeper than 100");
  return asList(step.decoders, "decoders", fail).flatMap((one) => flatten(one, fail, depth + 1));
}

/**
 * Decoder of one token that arrives in pieces; undefined if it needs the whole token at once.
 * readLink() has checked its options.
 */
function piecewise({ type, pattern, content, start = 0, stop = 0 }: Step): NewLink | undefined {
  const text = (pattern as { String?: string } | undefined)?.String;
  if (type === "Replace" && text !== undefined && [...text].length === 1) {
    return each((piece) => checkLength(piece.split(text).join(content as string)));
  }
  if (type !== "Strip" || stop !== 0) return undefined;
  return () => {
    let left = start as number;
    const push = (piece: string) => {
      while (left > 0 && piece.startsWith(content as string)) {
        piece = piece.slice((content as string).length);
        left--;
      }
      if (piece !== "") left = 0;
      return [piece];
    };
    return { push, flush: () => [] };
  };
}

function readLink(step: Step, fail: Fail): NewLink {
  switch (step.type) {
    case "ByteLevel":
      return () => new ByteLevel();
    case "ByteFallback":
      return () => new ByteFallback();
    case "Replace":
      return readReplace(step, fail);
    case "Strip":
      return readStrip(step, fail);
    case "Metaspace": {
      const replacement = metaspaceReplacement(step, fail);
      const isPrepended = prependScheme(step) !== "never";
      return each((token, i) => token.replaceAll(replacement, i === 0 && isPrepended ? "" : " "));
    }
    case "WordPiece": {
      const prefix = asText(step.prefix ?? "##", "the prefix of WordPiece", fail);
      const join = (token: string, i: number) =>
        i === 0 ? token : token.startsWith(prefix) ? token.slice(prefix.length) : ` ${token}`;
      return each(step.cleanup === false ? join : (token, i) => cleanUp(join(token, i)));
    }
    case "BPEDecoder": {
      const suffix = asText(step.suffix ?? "</w>", "the suffix of BPEDecoder", fail);
      return () => new Suffix(suffix);
    }
    default:
      throw new Unsupported(`a decoder of type ${show(step.type)}`);
  }
}

/** A decoder that maps each token by itself, given its index, and holds nothing back. */
function each(decode: (token: string, i: number) => string): NewLink {
  return () => {
    let i = 0;
    return { push: (token) => [decode(token, i++)], flush: () => [] };
  };
}

function readReplace(step: Step, fail: Fail): NewLink {
  const { Regex, String: text } = checkPattern(step.pattern, fail);
  const content = asText(step.content, "the content of Replace", fail);
  if (Regex === undefined) {
    // split and join: three times as fast as replaceAll on text with many matches.
    return each((token) => checkLength(token.split(text!).join(content)));
  }
  let pattern: RegExp;
  try {
    pattern = new RegExp(Regex, "gu");
  } catch {
    return fail(`a regular expression, got ${Regex}`);
  }
  return each((token) =>
    checkLength(withinDeadline(token.length, () => token.replace(pattern, () => content)))
  );
}

/** Limits text: a chain of steps that each double its length would exhaust memory. */
function checkLength(text: string): string {
  if (text.length <= MAX_TEXT) return text;
  throw new Error(`it makes a text of ${text.length} characters`);
}

/** Strip: removes up to `start` and `stop` copies of a character from a token's two ends. */
function readStrip(step: Step, fail: Fail): NewLink {
  const content = asText(step.content, "the content of Strip", fail);
  if ([...content].length !== 1) {
    fail(`the content of Strip to be one character, got ${show(content)}`);
  }
  const { start = 0, stop = 0 } = step;
  if (!isId(start) || !isId(stop)) {
    return fail("start and stop of Strip to be integers of at least 0");
  }
  return each((token) => {
    const characters = [...token];
    let [from, to] = [0, characters.length];
    while (from < start && from < to && characters[from] === content) from++;
    while (characters.length - to < stop && to > from && characters[to - 1] === content) to--;
    return characters.slice(from, to).join("");
  });
}

/** Collects all pieces of one token, then decodes it at flush(). */
function whole(start: NewLink): NewLink {
  return () => {
    let text = "";
    return {
      push: (piece) => {
        text += piece;
        return [];
      },
      flush: () => {
        const link = start();
        return [...link.push(text), ...link.flush()];
      },
    };
  };
}

function chain(links: readonly Link[]): Link {
  const through = (tokens: readonly string[], from: number): readonly string[] =>
    links.slice(from).reduce((now, link) => now.flatMap((token) => link.push(token)), tokens);
  return {
    push: (token) => through([token], 0),
    flush: () => links.flatMap((link, i) => through(link.flush(), i + 1)),
  };
}

/** ByteLevel: characters that encode bytes. A token with any other character is plain text. */
class ByteLevel implements Link {
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });

  push(token: string): readonly string[] {
    const bytes = new Uint8Array(token.length);
    for (let i = 0; i < token.length; i++) {
      const byte = CHARACTER_BYTES.get(token[i]);
      if (byte === undefined) return [this.#decode(new TextEncoder().encode(token))];
      bytes[i] = byte;
    }
    return [this.#decode(bytes)];
  }

  flush(): readonly string[] {
    return [this.#decoder.decode()];
  }

  #decode(bytes: Uint8Array): string {
    return this.#decoder.decode(bytes, { stream: true });
  }
}

/** ByteFallback: tokens like <0xE2> are bytes. A run of invalid UTF-8 is one U+FFFD per byte. */
class ByteFallback implements Link {
  #run: number[] = [];

  push(token: string): readonly string[] {
    const byte = /^<0x([0-9a-fA-F]{2})>$/.exec(token);
    if (byte) {
      this.#run.push(parseInt(byte[1], 16));
      return [];
    }
    return [...this.flush(), token];
  }

  flush(): readonly string[] {
    const run = Uint8Array.from(this.#run);
    this.#run = [];
    if (run.length === 0) return [];
    try {
      return [new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(run)];
    } catch {
      return [REPLACEMENT.repeat(run.length)];
    }
  }
}

/** BPEDecoder: the end-of-word suffix becomes a space, except in the last token, which is held. */
class Suffix implements Link {
  #last: string | null = null;

  constructor(readonly suffix: string) {}

  push(token: string): readonly string[] {
    const before = this.#last;
    this.#last = token;
    return before === null ? [] : [before.replaceAll(this.suffix, " ")];
  }

  flush(): readonly string[] {
    return this.#last === null ? [] : [this.#last.replaceAll(this.suffix, "")];
  }
}

/** WordPiece's cleanup: removes spaces before punctuation and within contractions. */
function cleanUp(text: string): string {
  return text.replaceAll(" .", ".").replaceAll(" ?", "?").replaceAll(" !", "!").replaceAll(
    " ,",
    ",",
  )
    .replaceAll(" ' ", "'").replaceAll(" n't", "n't").replaceAll(" 'm", "'m")
    .replaceAll(" do not", " don't").replaceAll(" 's", "'s").replaceAll(" 've", "'ve")
    .replaceAll(" 're", "'re");
}
