/**
 * Scales of a block's parts in WASM products of few rows: decoded where they are used, or once per
 * block and held in memory.
 *
 * @module
 */
import { v128 } from "../../asm/assembler.ts";
import type { FunctionBuilder, Int, Local, Value } from "../../asm/assembler.ts";
import type { BlockFields, BlockForm, BlockPart } from "../../formats/format.ts";
import { heldBytes } from "./wasm_quantise.ts";

/** A part of a block. */
export interface ScaledPart extends BlockPart {
  /** Index in the block. */
  readonly index: number;
}

/** Scales and minima of a block's parts, by quad. */
export interface Scales {
  /** Emits what is done once per block. */
  prepare(): void;
  scale(part: ScaledPart, quad: number): Value<"v128">;
  min(part: ScaledPart, quad: number): Value<"v128">;
}

/** Scales that are decoded where they are used. */
export function ownScales(quads: readonly BlockFields[]): Scales {
  return {
    prepare: () => {},
    scale: (part, quad) => part.scale(quads[quad]),
    min: (part, quad) => part.min!(quads[quad]),
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

/** Scales that are decoded once per block and held in memory at `held`: by part, then quad. */
export function heldScales(
  f: FunctionBuilder,
  form: BlockForm,
  parts: readonly ScaledPart[],
  quads: readonly BlockFields[],
  held: Local<Int>,
): Scales {
  const partBytes = heldBytes(form) / form.parts.length;
  const [scaleAt, minAt] = [0, 16 * quads.length].map(
    (first) => ({ index }: ScaledPart, quad: number) => partBytes * index + first + 16 * quad,
  );
  const words = [0, 1].map((i) => f.array("v128", `field${i}_`, 8));
  return {
    prepare() {
      for (let first = 0; first < quads.length; first += 2) {
        const pair = words.map((words, i) => heldFields(quads[first + i], words));
        for (const part of parts) {
          // Both quads' words are loaded before one is stored: V8 joins nothing across a store.
          const store = (values: readonly Value<"v128">[], at: typeof scaleAt) => {
            for (const [i, value] of values.entries()) f.store(held, value, at(part, first + i));
          };
          store(pair.map((fields) => part.scale(fields)), scaleAt);
          if (part.min) store(pair.map((fields) => part.min!(fields)), minAt);
        }
      }
    },
    scale: (part, quad) => v128.load(held, scaleAt(part, quad)),
    min: (part, quad) => v128.load(held, minAt(part, quad)),
  };
}
