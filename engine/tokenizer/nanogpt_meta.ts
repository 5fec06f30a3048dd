/**
 * nanoGPT's character vocabulary: `meta.pkl` as its `prepare.py` writes it,
 * `{ vocab_size, itos, stoi }`, or the same as JSON.
 *
 * @module
 */
import { unpickle } from "../checkpoint/torch/pickle.ts";
import { CheckpointError } from "../errors.ts";
import { isRecord } from "../json.ts";

/** Largest meta.pkl that is read, in bytes: Unicode has 1.1 million code points. */
export const MAX_META_BYTES = 2 ** 26;

/** Whether a JSON file is nanoGPT's vocabulary and no other's. */
export function isNanogptMeta(file: Record<string, unknown>): boolean {
  return file.type === undefined && (file.itos !== undefined || file.stoi !== undefined);
}

/**
 * The characters of a meta.pkl, in the order of their ids.
 * @throws {CheckpointError} if the file is damaged, asks for anything but plain
 * data, or has no vocabulary.
 */
export function readMetaPickle(bytes: Uint8Array, path: string): unknown[] {
  const root = unpickle(bytes, {
    file: path,
    find: () => undefined,
    persistent: (_, machine) => machine.fail("plain data"),
  });
  if (!(root instanceof Map)) throw noVocabulary(`"${path}"`);
  return vocabularyOf(root.get("itos"), root.get("stoi"), `"${path}"`);
}

/** The characters of the same as JSON, whose keys are texts. */
export function readMetaJson({ itos, stoi }: Record<string, unknown>, where: string): unknown[] {
  const characters = isRecord(itos)
    ? new Map(Object.entries(itos).map(([id, character]) => [Number(id), character]))
    : itos;
  return vocabularyOf(characters, isRecord(stoi) ? new Map(Object.entries(stoi)) : stoi, where);
}

/**
 * Characters by their ids.
 * @param itos a dict from ids to characters, or the list of characters.
 * @param stoi a dict from characters to ids, taken where there is no `itos`.
 */
function vocabularyOf(itos: unknown, stoi: unknown, where: string): unknown[] {
  if (Array.isArray(itos)) return itos;
  const pairs = itos instanceof Map
    ? [...itos]
    : stoi instanceof Map
    ? [...stoi].map(([character, id]) => [id, character])
    : [];
  if (!pairs.length) throw noVocabulary(where);
  const vocabulary = new Array<unknown>(pairs.length);
  for (const [id, character] of pairs) {
    if (!Number.isInteger(id) || id < 0 || id >= pairs.length || vocabulary[id] !== undefined) {
      throw new CheckpointError(
        `Cannot read ${where}: expected ids from 0 to ${pairs.length - 1}, each once, got ${
          String(id).slice(0, 40)
        }`,
      );
    }
    vocabulary[id] = character;
  }
  return vocabulary;
}

function noVocabulary(where: string): CheckpointError {
  return new CheckpointError(
    `Cannot read ${where}: expected nanoGPT's vocabulary, a dict with itos or stoi`,
  );
}
