/**
 * Random weights, to benchmark a shape without a file.
 *
 * @module
 */
import { encoderOf, FORMATS, numbersIn, type WeightDtype } from "../../kernels/formats/mod.ts";
import type { Architecture } from "../architecture/mod.ts";
import { chooseDtypes, type DtypeChoice, type Holds } from "./dtypes.ts";
import type { WeightSource } from "./match.ts";
import { runsOf, specTree } from "./specs.ts";

/**
 * Random weights with GPT-2's initial distribution: standard deviation 0.02, norms 1, biases 0. A
 * seed gives the same weights on every machine.
 */
export function randomWeights(
  a: Architecture,
  seed: number,
  dtype: WeightDtype,
  holds?: Holds,
): WeightSource & Pick<DtypeChoice, "notes"> {
  const specs = specTree(a);
  return {
    specs,
    ...chooseDtypes(specs, dtype, () => "F32", holds),
    fill: (spec, kept) => {
      const { shape, initial = 0 } = spec;
      const { view } = FORMATS[kept];
      if (shape.length === 1) {
        return (_row, count, into) => encoderOf(kept)(into, new Float32Array(count).fill(initial));
      }
      const [{ names: [name], start }] = runsOf(spec);
      let state = hash(seed, start ? `${name} ${start}` : name);
      // One buffer for all rows: no garbage for the GC.
      let scratch = new Float32Array(0);
      return (_row, _count, into) => {
        const count = numbersIn(kept, into.length);
        if (!view && scratch.length < count) scratch = new Float32Array(count);
        const values = view ? view(into) : scratch.subarray(0, count);
        // Uniform in ±0.02·√3, whose standard deviation is 0.02; xorshift32 (Marsaglia 2003).
        for (let i = 0; i < values.length; i++) {
          state ^= state << 13;
          state ^= state >>> 17;
          state ^= state << 5;
          values[i] = state * (0.02 * Math.sqrt(3) / 2 ** 31);
        }
        if (!view) encoderOf(kept)(into, values);
      };
    },
  };
}

/** Initial state of xorshift, never 0, from a seed and a name (FNV-1a). */
function hash(seed: number, name: string): number {
  let h = seed ^ 0x811c9dc5;
  for (let i = 0; i < name.length; i++) h = Math.imul(h ^ name.charCodeAt(i), 0x01000193);
  return h || 1;
}
