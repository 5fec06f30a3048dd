/**
 * LabCore's character vocabulary: an id for each code point of the training text,
 * in the order of its list.
 *
 * @module
 */
import { CheckpointError } from "../errors.ts";
import type { TextStream, Tokenizer } from "./tokenizer.ts";

/**
 * Makes a tokenizer of a vocabulary.
 * @param vocab as parsed from a file: a list of texts of one code point each, without repetition.
 * @param where names the vocabulary's home in messages.
 * @throws {CheckpointError} naming the entry that is something else.
 */
export function charTokenizer(vocab: unknown, where: string): Tokenizer {
  if (!Array.isArray(vocab) || vocab.length === 0) {
    throw new CheckpointError(`Cannot read ${where}: expected vocab to be a list of characters`);
  }
  const entries: readonly unknown[] = vocab;
  const ids = new Map<string, number>();
  const characters = entries.map((entry, id) => {
    const fail = (expected: string): never => {
      throw new CheckpointError(
        `Cannot read ${where}: expected entry ${id} of vocab to be ${expected}, got ${
          JSON.stringify(entry)
        }`,
      );
    };
    // A lone surrogate is no character: text that has it cannot be written out as UTF-8.
    if (typeof entry !== "string" || [...entry].length !== 1 || !entry.isWellFormed()) {
      return fail("one character");
    }
    if (ids.has(entry)) fail(`another than entry ${ids.get(entry)}`);
    ids.set(entry, id);
    return entry;
  });
  return new CharTokenizer(characters, ids);
}

class CharTokenizer implements Tokenizer {
  readonly bosId = null;
  readonly eosIds: readonly number[] = [];

  constructor(readonly characters: readonly string[], readonly ids: ReadonlyMap<string, number>) {}

  get vocabSize(): number {
    return this.characters.length;
  }

  encode(text: string): number[] {
    const ids: number[] = [];
    let at = 0; // an index into the string, so that text.slice(at) begins with what is wrong
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
    // Every id is a whole character, so that nothing is ever held back.
    return { push: (id) => this.#character(id), flush: () => "" };
  }

  applyChatTemplate(): string {
    throw new CheckpointError("Cannot apply a chat template: a character vocabulary has none");
  }

  /**
   * A model may draw an id past the vocabulary, where its own was rounded up: that is a character
   * unknown, and no failure.
   */
  #character(id: number): string {
    if (!Number.isSafeInteger(id) || id < 0) {
      throw new RangeError(`Cannot decode ${id}: expected an integer of at least 0`);
    }
    return this.characters[id] ?? "\ufffd";
  }
}

/** U+0041 for "A". */
function codeOf(character: string): string {
  return `U+${character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}`;
}
