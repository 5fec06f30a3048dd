/**
 * WGSL of a product's input rows: plain loads, and norms of x computed by the product itself.
 *
 *     folded   for a GPU: sums of the same loop as the product; nothing comes before it
 *     own      for a CPU that emulates a GPU, without a barrier: each lane sums the row first
 *
 * Folded, with gain g, shift b, weight w of one output, ε, and all sums over K:
 *
 *     rms     y = r · Σ w·g·x + Σ w·b,                       1/r² = Σ x² / K + ε
 *     layer   y = r · (Σ w·g·(x−c) − d · Σ w·g) + Σ w·b,     d = Σ (x−c) / K
 *                                                            1/r² = Σ (x−c)² / K − d² + ε
 *
 * The textbook form has c = 0, and cancels where |mean| ≫ deviation. Here c is the mean of up to 16
 * numbers x_j of the row: (c − mean)² ≤ Σ_j (x_j − mean)² / 16 ≤ K · variance / 16 in any row, so
 * that at most log2(K / 16) bits of r² cancel; in a row without outliers, none.
 *
 * @module
 */
import type { NormOptions } from "../norm.ts";
import { linesWgsl } from "../../wgsl/shader.ts";

/** Index expression: inputs 4g … 4g + 3 of row t, in rows of `groups` vectors. */
export function fourAt(t: string, g: string, groups: string): string {
  return `${t} * ${groups} + ${g}`;
}

/**
 * Defines `NAME(t, g)`: inputs 4g … 4g + 3 of row t, zeros past K. Vectors if K is a multiple of
 * four, else single numbers.
 * @param padded K rounded up to whole words of the weight.
 */
function rowsWgsl(name: string, array: string, binding: number, K: number, padded: number): string {
  const declare = (type: string) =>
    `@group(1) @binding(${binding}) var<storage, read> ${array}: array<${type}>;
fn ${name}(t: u32, g: u32) -> vec4f {`;
  if (K === padded) return `${declare("vec4f")} return ${array}[${fourAt("t", "g", "GROUPS")}]; }`;
  if (K % 4 === 0) {
    return `${declare("vec4f")}
  return select(vec4f(0.0), ${array}[t * GROUPS + min(g, GROUPS - 1u)], g < GROUPS);
}`;
  }
  const element = (i: number) =>
    `select(0.0, ${array}[t * K + 4u * g + ${i}u], 4u * g + ${i}u < K)`;
  return `${declare("f32")}
  return vec4f(
    ${[0, 1, 2, 3].map(element).join(",\n    ")},
  );
}`;
}

/** Defines `load_x` at binding 1. */
export function loadXWgsl(K: number, padded: number): string {
  return rowsWgsl("load_x", "x", 1, K, padded);
}

/** Sums of one or two products over K, and the numbers that they amount to. */
export interface Totals {
  /** Names of the sums: of vec4f in a lane, of f32 when they are complete. */
  readonly names: readonly string[];
  /** Bindings and functions. */
  readonly declare: string;
  /** Statements before the loop, of row `t`. */
  readonly before: string;
  /** Statements that add the four inputs g: their weights are `w` and `up_w`, their x is `x`. */
  readonly each: string;
  /** Expression of the product of x, or of its norm, from the complete sums. */
  readonly result: string;
  /** The same of the second product; undefined without one. */
  readonly up?: string;
}

/** Prefix of the names of the second product. */
export const UP = "up_";

/**
 * Totals of a product, and of a second one if it is gated, in the folded form if there is a norm.
 * Bindings: 5 gain, 6 shift.
 */
export function totalsOf(
  K: number,
  padded: number,
  norm: NormOptions<unknown> | undefined,
  gated: boolean,
): Totals {
  const products = gated ? ["", UP] : [""];
  return norm ? foldedTotals(K, padded, norm, products) : {
    names: products.map((p) => `${p}sum`),
    declare: "",
    before: "",
    each: products.map((p) => `${p}sum = fma(${p}w, x, ${p}sum);`).join("\n    "),
    result: "sum",
    up: gated ? `${UP}sum` : undefined,
  };
}

function foldedTotals(
  K: number,
  padded: number,
  { kind, bias, eps, offset = 0, scale = 1 }: NormOptions<unknown>,
  products: readonly string[],
): Totals {
  const isLayer = kind === "layer";
  const gain = rowsWgsl("load_gain", "norm_weight", 5, K, padded);
  const shift = bias ? rowsWgsl("load_shift", "norm_bias", 6, K, padded) : "";
  const square = isLayer
    ? `max(squares / f32(K) - plain / f32(K) * (plain / f32(K)), 0.0)`
    : "squares / f32(K)";
  const result = (p: string) => {
    const product = isLayer ? `(${p}sum - plain / f32(K) * ${p}gains)` : `${p}sum`;
    const normed = `${product} / sqrt(${square} + f32(${eps}))${bias ? ` + ${p}shift` : ""}`;
    return scale === 1 ? normed : `(${normed}) * f32(${scale})`;
  };
  return {
    names: [
      ...["squares", ...isLayer ? ["plain"] : []],
      ...products.flatMap((p) =>
        ["sum", ...isLayer ? ["gains"] : [], ...bias ? ["shift"] : []].map((name) => p + name)
      ),
    ],
    declare: [gain, shift, isLayer ? `${nearMeanWgsl(K)}\n${centredWgsl(K, padded)}` : ""].join(
      "\n",
    ),
    before: isLayer ? "let near = near_mean(t);" : "",
    each: [
      `let c = ${isLayer ? "centred(x, g, near)" : "x"};`,
      `let gain = load_gain(0u, g) + f32(${offset});`,
      "squares = fma(c, c, squares);",
      ...isLayer ? ["plain += c;"] : [],
      ...bias ? ["let addend = load_shift(0u, g);"] : [],
      ...products.flatMap((p) => [
        `let ${p}wg = ${p}w * gain;`,
        `${p}sum = fma(${p}wg, c, ${p}sum);`,
        ...isLayer ? [`${p}gains += ${p}wg;`] : [],
        ...bias ? [`${p}shift = fma(${p}w, addend, ${p}shift);`] : [],
      ]),
    ].join("\n    "),
    result: result(""),
    up: products.length > 1 ? result(UP) : undefined,
  };
}

/** Defines `near_mean`: the mean of up to 16 numbers of row t. */
function nearMeanWgsl(K: number): string {
  const groups = Math.floor(K / 4);
  const places = [0, 1, 2, 3].map((i) => `load_x(t, ${Math.floor(i * groups / 4)}u)`);
  const mean = groups === 0 ? "load_x(t, 0u).x" : `dot(${places.join(" + ")}, vec4f(0.0625))`;
  return `fn near_mean(t: u32) -> f32 { return ${mean}; }`;
}

/** Defines `centred`: x less a number near its mean, zeros past K. */
function centredWgsl(K: number, padded: number): string {
  const inside = "4u * g + vec4u(0u, 1u, 2u, 3u) < vec4u(K)";
  const value = K === padded ? "x - near" : `select(vec4f(0.0), x - near, ${inside})`;
  return `fn centred(x: vec4f, g: u32, near: f32) -> vec4f { return ${value}; }`;
}

/**
 * Norm of x for a lane that sums all of K: it computes the row's mean and deviation by itself, and
 * norms x as it is read. Defines `stats_of(t)` and `normed_x(t, g, stats)`. Bindings: 5 gain, 6
 * shift.
 */
export function ownNormWgsl(
  K: number,
  padded: number,
  { kind, bias, eps, offset = 0, scale = 1 }: NormOptions<unknown>,
): string {
  const groups = Math.ceil(K / 4);
  const unroll = groups % 4 === 0 ? 4 : 1;
  const loop = (line: (g: string) => string) =>
    `for (var g = 0u; g < ${groups}u; g += ${unroll}u) {
    ${linesWgsl(unroll, (i) => line(`g + ${i}u`))}
  }`;
  const mean = kind === "rms" ? "let mean = 0.0;" : `var plain = vec4f(0.0);
  ${loop((g) => `plain += load_x(t, ${g});`)}
  let mean = dot(plain, vec4f(1.0)) / f32(K);`;
  return /* wgsl */ `
${rowsWgsl("load_gain", "norm_weight", 5, K, padded)}
${bias ? rowsWgsl("load_shift", "norm_bias", 6, K, padded) : ""}
${centredWgsl(K, padded)}
fn stats_of(t: u32) -> vec2f {
  ${mean}
  var squares = vec4f(0.0);
  ${loop((g) => `{ let c = centred(load_x(t, ${g}), ${g}, mean); squares = fma(c, c, squares); }`)}
  return vec2f(mean, 1.0 / sqrt(dot(squares, vec4f(1.0)) / f32(K) + f32(${eps})));
}
fn normed_x(t: u32, g: u32, stats: vec2f) -> vec4f {
  let c = (load_x(t, g) - stats.x) * stats.y * (load_gain(0u, g) + f32(${offset}));
  return (c ${bias ? "+ load_shift(0u, g)" : ""}) * f32(${scale});
}`;
}
