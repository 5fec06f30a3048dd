/**
 * Operands of register tiles over blocked weights, with x in 8 bits: rows of x side by side, and a
 * panel unpacked once for all rows.
 *
 * A unit is a part of a block with one scale: 16 or 32 inputs. Units are in the order of one row's
 * product (`wasm_blocks.ts`), so that decode and prefill have equal bits. A word has 32 bits: four
 * inputs as bytes, or two as 16-bit integers (`DotForm`).
 *
 *     x, four rows, unit:   w0: r0 r1 r2 r3 │ w1: r0 … r3 │ … │ dx │ shares │ dx · Σ
 *     panel, unit:          w0: 16 outputs │ w1 │ … │ scales │ minima
 *
 * Shares, offset · Σ xq of the first and of the last two of each four inputs (16 bits each), are in
 * a unit only if codes are bytes with an offset; dx · Σ xq and minima only if parts have a minimum.
 *
 * @module
 */
import { call, f32x4, i16x8, i32x4, ints, v128, vectors } from "../../asm/assembler.ts";
import type {
  Func,
  FunctionBuilder,
  Int,
  Ints,
  Local,
  ModuleBuilder,
  Value,
} from "../../asm/assembler.ts";
import { spread } from "../../asm/lanes.ts";
import { fieldsOf, LINE, panelBlockBytes } from "../../formats/block_panels.ts";
import type { BlockForm, BlockPart } from "../../formats/format.ts";
import { PANEL_COLUMNS } from "../../formats/panels.ts";
import { eachPart, pairsOf, range } from "../../formats/wasm_blocks.ts";
import { packBytes } from "../../formats/wasm_encode.ts";
import { transposed } from "../../formats/wasm_pack.ts";
import { heldFields } from "./wasm_block_scales.ts";
import type { MatmulWasm } from "./wasm_epilogue.ts";
import {
  type DotForm,
  dotFormOf,
  INPUTS,
  inverseScale,
  larger,
  MOST,
  pairWords,
  quantised,
} from "./wasm_quantise.ts";

type Precision = Pick<MatmulWasm, "relaxed" | "activations">;

/** Rows of x that are side by side. */
export const TILE_ROWS = 4;

/** A part of a block, and its first input. */
interface Unit {
  readonly part: BlockPart;
  readonly first: number;
}

/** The units of a form's blocks. */
export interface Units {
  readonly dots: DotForm;
  /** Inputs of a unit. */
  readonly inputs: 16 | 32;
  /** Words of a row and of an output. */
  readonly words: number;
  /** Offset of the codes; where codes are words, it is added when they are unpacked. */
  readonly offset: number;
  /** Largest magnitude of a code plus its offset; null for signed bytes. */
  readonly most: number | null;
  /** Vectors of four rows, and the indices of those after the words; null if left out. */
  readonly x: {
    readonly scale: number;
    readonly shares: number | null;
    readonly scaledSums: number | null;
    readonly bytes: number;
  };
  /** Bytes of 16 outputs. */
  readonly panelBytes: number;
  /** The units of a block in order. */
  readonly all: readonly Unit[];
}

/** The units of a form's blocks. */
export function unitsOf(form: BlockForm, precision: Precision): Units {
  const placed: Unit[] = [];
  eachPart(form, (part, first) => placed.push({ part, first }));
  const dots = dotFormOf(form, precision);
  const [{ inputs, offset, most, min }] = form.parts;
  const words = inputs / (dots === "bytes" ? 4 : 2);
  let next = words;
  const scale = next++;
  const shares = dots === "bytes" && offset ? next++ : null;
  const scaledSums = min ? next++ : null;
  return {
    dots,
    inputs,
    words,
    offset,
    most: most === null ? null : Math.max(-offset, most + offset),
    x: { scale, shares, scaledSums, bytes: 4 * TILE_ROWS * next },
    panelBytes: LINE * (words + (min ? 2 : 1)),
    all: form.stripes?.flat().map((i) => placed[i]) ?? placed,
  };
}

/** Bytes of up to T rows. */
export function tiledBytes(
  { T, K, ...precision }: Precision & Pick<MatmulWasm, "T" | "K">,
  form: BlockForm,
): number {
  const { inputs, x } = unitsOf(form, precision);
  return Math.ceil(T / TILE_ROWS) * K / inputs * x.bytes;
}

/** Bytes of an unpacked panel of K inputs. */
export function unpackedBytes(K: number, form: BlockForm, precision: Precision): number {
  const { inputs, panelBytes } = unitsOf(form, precision);
  return K / inputs * panelBytes;
}

/** Defines the unpacking of a panel of K inputs. */
export function unpackWasm(
  m: ModuleBuilder,
  { K, ...precision }: Precision & Pick<MatmulWasm, "K">,
  form: BlockForm,
): Func<Ints<"to" | "from">> {
  const { dots, words, inputs, offset, all, panelBytes } = unitsOf(form, precision);
  const withOffset = (pair: Value<"v128">) =>
    offset ? i16x8.add(pair, i32x4.splat((offset & 0xffff) * 0x10001)) : pair;
  return m.define(ints("to", "from"), "void", (f, { to, from }) => {
    const end = f.local("int", "end");
    const { word, codes } = f.locals(vectors("word", "codes"));
    const known = f.array("v128", "field", 8);
    end.set(from.plus(K / inputs / all.length * panelBlockBytes(form)));
    f.for(from, from, end, panelBlockBytes(form), () => {
      for (let quad = 0; quad < PANEL_COLUMNS / 4; quad++) {
        const fields = fieldsOf(form, from, quad);
        const held = heldFields(fields, known);
        for (const [unit, { part }] of all.entries()) {
          const store = (line: number, v: Value<"v128">) =>
            f.store(to, v, unit * panelBytes + LINE * line + 16 * quad);
          for (const index of part.codeWords) {
            word.set(fields.word(index));
            for (const four of part.codes(word, index, fields)) {
              if (dots === "bytes") {
                store(four.group, four.bytes);
              } else {
                const { even, odd } = pairsOf(four, part, codes);
                store(2 * four.group, withOffset(even));
                store(2 * four.group + 1, withOffset(odd));
              }
            }
          }
          store(words, part.scale(held));
          if (part.min) store(words + 1, part.min(held));
        }
      }
      to.advance(all.length * panelBytes);
    });
  });
}

/** Addresses of four rows. */
const ROWS = ints("x0", "x1", "x2", "x3");

/** Defines the quantisation of rows x [rows, K] side by side. */
export function tileWasm(
  m: ModuleBuilder,
  { K, ...precision }: Precision & Pick<MatmulWasm, "K">,
  form: BlockForm,
): Func<Ints<"to" | "x" | "rows">> {
  const units = unitsOf(form, precision);
  const tileInputs = defineTileInputs(m, units);
  /** Byte of the unit that begins with an input of the block. */
  const unitAt = (input: number) =>
    units.x.bytes * units.all.findIndex(({ first }) => first === input);
  return m.define(ints("to", "x", "rows"), "void", (f, { to, x, rows }) => {
    const end = f.local("int", "end");
    const from = f.locals(ROWS);
    const each = Object.values(from);
    f.while(rows.gtS(0), () => {
      // Missing rows repeat the last one; their results are not stored.
      for (const [r, at] of each.entries()) at.set(x.plus(rows.minus(1).min(r).times(4 * K)));
      end.set(x.plus(4 * K));
      f.while(from.x0.lt(end), () => {
        for (let input = 0; input < units.all.length * units.inputs; input += INPUTS) {
          const [first, second] = [0, INPUTS / 2].map((next) =>
            units.inputs < INPUTS || next === 0 ? to.plus(unitAt(input + next)) : to
          );
          f.do(call(tileInputs, { first, second, ...from }));
          for (const at of each) at.advance(4 * INPUTS);
        }
        to.advance(units.all.length * units.x.bytes);
      });
      x.advance(TILE_ROWS * 4 * K);
      rows.advance(-TILE_ROWS);
    });
  });
}

/**
 * Defines the quantisation of 32 inputs of four rows into one or two units, with the bits of
 * `quantiseWasm`.
 */
function defineTileInputs(
  m: ModuleBuilder,
  units: Units,
): Func<Ints<"first" | "second"> & typeof ROWS> {
  const { inputs, words, dots, x: { scale: scaleIndex, shares, scaledSums } } = units;
  const count = INPUTS / inputs;
  const hasSums = shares !== null || scaledSums !== null;
  return m.define(
    { ...ints("first", "second"), ...ROWS },
    "void",
    (f, { first, second, ...from }) => {
      const rows = Object.values(from);
      const targets = [first, second].slice(0, count);
      const { scale, factor, ofRow } = f.locals(vectors("scale", "factor", "ofRow"));
      const values = f.array("v128", "x", INPUTS / 4);
      const packed = range(0, count * words / 4).map((i) =>
        f.array("v128", `words${i}_`, TILE_ROWS)
      );
      const totals = range(0, 2).map((half) => f.array("v128", `total${half}_`, TILE_ROWS));
      scalesOfRows(f, rows, scale, factor);
      // Integers and sums, by row.
      for (const [r, row] of rows.entries()) {
        ofRow.set(spread(factor, r));
        for (const [i, value] of values.entries()) {
          value.set(quantised(v128.load(row, 16 * i), ofRow));
        }
        for (const [i, words] of wordsOf(dots, values).entries()) packed[i][r].set(words);
        if (!hasSums) continue;
        for (const [half, total] of totals.entries()) {
          const [a, b, c, d] = values.slice(4 * half);
          total[r].set(i32x4.add(i32x4.add(a, b), i32x4.add(c, d)));
        }
        if (count === 1) totals[0][r].set(i32x4.add(totals[0][r], totals[1][r]));
      }
      // Words side by side.
      for (const [i, four] of packed.entries()) {
        for (const [word, v] of transposed(f, four, 4).entries()) {
          f.store(targets[Math.floor(4 * i / words)], v, 16 * (4 * i % words + word));
        }
      }
      for (const [unit, to] of targets.entries()) {
        f.store(to, scale, 16 * scaleIndex);
        if (hasSums) storeSums(f, to, units, transposed(f, totals[unit], 4), scale);
      }
    },
  );
}

/** Sets the scales of 32 inputs of four rows, and their inverses. */
function scalesOfRows(
  f: FunctionBuilder,
  rows: readonly Local<Int>[],
  scale: Local<"v128">,
  factor: Local<"v128">,
): void {
  const most = f.array("v128", "most", TILE_ROWS);
  for (const [r, row] of rows.entries()) {
    most[r].set(f32x4.abs(v128.load(row)));
    for (let i = 1; i < INPUTS / 4; i++) {
      most[r].set(larger(most[r], f32x4.abs(v128.load(row, 16 * i))));
    }
  }
  const [a, b, c, d] = transposed(f, most, 4);
  most[0].set(larger(larger(a, b), larger(c, d)));
  scale.set(most[0].div(MOST.int8));
  factor.set(inverseScale(scale, most[0]));
}

/** Stores the shares and the scaled sums of a unit; `lanes`: sums of each fourth input. */
function storeSums(
  f: FunctionBuilder,
  to: Local<Int>,
  { offset, x: { shares, scaledSums } }: Units,
  lanes: readonly Local<"v128">[],
  scale: Local<"v128">,
): void {
  const { low, high } = f.locals(vectors("low", "high"));
  low.set(i32x4.add(lanes[0], lanes[1]));
  high.set(i32x4.add(lanes[2], lanes[3]));
  if (scaledSums !== null) {
    f.store(to, f32x4.convertI32x4S(i32x4.add(low, high)).times(scale), 16 * scaledSums);
  }
  if (shares !== null) {
    const pairs = low.and(i32x4.splat(0xffff)).or(i32x4.shl(high, 16));
    f.store(to, i16x8.mul(pairs, i32x4.splat((offset & 0xffff) * 0x10001)), 16 * shares);
  }
}

/** Words of 32 integers, four to a vector. */
function wordsOf(dots: DotForm, inputs: readonly Local<"v128">[]): Value<"v128">[] {
  return dots === "bytes"
    ? [0, 4].map((i) => packBytes(inputs.slice(i, i + 4)))
    : [0, 2, 4, 6].map((i) => pairWords(inputs[i], inputs[i + 1]));
}
