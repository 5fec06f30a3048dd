/**
 * Character tokenizer of LabCore and nanoGPT: one id per code point; an id is the index in the
 * vocabulary's list.
 *
 * @module
 */
import { CheckpointError } from "../errors.ts";
import type { TextStream, Tokenizer } from "./tokenizer.ts";

/**
 * Creates a tokenizer from a character vocabulary.
 * @param vocab parsed from a file: a list of distinct strings of one code point each.
 * @param where name of the file in errors.
 * @throws {CheckpointError} If an entry is not one character or is repeated.
 */
export function charTokenizer(vocab: unknown, where: string): Tokenizer {
  if (!Array.isArray(vocab) || vocab.length === 0) {
    throw new CheckpointError(`Cannot read ${where}: expected vocab to be a list of characters`);
  }
  const entries: readonly unknown[] = vocab;
  const ids = new Map<string, number>();
  const characters = entries.map((entry, id) => {
    if (entry === undefined) return undefined; // an id without a character
    const fail = (expected: string): never => {
      throw new CheckpointError(
        `Cannot read ${where}: expected entry ${id} of vocab to be ${expected}, got ${show(entry)}`,
      );
    };
    // A lone surrogate cannot be written as UTF-8.
    if (typeof entry !== "string" || [...entry].length !== 1 || !entry.isWellFormed()) {
      return fail("one character");
    }
    if (ids.has(entry)) fail(`different from entry ${ids.get(entry)}`);
    ids.set(entry, id);
    return entry;
  });
  return new CharTokenizer(characters, ids);
}

class CharTokenizer implements Tokenizer {
  readonly bosId = null;
  readonly eosIds: readonly number[] = [];

  constructor(
    readonly characters: readonly (string | undefined)[],
    readonly ids: ReadonlyMap<string, number>,
  ) {}

  get vocabSize(): number {
    return this.characters.length;
  }

  encode(text: string): number[] {
    const ids: number[] = [];
    let at = 0; // in UTF-16 units: text.slice(at) begins with the character in question
    for (const character of text) {
      const id = this.ids.get(character);
      if (id === undefined) {
        throw new RangeError(
          `Cannot encode ${JSON.stringify(character)} (${
            codeOf(character)
          }) at ${at}: not among the ${this.vocabSize} characters of the vocabulary`,
        );
      }
      ids.push(id);
      at += character.length;
    }
    return ids;
  }

  decode(ids: readonly number[]): string {
    let text = "";
    for (const id of ids) text += this.#character(id);
    return text;
  }

  stream(): TextStream {
    // Each id is a whole character: no text is held back.
    return { push: (id) => this.#character(id), flush: () => "" };
  }

  applyChatTemplate(): string {
    throw new CheckpointError("Cannot apply a chat template: a character vocabulary has none");
  }

  /** Character of an id. An id past the vocabulary is a padding row of the embedding: U+FFFD. */
  #character(id: number): string {
    if (!Number.isSafeInteger(id) || id < 0) {
      throw new RangeError(`Cannot decode ${id}: expected an integer of at least 0`);
    }
    return this.characters[id] ?? "\ufffd";
  }
}

/** A value for a message; one from a pickle may be cyclic, deep, or an integer above 2^53. */
function show(entry: unknown): string {
  try {
    return JSON.stringify(entry).slice(0, 200);
  } catch {
    return `another ${typeof entry}`;
  }
}

/** Code point of a character as U+0041. */
function codeOf(character: string): string {
  return `U+${character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}`;
}
