/**
 * Byte-pair encoding of one word: of all neighbours that some merge joins, those of the earliest
 * merge are joined, the leftmost first, until none is left. The pairs wait in a heap, so that a
 * word of a megabyte takes ten times as long as a tenth of it; the library's own takes thirty times
 * as long, and an object for every letter.
 *
 * @module
 */

/** Words of so many characters at most are remembered, and so many of them. */
const REMEMBERED = { length: 64, words: 20_000 };

/** A heap's entry is merge · POSITIONS + position: ordered by merge, then from left to right. */
const POSITIONS = 2 ** 28;

/** No merge joins this character with the next. */
const NONE = -1;

/** Merges characters to tokens. */
export class Merger {
  /** Left id · stride + right id, to the place of the merge in the list. */
  readonly #merges = new Map<number, number>();
  /** What a merge makes. */
  readonly #made: Int32Array;
  readonly #stride: number;
  readonly #remembered = new Map<string, string[]>();

  /**
   * @param merges pairs of tokens, the earliest first; both and what they make have ids.
   * @param suffix marks the last character of a word.
   */
  constructor(
    merges: readonly (readonly string[])[],
    readonly ids: ReadonlyMap<string, number>,
    size: number,
    readonly suffix: string,
  ) {
    this.#stride = size + 1; // the last one is that of a character without an id
    this.#made = new Int32Array(merges.length);
    for (const [place, [left, right]] of merges.entries()) {
      this.#merges.set(ids.get(left)! * this.#stride + ids.get(right)!, place);
      this.#made[place] = ids.get(left + right)!;
    }
  }

  /** The tokens of a word; a character that is none stays as it is. */
  merge(word: string): string[] {
    if (word.length > REMEMBERED.length) return this.#merge(word);
    let tokens = this.#remembered.get(word);
    if (!tokens) {
      tokens = this.#merge(word);
      if (this.#remembered.size === REMEMBERED.words) this.#remembered.clear();
      this.#remembered.set(word, tokens);
    }
    return tokens;
  }

  #merge(word: string): string[] {
    // A token is known by the place of its first character.
    const ids = new Int32Array(word.length);
    const end = new Int32Array(word.length);
    let count = 0;
    for (let at = 0; at < word.length; count++) {
      const character = String.fromCodePoint(word.codePointAt(at)!);
      at += character.length;
      const last = at === word.length ? this.suffix : "";
      ids[count] = this.ids.get(character + last) ?? this.#stride - 1;
      end[count] = at;
    }
    const next = Int32Array.from({ length: count }, (_, i) => i + 1);
    const previous = Int32Array.from({ length: count }, (_, i) => i - 1);
    const waiting = new Int32Array(count).fill(NONE); // the merge that would join it with the next
    const heap = new Heap(2 * count);
    const look = (left: number): void => {
      const right = next[left];
      const merge = right < count
        ? this.#merges.get(ids[left] * this.#stride + ids[right]) ?? NONE
        : NONE;
      waiting[left] = merge;
      if (merge !== NONE) heap.push(merge * POSITIONS + left);
    };
    for (let i = 0; i < count; i++) look(i);
    while (heap.size > 0) {
      const entry = heap.pop();
      const left = entry % POSITIONS;
      const merge = (entry - left) / POSITIONS;
      if (waiting[left] !== merge) continue; // one of the two was joined with another since
      const right = next[left];
      ids[left] = this.#made[merge];
      end[left] = end[right];
      waiting[right] = NONE;
      next[left] = next[right];
      if (next[left] < count) previous[next[left]] = left;
      look(left);
      if (previous[left] >= 0) look(previous[left]);
    }
    const tokens: string[] = [];
    for (let i = 0, start = 0; i < count; start = end[i], i = next[i]) {
      tokens.push(word.slice(start, end[i]));
    }
    if (count > 0) tokens[tokens.length - 1] += this.suffix;
    return tokens;
  }
}

/** Numbers, the least first. */
class Heap {
  size = 0;
  readonly #entries: Float64Array;

  constructor(capacity: number) {
    this.#entries = new Float64Array(capacity);
  }

  push(entry: number): void {
    const entries = this.#entries;
    let at = this.size++;
    for (let parent; at > 0 && entries[parent = (at - 1) >> 1] > entry; at = parent) {
      entries[at] = entries[parent];
    }
    entries[at] = entry;
  }

  pop(): number {
    const entries = this.#entries;
    const least = entries[0];
    const entry = entries[--this.size];
    let at = 0;
    for (let child; (child = 2 * at + 1) < this.size; at = child) {
      if (child + 1 < this.size && entries[child + 1] < entries[child]) child++;
      if (entries[child] >= entry) break;
      entries[at] = entries[child];
    }
    entries[at] = entry;
    return least;
  }
}
