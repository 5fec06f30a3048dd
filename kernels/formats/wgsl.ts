/**
 * Panel layout of a weight on a GPU: words of 32 outputs interleaved, and the packing shader.
 *
 * A word is 16 bytes of neighbouring inputs of one output, one load of a lane: 4 inputs of F32, 8
 * of F16 and BF16. The words of 32 outputs are neighbours in memory, so that 32 lanes read one
 * contiguous range of 512 bytes:
 *
 *     words [⌈N/32⌉][⌈K/inputs⌉][32], zeros past N and past K; here with 8 inputs
 *
 *     panel 0 (outputs 0…31)                                    panel 1 (outputs 32…63)
 *     ┌── inputs 0…7 ──────┬── inputs 8…15 ─────┬─ … ─┐ ┌── inputs 0…7 ──────┬─
 *     │ n0 │ n1 │ … │ n31  │ n0 │ n1 │ … │ n31  │     │ │ n32│ n33│ … │ n63  │
 *     └────┴────┴───┴──────┴────┴────┴───┴──────┴─ … ─┘ └────┴────┴───┴──────┴─
 *
 *     word k of output n is at startOf(n) + 32 · k
 *
 * @module
 */
import { linesWgsl, mainWgsl } from "../wgsl/shader.ts";
import type { AheadWgsl, Chunk, GpuPacking, PackShader, WgslFormat } from "./format.ts";

/** Outputs per panel. */
export const PANEL = 32;

/** Bytes of a word. */
export const WORD_BYTES = 16;

/** Lanes per workgroup of the packing shader. */
const LANES = 64;

/** Loads of one output of K inputs: words of 16 bytes, or blocks. */
export function panelWords({ inputs }: Pick<WgslFormat, "inputs">, K: number): number {
  return Math.ceil(K / inputs);
}

/** Bytes of a panel of K inputs. */
export function panelBytes(format: WgslFormat, K: number): number {
  return WORD_BYTES * PANEL * format.words(K);
}

/** The WGSL form of a format of one number a block, of so many bytes. */
export function wgslElements(
  bytes: 2 | 4,
  unpack: (word: string, i: number) => string,
  pairs?: WgslFormat["pairs"],
): WgslFormat {
  const inputs = WORD_BYTES / bytes;
  return {
    inputs,
    type: "vec4u",
    words: (K) => panelWords({ inputs }, K),
    declare: "",
    load: (_, at) => `return ${at("k")};`,
    unpack,
    pairs,
    four: (word, i) =>
      Array.from({ length: inputs / 4 }, (_, part) => unpack(word, part))
        .reduce((all, next, part) => `select(${all}, ${next}, ${i} == ${part}u)`),
    pack: (packing) => packElements(bytes, packing),
  };
}

/** Index expression: word 0 of output `row`, of `words` words each. */
export function startOf(row: string, words: number): string {
  return `(${row} / ${PANEL}u) * ${words * PANEL}u + ${row} % ${PANEL}u`;
}

/** Index expression: word `k` of the output whose word 0 is at `start`. */
export function wordAt(start: string, k: string): string {
  return `${start} + (${k}) * ${PANEL}u`;
}

/**
 * Declares a weight as a binding and the functions that read it. Kernels use no other text of a
 * format, but for its `declare`, once per shader:
 *
 *     NAME_start(row)     place of an output, to be reused for all its words
 *     NAME_word(start, k) load k: 16 bytes, or a block with its scales
 *     NAME_raw(start, k)  a load's words, for NAME_block(raw, k), if `ahead` is given
 *     NAME_0(word) …      the weights of its first, second … four inputs
 *     NAME_part(word, i)  the same of an index that is an expression
 *     NAME_four(row, g)   the weights of inputs 4g … 4g + 3 of an output, by a load of their own
 *     NAME_low(bits) …    and NAME_high: the weights of four pairs, if the format has pairs
 */
export function weightWgsl(
  format: WgslFormat,
  { name, binding, K, byFours = false, ahead }: {
    readonly name: string;
    readonly binding: number;
    readonly K: number;
    /** Whether a word is four inputs, for kernels with steps shorter than a load of the format. */
    readonly byFours?: boolean;
    /** The two steps of a load, for kernels that take them apart. */
    readonly ahead?: AheadWgsl;
  },
): string {
  const { type, inputs, unpack } = format;
  const fours = inputs / 4;
  const at = (i: string) => `${name}[${wordAt("start", i)}]`;
  const load = byFours ? `${name}_load` : `${name}_word`;
  const four = (start: string, g: string) =>
    `let word = ${load}(${start}, ${g} / ${fours}u);
  return ${format.four("word", `(${g} % ${fours}u)`)};`;
  const each = linesWgsl(
    fours,
    (i) => `fn ${name}_${i}(word: ${type}) -> vec4f { return ${unpack("word", i)}; }`,
  );
  const words = `fn ${name}_word(start: u32, k: u32) -> vec4f { ${four("start", "k")} }
fn ${name}_0(word: vec4f) -> vec4f { return word; }`;
  return /* wgsl */ `
@group(1) @binding(${binding}) var<storage, read> ${name}: array<vec4u>;
fn ${name}_start(row: u32) -> u32 { return ${startOf("row", format.words(K))}; }
fn ${load}(start: u32, k: u32) -> ${type} { ${format.load(K, at)} }
${byFours ? words : each}
${
    ahead
      ? `fn ${name}_raw(start: u32, k: u32) -> Raw { ${ahead.raw(K, at)} }
fn ${name}_block(raw: Raw, k: u32) -> ${type} { ${ahead.decode} }`
      : ""
  }
${
    Object.entries(format.pairs ?? {}).map(([half, of]) =>
      `fn ${name}_${half}(bits: vec4u) -> vec4f { return ${of("bits")}; }`
    ).join("\n")
  }
fn ${name}_part(word: ${type}, i: u32) -> vec4f { return ${format.four("word", "i")}; }
fn ${name}_four(row: u32, g: u32) -> vec4f { ${four(`${name}_start(row)`, "g")} }`;
}

/** WGSL that moves elements of one size. */
interface Element {
  /** Elements of a word. */
  readonly inputs: number;
  /** Body of `bits_at`: element i of the chunk, in the lower bits of a u32. */
  readonly bits: string;
  /** A word from the bits of its elements, `b_0` … */
  readonly join: string;
}

const ELEMENTS: Readonly<Record<2 | 4, Element>> = {
  2: {
    inputs: 8,
    bits: "return (source[i / 2u] >> (16u * (i % 2u))) & 0xffffu;",
    join: "vec4u(b_0 | (b_1 << 16u), b_2 | (b_3 << 16u), b_4 | (b_5 << 16u), b_6 | (b_7 << 16u))",
  },
  4: { inputs: 4, bits: "return source[i];", join: "vec4u(b_0, b_1, b_2, b_3)" },
};

/** WGSL that finds a lane's word in a chunk of rows, by the order of the file. */
interface Order {
  /** Panel and word `k` of lane `i`. */
  readonly place: string;
  /** Whether output `n` and word `k` are in the chunk. */
  readonly inside: string;
  /** Index of element (output `n`, `input`) in the chunk. */
  readonly at: string;
  /** Number of panels that a chunk touches, times its words per output. */
  readonly count: (chunk: Chunk) => number;
}

/** NK: rows of a chunk are outputs. */
function byOutputs({ shape: [, K] }: GpuPacking, words: number): Order {
  return {
    place: `let panel = chunk.row / ${PANEL}u + i / ${PANEL * words}u;
  let k = (i / ${PANEL}u) % ${words}u;`,
    inside: "n >= chunk.row && n < chunk.row + chunk.rows",
    at: `(n - chunk.row) * ${K}u + input`,
    count: ({ row, rows }) => words * (Math.ceil((row + rows) / PANEL) - Math.floor(row / PANEL)),
  };
}

/** KN: rows of a chunk are inputs, in whole words. */
function byInputs(
  { shape: [N], first, count }: GpuPacking,
  { inputs }: Element,
  words: number,
): Order {
  return {
    place: `let deep = (chunk.rows + ${inputs - 1}u) / ${inputs}u;
  let panel = i / (${PANEL}u * deep);
  let k = chunk.row / ${inputs}u + (i / ${PANEL}u) % deep;`,
    inside: `n < ${count}u && k < ${words}u`,
    at: `(input - chunk.row) * ${N}u + ${first}u + n`,
    count: ({ rows }) => Math.ceil(rows / inputs) * Math.ceil(count / PANEL),
  };
}

/**
 * The shader that moves rows of elements into panels, bit for bit; a lane moves one word. Bindings:
 * 0 the panels, 1 the chunk's bytes. In group 0, `chunk` replaces `run`.
 */
export function packElements(bytes: 2 | 4, packing: GpuPacking): PackShader {
  const { shape: [, K], stored } = packing;
  const element = ELEMENTS[bytes];
  const words = panelWords(element, K);
  const order = stored === "NK" ? byOutputs(packing, words) : byInputs(packing, element, words);
  const move = stored === "NK" && K % element.inputs === 0
    ? wholeWords(words)
    : singleElements(element, order, K);
  const wgsl = /* wgsl */ `
struct Chunk { row: u32, rows: u32 }
@group(0) @binding(0) var<uniform> chunk: Chunk;
@group(1) @binding(0) var<storage, read_write> panels: array<vec4u>;
${move.declare}

${mainWgsl(LANES)} {
  let i = index_of(group, grid) * ${LANES}u + lane;
  ${order.place}
  let n = panel * ${PANEL}u + i % ${PANEL}u;
  if (!(${order.inside})) { return; }
  ${move.read}
  panels[(panel * ${words}u + k) * ${PANEL}u + i % ${PANEL}u] = ${move.word};
}
`;
  const groupsOf = (chunk: Chunk) => Math.ceil(PANEL * order.count(chunk) / LANES);
  return { wgsl, workgroupBytes: 0, groups: groupsOf };
}

/** K is a multiple of a word's inputs: whole words are moved. */
function wholeWords(words: number) {
  return {
    declare: "@group(1) @binding(1) var<storage, read> source: array<vec4u>;",
    read: "",
    word: `source[(n - chunk.row) * ${words}u + k]`,
  };
}

/** Elements are moved one by one; those past K stay zero. */
function singleElements({ inputs, bits, join }: Element, { at }: Order, K: number) {
  const take = (j: number) => {
    const always = `{ let input = ${inputs}u * k + ${j}u; b_${j} = bits_at(${at}); }`;
    const guarded = K % inputs === 0 ? always : `if (${inputs}u * k + ${j}u < ${K}u) ${always}`;
    return `var b_${j} = 0u; ${guarded}`;
  };
  return {
    declare: `@group(1) @binding(1) var<storage, read> source: array<u32>;
fn bits_at(i: u32) -> u32 { ${bits} }`,
    read: linesWgsl(inputs, take),
    word: join,
  };
}
