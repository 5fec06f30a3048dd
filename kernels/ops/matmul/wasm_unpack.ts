/**
 * Panels of blocks unpacked for products with many rows of x in 8 bits: codes as the dots take
 * them, scales and minima as F32.
 *
 *     piece of a block:  codes of part 0 │ codes of part 1 │ … │ scales of part 0 │ …
 *                        bytes, flipped: a line per 4 inputs   a line of F32 per part
 *                        words: two lines (even, odd)
 *
 * A line has four bytes of each of 16 outputs. A panel is unpacked once for all rows.
 *
 * @module
 */
import { i16x8, i32x4, ints, type Value, vectors } from "../../asm/assembler.ts";
import type { Func, Ints, Local, ModuleBuilder } from "../../asm/assembler.ts";
import { fieldsOf, LINE, panelBlockBytes } from "../../formats/block_panels.ts";
import type { BlockFields, BlockForm, BlockPairs, BlockPart } from "../../formats/format.ts";
import { PANEL_COLUMNS } from "../../formats/panels.ts";
import { pairsOf, range } from "../../formats/wasm_blocks.ts";
import type { MatmulWasm } from "./wasm_epilogue.ts";
import { dotFormOf } from "./wasm_quantise.ts";

type Precision = Pick<MatmulWasm, "relaxed" | "activations">;

/** Codes as 16-bit integers of the panel's word; `joined` leaves the odd code in the even ones. */
export function flippedPairs(word: Local<"v128">, joined: boolean): BlockPairs {
  return {
    even: joined ? word : word.and(i32x4.splat(0x00ff00ff)),
    odd: i16x8.shrS(word, 8),
  };
}

/** Fields that are loaded once, to `words`; the compiler shares what is computed from them. */
export function heldFields(
  { word, stored, half }: BlockFields,
  words: readonly Local<"v128">[],
): BlockFields {
  const known = new Map<number, Local<"v128">>();
  const once = (index: number, load: () => Value<"v128">) => {
    const held = known.get(index) ?? words[known.size];
    if (!known.has(index)) held.set(load());
    known.set(index, held);
    return held;
  };
  return {
    stored,
    word: (index) => once(index, () => word(index)),
    half: () => once(-1, half),
  };
}

/** Parts of a piece. */
function partsOfPiece({ parts, pieces }: BlockForm): readonly BlockPart[] {
  return parts.slice(0, parts.length / (pieces?.count ?? 1));
}

/** Lines of an unpacked piece: first lines of the scales and the minima, and all lines. */
function linesOf(form: BlockForm, precision: Precision) {
  const parts = partsOfPiece(form);
  const perGroup = dotFormOf(form, precision) === "words" && !form.flipped ? 2 : 1;
  const inputs = parts.reduce((sum, part) => sum + part.inputs, 0);
  const scales = inputs / 4 * perGroup;
  const mins = scales + parts.length;
  return { perGroup, inputs, scales, mins, all: parts[0].min ? mins + parts.length : mins };
}

/** Form of an unpacked piece. */
export function unpackedForm(form: BlockForm, precision: Precision): BlockForm {
  const parts = partsOfPiece(form);
  const { perGroup, scales, mins, all } = linesOf(form, precision);
  let next = 0;
  return {
    half: null,
    first: 0,
    words: all,
    pair: null,
    flipped: form.flipped,
    // In the order of the packed form, so that sums have equal bits; each part has its own words.
    stripes: form.stripes?.flat().slice(0, parts.length).map((part) => [part]),
    parts: parts.map(({ inputs, offset, most, min }, part): BlockPart => {
      const first = next;
      next += inputs / 4 * perGroup;
      return {
        inputs,
        offset,
        most,
        codeWords: range(0, inputs / 4).map((group) => first + perGroup * group),
        codes: (word, index, { stored }) => [{
          group: (index - first) / perGroup,
          bytes: word,
          ...(perGroup === 2 ? { pairs: { even: word, odd: stored(index + 1) } } : {}),
        }],
        scale: ({ stored }) => stored(scales + part),
        ...(min ? { min: ({ stored }: BlockFields) => stored(mins + part) } : {}),
      };
    }),
  };
}

/** Bytes of an unpacked panel of K inputs. */
export function unpackedBytes(K: number, form: BlockForm, precision: Precision): number {
  const { inputs, all } = linesOf(form, precision);
  return K / inputs * all * LINE;
}

/** Defines the unpacking of a panel of K inputs. */
export function unpackWasm(
  m: ModuleBuilder,
  { K, ...precision }: Precision & Pick<MatmulWasm, "K">,
  form: BlockForm,
): Func<Ints<"to" | "from">> {
  const into = unpackedForm(form, precision);
  const { perGroup, inputs, scales, mins, all } = linesOf(form, precision);
  const perPiece = into.parts.length;
  const pieces = form.parts.length / perPiece;
  return m.define(ints("to", "from"), "void", (f, { to, from }) => {
    const end = f.local("i32", "end");
    const { word, codes } = f.locals(vectors("word", "codes"));
    const words = f.array("v128", "field", 8);
    end.set(from.plus(K / inputs / pieces * panelBlockBytes(form)));
    f.for(from, from, end, panelBlockBytes(form), () => {
      for (let quad = 0; quad < PANEL_COLUMNS / 4; quad++) {
        const fields = fieldsOf(form, from, quad);
        const held = heldFields(fields, words);
        const store = (part: number, line: number, v: Value<"v128">) =>
          f.store(to, v, LINE * (Math.floor(part / perPiece) * all + line) + 16 * quad);
        for (const [p, part] of form.parts.entries()) {
          const target = into.parts[p % perPiece];
          for (const index of part.codeWords) {
            word.set(form.flipped ? fields.stored(index) : fields.word(index));
            for (const four of part.codes(word, index, fields)) {
              const line = target.codeWords[four.group];
              if (perGroup === 1) {
                store(p, line, four.bytes);
              } else {
                const { even, odd } = pairsOf(four, part, codes);
                store(p, line, even);
                store(p, line + 1, odd);
              }
            }
          }
          store(p, scales + p % perPiece, part.scale(held));
          if (part.min) store(p, mins + p % perPiece, part.min(held));
        }
      }
      to.advance(pieces * all * LINE);
    });
  });
}
