/**
 * Quantisation of a panel's rows while they are packed: 16 rows of floats become blocks, and the
 * blocks are packed.
 *
 *     NK   a row at a time      ──widen──▶ F32 [count] ────────┐
 *     KN   columns [count, 16]  ──transpose──▶ F32 [16, count] ┴─encode─▶ blocks of 16 rows ─pack─▶
 *
 * A thread has a range of scratch:
 *
 *     │ scratch of the encoder │ blocks of 16 rows │ F32: a row, or 16 of them │
 *
 * @module
 */
import { call, i32, i32x4, ints, type ModuleBuilder, v128 } from "../asm/assembler.ts";
import type { Func, FunctionBuilder, Int, Ints, Value } from "../asm/assembler.ts";
import { f16Low } from "../formats/f16.ts";
import { BYTES, FORMATS, storedBytes, wasmOf, type WeightDtype } from "../formats/mod.ts";
import { ENCODE_SCRATCH, type PanelPacker } from "../formats/format.ts";
import { PANEL_COLUMNS } from "../formats/panels.ts";
import { transposed } from "../formats/wasm_pack.ts";
import type { StoredOrder } from "../tensor.ts";

/** Floats that are quantised while they are packed. */
export const ENCODED = ["F32", "BF16", "F16"] as const;

/** Dtype of the rows. */
export type EncodedFrom = (typeof ENCODED)[number];

/** Bytes of a thread's scratch for pieces of `count` inputs per row. */
export function encodeScratch(
  { dtype, stored }: { readonly dtype: WeightDtype; readonly stored: StoredOrder },
  count: number,
): number {
  const floats = BYTES.F32 * count * (stored === "KN" ? PANEL_COLUMNS : 1);
  return ENCODE_SCRATCH + PANEL_COLUMNS * storedBytes(dtype, count) + floats;
}

/** Four stored floats at an address as F32. */
function loadFour(at: Value<Int>, from: EncodedFrom): Value<"v128"> {
  if (from === ENCODED[0]) return v128.load(at);
  const bits = i32x4.extendLowI16x8U(v128.load64Zero(at));
  if (from === ENCODED[1]) return i32x4.shl(bits, 16);
  // Infinity and NaN have the largest exponent, in F32 too.
  const exponent = i32x4.splat(0x7c00);
  const isSpecial = i32x4.eq(bits.and(exponent), exponent);
  return f16Low(bits).or(isSpecial.and(i32x4.splat(0x7f800000)));
}

function defineRow(m: ModuleBuilder, from: EncodedFrom): Func<Ints<"to" | "from" | "count">> {
  return m.define(ints("to", "from", "count"), "void", (f, { to, from: at, count }) => {
    const end = f.local("int", "end");
    end.set(to.plus(count.times(BYTES.F32)));
    f.for(to, to, end, 4 * BYTES.F32, () => {
      f.store(to, loadFour(at, from));
      at.advance(storedBytes(from, 4));
    });
  });
}

function defineColumns(
  m: ModuleBuilder,
  from: EncodedFrom,
): Func<Ints<"to" | "from" | "count" | "pitch" | "mask">> {
  const params = ints("to", "from", "count", "pitch", "mask");
  return m.define(params, "void", (f, { to, from: at, count, pitch, mask }) => {
    const { k, row, place } = f.locals(ints("k", "row", "place"));
    const rows = f.array("v128", "row", 4);
    f.for(k, 0, count, 4, () => {
      for (let column = 0; column < PANEL_COLUMNS; column += 4) {
        row.set(at.plus(storedBytes(from, column)));
        for (const four of rows) {
          four.set(loadFour(row, from).and(v128.load(mask, BYTES.F32 * column)));
          row.advance(pitch);
        }
        place.set(to.plus(count.times(BYTES.F32 * column)));
        for (const four of transposed(f, rows, BYTES.F32)) {
          f.store(place, four);
          place.advance(count.times(BYTES.F32));
        }
      }
      to.advance(4 * BYTES.F32);
      at.advance(pitch.times(4));
    });
  });
}

/** How a panel is made of floats. */
export interface EncodedKind {
  readonly dtype: WeightDtype;
  readonly stored: StoredOrder;
  readonly from: EncodedFrom;
}

/** Defines the packing of a panel; `rangeIn` gives the address of the thread's scratch. */
export function encodeAndPack(
  m: ModuleBuilder,
  { dtype, stored, from }: EncodedKind,
  rangeIn: (f: FunctionBuilder) => Value<Int>,
): PanelPacker {
  const { block, bytes } = FORMATS[dtype];
  const { encode: defineEncode, pack } = wasmOf(dtype);
  const [encode, packRows] = [defineEncode!(m), pack(m, "NK")];
  const isPlain = stored === "NK" && FORMATS[from].view !== null;
  const widenRow = isPlain || stored === "KN" ? null : defineRow(m, from);
  const gather = stored === "KN" ? defineColumns(m, from) : null;
  const params = ints("to", "from", "count", "pitch", "mask");
  return m.define(params, "int", (f, { to, from: rows, count, pitch, mask }) => {
    const { scratch, blocks, numbers, row, at } = f.locals(
      ints("scratch", "blocks", "numbers", "row", "at"),
    );
    const { rowBytes } = f.locals(ints("rowBytes"));
    rowBytes.set(count.div(block).times(bytes));
    scratch.set(rangeIn(f));
    blocks.set(scratch.plus(ENCODE_SCRATCH));
    numbers.set(blocks.plus(rowBytes.times(PANEL_COLUMNS)));
    if (gather) f.do(call(gather, { to: numbers, from: rows, count, pitch, mask }));
    at.set(blocks);
    f.for(row, 0, PANEL_COLUMNS, 1, () => {
      if (widenRow) f.do(call(widenRow, { to: numbers, from: rows, count }));
      f.do(call(encode, { to: at, from: isPlain ? rows : numbers, count, scratch }));
      at.advance(rowBytes);
      rows.advance(pitch);
      if (gather) numbers.advance(count.times(BYTES.F32));
    });
    return call(packRows, { to, from: blocks, count, pitch: rowBytes, mask: i32.const(0) });
  });
}
