/**
 * Character vocabulary of nanoGPT: the pickle `meta.pkl` of its `prepare.py`,
 * `{ vocab_size, itos, stoi }`, or the same dict as JSON.
 *
 * @module
 */
import { unpickle } from "../checkpoint/torch/pickle.ts";
import { findGlobal } from "../checkpoint/torch/pickle_globals.ts";
import { CheckpointError } from "../errors.ts";
import { isRecord } from "../json.ts";

/** Maximum size of a meta.pkl, in bytes (64 MiB); Unicode has 1.1 million code points. */
export const MAX_META_BYTES = 2 ** 26;

/** Largest number of ids: more than Unicode has code points. */
const MAX_IDS = 2 ** 21;

/** Whether a parsed JSON file is a nanoGPT vocabulary. */
export function isNanogptMeta(file: Record<string, unknown>): boolean {
  return file.type === undefined && (file.itos !== undefined || file.stoi !== undefined);
}

/**
 * Reads the characters of a meta.pkl, in the order of their ids.
 * @throws {CheckpointError} If the file is damaged, contains more than plain data, or has no
 *   vocabulary.
 */
export function readMetaPickle(bytes: Uint8Array, path: string): unknown[] {
  const root = unpickle(bytes, {
    file: path,
    find: findGlobal, // a dict of its own class, NumPy's numbers
    persistent: (_, machine) => machine.fail("plain data"),
  });
  if (!(root instanceof Map)) throw noVocabulary(`"${path}"`);
  return vocabularyOf(root.get("itos"), root.get("stoi"), `"${path}"`);
}

/** Reads the characters of a nanoGPT vocabulary in JSON, whose keys are strings. */
export function readMetaJson({ itos, stoi }: Record<string, unknown>, where: string): unknown[] {
  const characters = isRecord(itos)
    ? new Map(Object.entries(itos).map(([id, character]) => [Number(id), character]))
    : itos;
  return vocabularyOf(characters, isRecord(stoi) ? new Map(Object.entries(stoi)) : stoi, where);
}

/**
 * Characters by id; undefined for an id without a character.
 * @param itos dict from ids to characters, or a list of characters.
 * @param stoi dict from characters to ids; used if `itos` is missing.
 */
function vocabularyOf(itos: unknown, stoi: unknown, where: string): unknown[] {
  if (Array.isArray(itos)) return itos;
  const pairs = itos instanceof Map
    ? [...itos]
    : stoi instanceof Map
    ? [...stoi].map(([character, id]) => [id, character])
    : [];
  if (!pairs.length) throw noVocabulary(where);
  const vocabulary: unknown[] = [];
  for (const [id, character] of pairs) {
    if (!Number.isInteger(id) || id < 0 || id >= MAX_IDS || vocabulary[id] !== undefined) {
      throw new CheckpointError(
        `Cannot read ${where}: expected ids from 0 to ${MAX_IDS - 1}, each once, got ${
          String(id).slice(0, 40)
        }`,
      );
    }
    vocabulary[id] = character;
  }
  // No holes: an id without a character is undefined.
  return Array.from(vocabulary);
}

function noVocabulary(where: string): CheckpointError {
  return new CheckpointError(
    `Cannot read ${where}: expected nanoGPT's vocabulary, a dict with itos or stoi`,
  );
}
