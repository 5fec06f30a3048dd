/**
 * Text splitting at matches of a pattern, as `Split` of Hugging Face's tokenizers.
 *
 *     "a--b" at "-"      removed              a b
 *                        isolated             a - - b
 *                        contiguous           a -- b
 *                        merged with previous a- - b
 *                        merged with next     a - -b
 *
 * Inverted, matches and the text between them swap roles.
 *
 * @module
 */

/** Treatment of a match. */
export type Behavior =
  | "removed"
  | "isolated"
  | "contiguous"
  | "mergedwithprevious"
  | "mergedwithnext";

const BEHAVIORS: readonly string[] = [
  "removed",
  "isolated",
  "contiguous",
  "mergedwithprevious",
  "mergedwithnext",
];

/** Parses the name of a behavior in a tokenizer.json; undefined if unknown. */
export function readBehavior(name: unknown): Behavior | undefined {
  const lower = typeof name === "string" ? name.toLowerCase() : "";
  return BEHAVIORS.includes(lower) ? lower as Behavior : undefined;
}

/** Splits text at the matches of a global pattern; no piece is empty. */
export function splitText(
  text: string,
  pattern: RegExp,
  behavior: Behavior,
  isInverted: boolean,
): string[] {
  const pieces: string[] = [];
  let wasMatch = false;
  const add = (start: number, end: number, isBetween: boolean): void => {
    const piece = text.slice(start, end);
    const isMatch = isBetween === isInverted;
    const joins = behavior === "contiguous"
      ? isMatch === wasMatch
      : behavior === "mergedwithprevious"
      ? isMatch && !wasMatch
      : behavior === "mergedwithnext" && !isMatch && wasMatch;
    wasMatch = isMatch;
    if (joins && pieces.length > 0) pieces[pieces.length - 1] += piece;
    else if (behavior !== "removed" || !isMatch) pieces.push(piece);
  };
  let end = 0;
  let isFirst = true;
  for (const { 0: match, index } of text.matchAll(pattern)) {
    // Oniguruma skips an empty match right after another match.
    if (match === "" && index === end && !isFirst) continue;
    if (end < index) add(end, index, true);
    end = index + match.length;
    add(index, end, false);
    isFirst = false;
  }
  if (end < text.length) add(end, text.length, true);
  return pieces.filter((piece) => piece !== "");
}
