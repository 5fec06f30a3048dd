/**
 * Names of GGUF files, and of the parts of a split one: `NAME-00001-of-0000N.gguf`.
 *
 * @module
 */

/** Files of a vision tower or of a quantiser, which are no models. */
const OTHERS = /(^|[-_./])(mmproj|imatrix)/i;

/** Whether a path is that of a GGUF file, by its ending. */
export function isGguf(path: string): boolean {
  return /\.gguf$/i.test(path);
}

/** Whether a path is that of a GGUF model, or of the first part of one. */
export function isGgufModel(path: string): boolean {
  return isGguf(path) && !OTHERS.test(path) && (ggufPart(path)?.number ?? 1) === 1;
}

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
