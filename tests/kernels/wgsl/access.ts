/**
 * Memory accesses of a kernel as data: index expressions, in the words of its shader.
 *
 * A kernel takes its indices from functions that return WGSL text. The same text, evaluated for the
 * lanes of a warp, shows which sectors of memory and which banks an access touches, without a GPU.
 *
 * @module
 */

/** One load or store in a hot loop. */
export interface Access {
  /** Array and phase, such as "tile_x, store". */
  readonly what: string;
  readonly memory: "storage" | "workgroup";
  /** Bytes of a lane. */
  readonly bytes: number;
  /** Index of the element of `bytes` bytes: a WGSL expression of type u32, of the `names` alone. */
  readonly index: string;
  /** The name that counts lanes 0, 1, 2 … of a workgroup. */
  readonly lane: string;
  /** Lanes that access memory. */
  readonly lanes: number;
  /** Values of the other names. */
  readonly names: Readonly<Record<string, number>>;
}

/**
 * Indices of the access for the lanes of its workgroup. Division truncates, as in WGSL.
 * @throws {SyntaxError} If the expression is no arithmetic of u32.
 */
export function indicesOf({ index, lane, lanes, names }: Access): number[] {
  const given = { ...names, [lane]: 0 };
  const text = index.replace(/\b(\d+)u\b/g, "$1n");
  const unknown = text.replace(
    /\d+n|[A-Za-z_]\w*|[\s()+*/%^&|-]|<<|>>/g,
    (part) => /^[A-Za-z_]/.test(part) && !(part in given) ? part : "",
  );
  if (unknown) throw new SyntaxError(`Cannot evaluate "${index}": expected no "${unknown}"`);
  const evaluate = new Function(...Object.keys(given), `return ${text};`);
  return Array.from(
    { length: lanes },
    (_, i) => Number(evaluate(...Object.values({ ...given, [lane]: i }).map(BigInt))),
  );
}
