/**
 * From tokens back to text, a token at a time. The decoders of a tokenizer.json are links of a
 * chain; each keeps what is not certain yet and gives the rest on. Decoding a list is a stream that
 * is flushed at its end, so that both always agree.
 *
 * As the decoders of Hugging Face's tokenizers, with one difference: a stream of theirs lets the
 * bytes of ByteFallback go as soon as they are characters, and cannot take them back when a later
 * byte makes the whole run invalid; here a run is held until it ends.
 *
 * @module
 */
import { CHARACTER_BYTES } from "./byte_level.ts";
import { withinDeadline } from "./deadline.ts";
import { asList, asStep, asText, checkPattern, metaspaceMark, prependScheme } from "./rewrite.ts";
import { type Fail, isId, show, Unread } from "./vocabulary.ts";

/** A decoder in use; after flush() it is spent. */
export interface Link {
  /** Takes a token; gives those that are certain now. */
  push(token: string): readonly string[];
  /** What was kept. */
  flush(): readonly string[];
}

/** Starts decoding anew. */
export type NewLink = () => Link;

/** Text of bytes that are no UTF-8. */
const UNKNOWN = "\ufffd";

/** UTF-16 units of what a step makes of a token, or of all that comes as one. */
const MAX_TEXT = 10_000_000;

/** Reads the decoder of a tokenizer.json; without one, tokens stand apart. */
export function readDecoder(decoder: unknown, fail: Fail): NewLink {
  if (decoder == null) return each((token, i) => i === 0 ? token : ` ${token}`);
  const steps = flatten(decoder, fail);
  const links: NewLink[] = [];
  let fused = false; // from here on all that comes is one token, in pieces
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
 * What a decoder does to a token that comes in pieces, where that needs no look at the whole; its
 * options are checked by now.
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
      const mark = metaspaceMark(step, fail);
      const isPrepended = prependScheme(step) !== "never";
      return each((token, i) => token.replaceAll(mark, i === 0 && isPrepended ? "" : " "));
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
      throw new Unread(`a decoder of type ${show(step.type)}`);
  }
}

/** A link that knows each token's place and keeps none. */
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
    // Three times as fast as replaceAll where there is much to replace.
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

/** Several steps that each write two characters for one would fill the memory. */
function checkLength(text: string): string {
  if (text.length <= MAX_TEXT) return text;
  throw new Error(`it makes a text of ${text.length} characters`);
}

/** Takes a character off the ends of each token, up to so many times. */
function readStrip(step: Step, fail: Fail): NewLink {
  const content = asText(step.content, "the content of Strip", fail);
  if ([...content].length !== 1) {
    fail(`the content of Strip to be one character, got ${show(content)}`);
  }
  const { start = 0, stop = 0 } = step;
  if (!isId(start) || !isId(stop)) return fail("start and stop of Strip to be numbers");
  return each((token) => {
    const characters = [...token];
    let [from, to] = [0, characters.length];
    while (from < start && from < to && characters[from] === content) from++;
    while (characters.length - to < stop && to > from && characters[to - 1] === content) to--;
    return characters.slice(from, to).join("");
  });
}

/** The link over all that comes as one token. */
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

/** Characters that stand for bytes; a token with another character is text as it is. */
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

/** Tokens like <0xE2> are bytes; a run that is no UTF-8 as a whole is U+FFFD for each of them. */
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
      return [UNKNOWN.repeat(run.length)];
    }
  }
}

/** A suffix that ends a word: a space, but for the last token, which therefore waits. */
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

/** WordPiece's: no space before a mark or within a contraction. */
function cleanUp(text: string): string {
  return text.replaceAll(" .", ".").replaceAll(" ?", "?").replaceAll(" !", "!").replaceAll(
    " ,",
    ",",
  )
    .replaceAll(" ' ", "'").replaceAll(" n't", "n't").replaceAll(" 'm", "'m")
    .replaceAll(" do not", " don't").replaceAll(" 's", "'s").replaceAll(" 've", "'ve")
    .replaceAll(" 're", "'re");
}
