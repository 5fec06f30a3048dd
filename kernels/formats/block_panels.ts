/**
 * Panels of blocks: 16 outputs interleaved word by word, so that a vector holds a word of four
 * blocks. Bits are moved, never widened; a form may invert some (`flipped`) or change the order of
 * some (`fifths`).
 *
 *     file   row n:  block 0 │ block 1 │ …              a block: [F16 scale] words w0 w1 … [scale]
 *
 *     panel of rows 0 … 15:  block 0 of all rows │ block 1 of all rows │ …
 *
 *     ┌ scales, if outside the words: 32 bytes ─────────────────┐
 *     │ n0 n1 n2 n3 n4 n5 n6 n7 │ n8 n9 n10 n11 n12 n13 n14 n15 │
 *     ├ line of w0: 64 bytes ──┬ line of w1 ────────────┬ … ────┘
 *     │ n0 │ n1 │ … │ n15      │ n0 │ n1 │ … │ n15      │
 *     └────────────────────────┴────────────────────────┴ …
 *
 * A last panel is padded with zeros.
 *
 * @module
 */
import { i16x8, i32, i32x4, ints, v128 } from "../asm/assembler.ts";
import type { FunctionBuilder, Int, Local, ModuleBuilder, Value } from "../asm/assembler.ts";
import { BYTES } from "./elements.ts";
import { f16Low, plainF16Low } from "./f16.ts";
import type { BlockFields, BlockForm, PanelPacker } from "./format.ts";
import { PANEL_COLUMNS } from "./panels.ts";
import { transposed } from "./wasm_pack.ts";

/** Bytes of a panel's line of words. */
export const LINE = 4 * PANEL_COLUMNS;

/** Bytes of the scales of 16 blocks. */
const HALVES = BYTES.F16 * PANEL_COLUMNS;

/** Exponent bits of two F16: all ones in infinity and NaN. */
const EXPONENTS = 0x7c007c00;

/** Byte of a word's line in the blocks of a panel. */
export function lineOf({ half, line }: Pick<BlockForm, "half" | "line">, word: number): number {
  return (half === null ? 0 : HALVES) + LINE * (line ? line(word) : word);
}

/** Byte of the first line in the blocks of a panel. */
export function firstLine({ half }: Pick<BlockForm, "half">): number {
  return lineOf({ half }, 0);
}

/** Bytes of the blocks of 16 outputs. */
export function panelBlockBytes(form: BlockForm): number {
  return lineOf({ half: form.half }, form.words);
}

/** The highest bits of even bytes. */
const EVEN_SIGNS = i32x4.splat(0x00800080);

/** A word of the file from one of a panel, or the reverse. */
function flip({ flipped }: Pick<BlockForm, "flipped">, word: Value<"v128">): Value<"v128"> {
  return flipped ? word.xor(EVEN_SIGNS) : word;
}

/**
 * Moves bit 4g + b of each lane to bit 8b + g: the index of a bit is rotated by two places, one
 * swap of two places after the other.
 */
function fifthsByByte(f: FunctionBuilder, word: Local<"v128">): void {
  const moved = f.local("v128", "moved");
  for (const [low, high] of [[0, 2], [1, 3], [2, 4], [3, 4]]) {
    const distance = 2 ** high - 2 ** low;
    // Bits that move up: those whose index has a 1 at place `low`, and a 0 at `high`.
    let mask = 0;
    for (let bit = 0; bit < 32; bit++) {
      if (bit >> low & 1 && !(bit >> high & 1)) mask |= 1 << bit;
    }
    moved.set(word.xor(i32x4.shrU(word, distance)).and(i32x4.splat(mask)));
    word.set(word.xor(moved).xor(i32x4.shl(moved, distance)));
  }
}

/**
 * Fields of the blocks of outputs 4·quad … 4·quad + 3; `base` is the address of the 16 blocks, and
 * `half` that of their scales outside the words.
 */
export function fieldsOf(
  form: BlockForm,
  base: Local<Int>,
  quad: number,
  half: Local<Int> = base,
): BlockFields {
  const stored = (index: number) => v128.load(base, lineOf(form, index) + 16 * quad);
  return {
    stored,
    word: (index) => flip(form, stored(index)),
    half() {
      const four = v128.load16x4U(half, 8 * quad);
      return form.parts.length > 1 ? plainF16Low(four) : f16Low(four);
    },
  };
}

/**
 * Fields of one output's block, the same in all lanes; `word` is the address of its column in the
 * first line, `half` that of its scale.
 */
export function fieldsOfRow(
  form: BlockForm,
  word: Local<Int>,
  half: Local<Int>,
): BlockFields {
  const stored = (index: number) => v128.load32Splat(word, lineOf(form, index) - firstLine(form));
  return {
    stored,
    word: (index) => flip(form, stored(index)),
    half: () => f16Low(i32x4.splat(i32.load16U(half))),
  };
}

/** Byte of a row's scale in the scales of its panel. */
export function halfOfRow(row: Value<Int>): Value<Int> {
  return row.and(PANEL_COLUMNS - 1).shl(1);
}

/** Defines the packing of 16 rows of blocks; returns 1 if a scale is not finite. */
export function packBlocks(m: ModuleBuilder, form: BlockForm, block: number, bytes: number) {
  const params = ints("to", "from", "count", "pitch", "mask");
  return m.define(params, "int", (f, { to, from, count, pitch }): Value<Int> => {
    const { at, end, quad, place } = f.locals(ints("at", "end", "quad", "place"));
    const seen = f.local("v128", "seen");
    end.set(from.plus(count.div(block).times(bytes)));
    f.for(from, from, end, bytes, () => {
      if (form.half !== null) packHalves(f, form.half, { to, from, pitch, seen });
      at.set(from);
      place.set(to);
      // A loop: unrolled, the code of Q6_K takes 10 ms to assemble, in place of 5.
      f.for(quad, 0, PANEL_COLUMNS / 4, 1, () => {
        packWords(f, form, { to: place, at, pitch, seen });
        place.advance(16);
      });
      to.advance(panelBlockBytes(form));
    });
    return v128.anyTrue(seen);
  }) satisfies PanelPacker;
}

interface Places {
  readonly to: Local<Int>;
  readonly pitch: Local<Int>;
  /** Bits of lanes with scales that are not finite. */
  readonly seen: Local<"v128">;
}

/** Adds the lanes to `seen` in which an F16 is infinite or NaN. */
function checkHalves(seen: Local<"v128">, halves: Local<"v128">): void {
  const exponents = i32x4.splat(EXPONENTS);
  seen.set(seen.or(i16x8.eq(halves.and(exponents), exponents)));
}

/** Packs the scales outside the words of 16 blocks. */
function packHalves(
  f: FunctionBuilder,
  half: number,
  { to, from, pitch, seen }: Places & { readonly from: Local<Int> },
): void {
  const at = f.local("int", "row");
  const eight = f.array("v128", "halves", 2);
  at.set(from);
  for (const [upper, halves] of eight.entries()) {
    for (let row = 0; row < 8; row++) {
      halves.set(v128.load16Lane(at, halves, row, half));
      at.advance(pitch);
    }
    checkHalves(seen, halves);
    f.store(to, halves, 16 * upper);
  }
}

/** Packs the words of four blocks, the first one at `at`, which becomes the fifth. */
function packWords(
  f: FunctionBuilder,
  form: BlockForm,
  { to, at, pitch, seen }: Places & { readonly at: Local<Int> },
): void {
  const rows = f.array("int", "row", 4);
  const four = f.array("v128", "four", 4);
  for (const row of rows) {
    row.set(at);
    at.advance(pitch);
  }
  const one = f.local("v128", "one");
  const shifted = (v: Local<"v128">) => {
    one.set(i32x4.shl(v, 16));
    return one;
  };
  const store = (word: number, v: Local<"v128">) => {
    if (word === form.pair) checkHalves(seen, v);
    if (word === form.lower) checkHalves(seen, shifted(v));
    if (word === form.fifths) fifthsByByte(f, v);
    f.store(to, flip(form, v), lineOf(form, word));
  };
  const whole = form.words - form.words % 4;
  for (let word = 0; word < whole; word += 4) {
    for (const [i, v] of four.entries()) v.set(v128.load(rows[i], form.first + 4 * word));
    for (const [i, v] of transposed(f, four, 4).entries()) store(word + i, v);
  }
  for (let word = whole; word < form.words; word++) {
    const [v] = four;
    for (const [lane, row] of rows.entries()) {
      v.set(v128.load32Lane(row, v, lane, form.first + 4 * word));
    }
    store(word, v);
  }
}
