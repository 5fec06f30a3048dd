/**
 * WASM code that reads panels of F32, F16 and BF16: matmul's lines, a panel as F32, a table's row.
 *
 * @module
 */
import { i32x4, ints, v128 } from "../asm/assembler.ts";
import type { FunctionBuilder, Int, Local, ModuleBuilder, Value } from "../asm/assembler.ts";
import type { PairLoads } from "../asm/join.ts";
import { eachFour, VECTOR_BYTES } from "../asm/lanes.ts";
import { BYTES } from "./elements.ts";
import { type Half, HALF_BF16, widenHigh, widenLow } from "./f16.ts";
import type { PanelCopy, PanelReader, WasmFormat } from "./format.ts";
import {
  ORDER_16,
  ORDER_32,
  PANEL_COLUMNS,
  panelLayout,
  type PanelOrder,
  panelStreams,
} from "./panels.ts";
import { definePacker } from "./wasm_pack.ts";

/** The parts that differ between F32, F16 and BF16. */
interface Numbers {
  readonly order: PanelOrder;
  /** Factor from a loaded number to the weight. */
  readonly unit: number;
  /** Loads eight neighbouring columns as two vectors, divided by `unit`. */
  loadPair(pair: readonly Local<"v128">[], at: Local<Int>, offset: number): void;
  /** Loads one number into a lane. */
  loadLane(at: Local<Int>, v: Local<"v128">, lane: number, offset: number): Value<"v128">;
  /** Converts four lanes loaded by `loadLane` to F32; null if they are F32. */
  readonly widenLanes: ((v: Local<"v128">) => Value<"v128">) | null;
}

/** F32 panels; kernels read them without widening. */
export const WASM_F32: WasmFormat = {
  ...reading({
    order: ORDER_32,
    unit: 1,
    loadPair([low, high], at, offset) {
      low.set(v128.load(at, offset));
      high.set(v128.load(at, offset + VECTOR_BYTES));
    },
    loadLane: (at, v, lane, offset) => v128.load32Lane(at, v, lane, offset),
    widenLanes: null,
  }),
  widen: null,
  pairs: null,
  pack: (m, stored) => definePacker(m, ORDER_32, stored, false),
};

/** Panels of F16 or BF16. */
export function wasmHalf(half: Half): WasmFormat {
  return {
    ...reading({
      order: ORDER_16,
      unit: half.unit,
      loadPair([low, high], at, offset) {
        high.set(v128.load(at, offset));
        low.set(half.placeLow(high));
        high.set(half.placeHigh(high));
      },
      // Into the upper half of the lane.
      loadLane: (at, v, lane, offset) => v128.load16Lane(at, v, 2 * lane + 1, offset),
      widenLanes: (v) => widenHigh(v, half),
    }),
    widen: (m, shape) => widenPanel(m, shape, half),
    pairs: half === HALF_BF16 ? BF16_PAIRS : null,
    pack: (m, stored) => definePacker(m, ORDER_16, stored, half.rescaled),
  };
}

/**
 * Loads of eight columns of BF16, which extended halves of a vector hold in turn. F16 would take as
 * long as widening its panel first.
 */
const BF16_PAIRS: PairLoads = {
  load: ([low, high], at, offset) => {
    high.set(v128.load(at, offset));
    low.set(i32x4.shl(i32x4.extendLowI16x8U(high), 16));
    high.set(i32x4.shl(i32x4.extendHighI16x8U(high), 16));
  },
  restore: [[0, 2, 4, 6], [1, 3, 5, 7]],
};

function reading(numbers: Numbers): Pick<WasmFormat, "layout" | "reader" | "blocks" | "eachOfRow"> {
  return {
    layout: (shape) => panelLayout(shape, numbers.order),
    reader: (shape, bases) => readLines(numbers, shape, bases),
    blocks: null,
    eachOfRow: (f, table, row, shape, body) => eachOfRow(f, numbers, table, row, shape, body),
  };
}

function readLines(
  { order, unit, loadPair }: Numbers,
  shape: readonly [N: number, K: number],
  bases: readonly Local<Int>[],
): PanelReader {
  const lineBytes = PANEL_COLUMNS * order.bytes;
  const { length, starts } = panelStreams(shape, order);
  return {
    streams: starts.length,
    length,
    unit,
    load(pair, { panel, stream, line, column }) {
      const offset = starts[stream] + line * lineBytes + column * order.bytes;
      loadPair(pair, bases[panel], offset);
    },
    advance(lines) {
      for (const base of bases) base.advance(lines * lineBytes);
    },
  };
}

/** Loops over a row: its numbers are one per line of the panel, and are loaded one by one. */
function eachOfRow(
  f: FunctionBuilder,
  { order, loadLane, widenLanes }: Numbers,
  table: Local<Int>,
  row: Local<Int>,
  [N, K]: readonly [N: number, K: number],
  body: (v: Local<"v128">, at: Local<Int>, lanes: number) => void,
): void {
  const { from, at } = f.locals(ints("from", "at"));
  const v = f.local("v128", "v");
  const line = PANEL_COLUMNS * order.bytes;
  const { parts, inputs, pitch, apart } = panelLayout([N, K], order);
  const panel = row.shr(Math.log2(PANEL_COLUMNS)).times(pitch);
  from.set(table.plus(panel).plus(byteOfColumn(row, order)));
  eachFour(f, at, K, (lanes) => {
    v.set(i32x4.splat(0));
    for (let lane = 0; lane < lanes; lane++) v.set(loadLane(from, v, lane, lane * line));
    if (widenLanes) v.set(widenLanes(v));
    body(v, at, lanes);
    from.advance(4 * line);
    if (parts > 1) {
      const partEnds = at.plus(VECTOR_BYTES).rem(inputs * BYTES.F32).eqz();
      f.if(partEnds, () => from.advance(apart - pitch));
    }
  });
}

/**
 * Byte offset of a row's column in its line. The column's index bits are permuted; bits that move
 * by the same distance share one mask and shift.
 */
function byteOfColumn(row: Local<Int>, { places, bytes }: PanelOrder): Value<Int> {
  const masks = new Map<number, number>(); // by distance, upward
  for (let bit = 1; bit < PANEL_COLUMNS; bit *= 2) {
    const distance = Math.log2(places[bit] * bytes / bit);
    masks.set(distance, (masks.get(distance) ?? 0) | bit);
  }
  return [...masks].sort(([a], [b]) => b - a).map(([distance, mask]) => {
    const bits = row.and(mask);
    return distance < 0 ? bits.shr(-distance) : bits.shl(distance);
  }).reduce((byte, bits) => byte.or(bits));
}

/**
 * Streams of a panel widened in parallel: memory serves several streams faster than one.
 */
const WIDENED_STREAMS = 8;

/** Bytes of an F32 line. */
const WIDE_LINE = PANEL_COLUMNS * BYTES.F32;

/** Copies a 16-bit panel to F32 lines. */
function widenPanel(
  m: ModuleBuilder,
  shape: readonly [N: number, K: number],
  half: Half,
): PanelCopy {
  const K = shape[1];
  const { parts, inputs, apart } = panelLayout(shape, ORDER_16);
  const each = WIDENED_STREAMS / parts;
  const length = Math.floor(inputs / each);
  return m.define(ints("to", "from"), "void", (f, { to, from }) => {
    const end = f.local("int", "end");
    const pair = f.local("v128", "pair");
    /** Widens line k. */
    const line = (k: number) => {
      const at = Math.floor(k / inputs) * apart + k % inputs * WIDE_LINE / 2;
      for (const half16 of [0, VECTOR_BYTES]) {
        pair.set(v128.load(from, at + half16));
        f.store(to, widenLow(pair, half), k * WIDE_LINE + 2 * half16);
        f.store(to, widenHigh(pair, half), k * WIDE_LINE + 2 * half16 + VECTOR_BYTES);
      }
    };
    end.set(to.plus(length * WIDE_LINE));
    f.while(to.lt(end), () => {
      for (let stream = 0; stream < WIDENED_STREAMS; stream++) {
        line(Math.floor(stream / each) * inputs + stream % each * length);
      }
      from.advance(WIDE_LINE / 2);
      to.advance(WIDE_LINE);
    });
    // Lines after the last stream; `to` and `from` have advanced by one stream.
    for (let k = (WIDENED_STREAMS - 1) * length; k < K - length; k++) line(k);
  });
}
