/**
 * Names of the parts of a split GGUF: `NAME-00001-of-0000N.gguf`.
 *
 * @module
 */

const PART = /-(\d{5})-of-(\d{5})(?=\.gguf$)/i;

/** Number of a part, from 1, and of all parts, by a file's name; undefined for a whole file. */
export function ggufPart(path: string): { number: number; count: number } | undefined {
  const [, number, count] = PART.exec(path) ?? [];
  return number === undefined ? undefined : { number: Number(number), count: Number(count) };
}

/** Path of another part of the same model. */
export function partPath(path: string, part: number): string {
  return path.replace(PART, (_, __, count) => `-${String(part).padStart(5, "0")}-of-${count}`);
}
