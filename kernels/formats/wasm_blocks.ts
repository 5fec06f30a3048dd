/**
 * WASM form of a blocked format: panels of words, a panel as F32, a table's row.
 *
 * Everything is derived from the fields of a block (`BlockForm`): the codes of a word as pairs of
 * 16-bit integers, and the scale and minimum of each part.
 *
 *     w = scale · (code + offset) + min
 *
 * @module
 */
import { f32x4, i16x8, i32x4, ints, v128, vectors } from "../asm/assembler.ts";
import type { FunctionBuilder, Int, Local, ModuleBuilder, Value } from "../asm/assembler.ts";
import {
  fieldsOf,
  fieldsOfRow,
  firstLine,
  halfOfRow,
  packBlocks,
  panelBlockBytes,
} from "./block_panels.ts";
import type {
  BlockCodes,
  BlockFields,
  BlockForm,
  BlockPairs,
  BlockPart,
  PanelCopy,
  StoredFormat,
  WasmFormat,
} from "./format.ts";
import { PANEL_COLUMNS } from "./panels.ts";

/** Bytes of a line of 16 F32. */
const WIDE_LINE = 4 * PANEL_COLUMNS;

/** The WASM form of blocks of `bytes` bytes and `block` numbers. */
export function wasmBlocks(
  { block, bytes }: Pick<StoredFormat, "block" | "bytes">,
  form: BlockForm,
  encode?: WasmFormat["encode"],
): WasmFormat {
  const panelBytes = (K: number) => K / block * panelBlockBytes(form);
  return {
    blocks: form,
    reader: null,
    layout([N, K]) {
      const pitch = panelBytes(K);
      return { parts: 1, inputs: K, pitch, apart: Math.ceil(N / PANEL_COLUMNS) * pitch };
    },
    widen: (m, [, K]) => widenPanel(m, form, K / block, block),
    pairs: null,
    eachOfRow(f, table, row, [, K], body) {
      eachOfRow(f, form, { table, row, pitch: panelBytes(K), bytes: 4 * K, block }, body);
    },
    pack(m) {
      return packBlocks(m, form, block, bytes);
    },
    encode,
  };
}

/** Scale and minimum of a part, set once for all its codes. */
function scalesOf(f: FunctionBuilder, { scale, min, offset }: BlockPart, fields: BlockFields) {
  const scales = f.local("v128", "scale");
  const mins = f.local("v128", "min");
  scales.set(scale(fields));
  if (min) mins.set(min(fields));
  return (code: Value<"v128">): Value<"v128"> => {
    const q = offset === 0 ? code : i32x4.add(code, i32x4.splat(offset));
    const scaled = f32x4.convertI32x4S(q).times(scales);
    return min ? scaled.plus(mins) : scaled;
  };
}

/** Lower and upper 16-bit integers of four lanes, as I32. */
const lower = (v: Value<"v128">) => i32x4.shrS(i32x4.shl(v, 16), 16);
const upper = (v: Value<"v128">) => i32x4.shrS(v, 16);

/** Copies a panel to F32 lines of 16. */
function widenPanel(
  m: ModuleBuilder,
  form: BlockForm,
  blocks: number,
  block: number,
): PanelCopy {
  const quads = PANEL_COLUMNS / 4;
  // Unrolled, the code of Q6_K would take V8 50 ms and 10 MB to compile.
  const unrolled = block > 32 ? 1 : quads;
  return m.define(ints("to", "from"), "void", (f, { to, from }) => {
    const { end, step, at, half, into } = f.locals(ints("end", "step", "at", "half", "into"));
    const { word, codes } = f.locals(vectors("word", "codes"));
    const store = (first: number, quad: number, v: Value<"v128">) =>
      f.store(into, v, first * WIDE_LINE + 16 * quad);
    end.set(to.plus(blocks * block * WIDE_LINE));
    f.for(to, to, end, block * WIDE_LINE, () => {
      at.set(from);
      half.set(from);
      into.set(to);
      f.for(step, 0, quads, unrolled, () => {
        for (let quad = 0; quad < unrolled; quad++) {
          const fields = fieldsOf(form, at, quad, half);
          eachPart(form, (part, first) => {
            const number = scalesOf(f, part, fields);
            for (const index of part.codeWords) {
              word.set(fields.word(index));
              for (const four of part.codes(word, index, fields)) {
                const { even, odd } = pairsOf(four, part, codes);
                for (const [i, pair] of [even, odd].entries()) {
                  store(first + 4 * four.group + i, quad, number(lower(pair)));
                  store(first + 4 * four.group + i + 2, quad, number(upper(pair)));
                }
              }
            }
          });
        }
        at.advance(16 * unrolled);
        half.advance(8 * unrolled);
        into.advance(16 * unrolled);
      });
      from.advance(panelBlockBytes(form));
    });
  });
}

/** Calls `body` with each part and its first input. */
export function eachPart(
  { parts }: Pick<BlockForm, "parts">,
  body: (part: BlockPart, first: number) => void,
): void {
  let first = 0;
  for (const part of parts) {
    body(part, first);
    first += part.inputs;
  }
}

/** Loops over a row: `body` gets four neighbouring numbers, and their offset in F32. */
function eachOfRow(
  f: FunctionBuilder,
  form: BlockForm,
  { table, row, pitch, bytes, block }: {
    readonly table: Local<Int>;
    readonly row: Local<Int>;
    readonly pitch: number;
    readonly bytes: number;
    readonly block: number;
  },
  body: (v: Local<"v128">, at: Local<Int>, lanes: number) => void,
): void {
  const { from, half, at, start } = f.locals(ints("from", "half", "at", "start"));
  const { word, codes, v } = f.locals(vectors("word", "codes", "v"));
  const fields = fieldsOfRow(form, from, half);
  from.set(table.plus(row.shr(Math.log2(PANEL_COLUMNS)).times(pitch)));
  half.set(from.plus(halfOfRow(row)));
  from.set(from.plus(firstLine(form)).plus(row.and(PANEL_COLUMNS - 1).shl(2)));
  f.for(start, 0, bytes, 4 * block, () => {
    eachPart(form, (part, first) => {
      const number = scalesOf(f, part, fields);
      for (const index of part.codeWords) {
        word.set(fields.word(index));
        for (const four of part.codes(word, index, fields)) {
          v.set(number(inOrder(pairsOf(four, part, codes))));
          at.set(start.plus(4 * (first + 4 * four.group)));
          body(v, at, 4);
        }
      }
    });
    from.advance(panelBlockBytes(form));
    half.advance(panelBlockBytes(form));
  });
}

/** The four codes of a group in order, as I32; all lanes hold the same output. */
function inOrder({ even, odd }: BlockPairs): Value<"v128"> {
  const halves = v128.shuffleBytes(even, odd, [0, 1, 16, 17, 2, 3, 18, 19, 0, 1, 2, 3, 4, 5, 6, 7]);
  return i32x4.extendLowI16x8S(halves);
}

/** Codes as 16-bit integers; `codes` is a variable for their bytes. */
export function pairsOf(
  { bytes, pairs }: BlockCodes,
  { most }: Pick<BlockPart, "most">,
  codes: Local<"v128">,
): BlockPairs {
  if (pairs) return pairs;
  codes.set(bytes);
  const odd = most === null ? i16x8.shrS(codes, 8) : i16x8.shrU(codes, 8);
  const even = most === null
    ? i16x8.shrS(i16x8.shl(codes, 8), 8)
    : codes.and(i32x4.splat(0x00ff00ff));
  return { even, odd };
}

/** Nibbles of all bytes. */
const NIBBLES = i32x4.splat(0x0f0f0f0f);

/** The lower nibbles of all bytes. */
export function lowNibbles(word: Value<"v128">): Value<"v128"> {
  return word.and(NIBBLES);
}

/** The upper nibbles of all bytes. */
export function highNibbles(word: Value<"v128">): Value<"v128"> {
  return i32x4.shrU(word, 4).and(NIBBLES);
}

/** Two groups of a word of nibbles in the order of Q4_0: inputs j and j + 16 in byte j. */
export function nibbleCodes(word: Value<"v128">, group: number): BlockCodes[] {
  const even = (v: Value<"v128">) => v.and(i32x4.splat(0x000f000f));
  return [{
    group,
    bytes: lowNibbles(word),
    pairs: { even: even(word), odd: even(i32x4.shrU(word, 8)) },
  }, {
    group: group + 4,
    bytes: highNibbles(word),
    pairs: { even: even(i32x4.shrU(word, 4)), odd: i16x8.shrU(word, 12) },
  }];
}

/**
 * Codes of five bits: nibbles as `nibbleCodes`, and their fifth bits in `high`, bit g of byte b for
 * input 4g + b (`BlockForm.fifths`).
 */
export function fifthBits(
  word: Value<"v128">,
  group: number,
  high: Value<"v128">,
): BlockCodes[] {
  return nibbleCodes(word, group).map(({ group, bytes }) => ({
    group,
    bytes: bytes.or(moveBits(high, group, 4, 16)),
  }));
}

/** Byte `k` of a block's bytes that begin at word `first`, as I32 of some of its bits. */
export function bitsOfByte(
  { word }: BlockFields,
  first: number,
  k: number,
  { from = 0, mask = 255 }: { readonly from?: number; readonly mask?: number },
): Value<"v128"> {
  return i32x4.shrU(word(first + (k >> 2)), 8 * (k & 3) + from).and(i32x4.splat(mask));
}

/** Bits `from` … of all bytes, moved to bit `to` …, under `mask`: a mask of one byte at `to`. */
export function moveBits(
  v: Value<"v128">,
  from: number,
  to: number,
  mask: number,
): Value<"v128"> {
  const moved = from > to ? i32x4.shrU(v, from - to) : from < to ? i32x4.shl(v, to - from) : v;
  return moved.and(i32x4.splat(Math.imul(mask, 0x01010101)));
}

/** The integers from `first` on. */
export function range(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => first + i);
}
