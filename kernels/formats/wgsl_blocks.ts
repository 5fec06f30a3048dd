/**
 * Block formats on a GPU: planes of a file's bytes, and their decoder in WGSL.
 *
 * The fields of a block are split into planes, each in words of 16 bytes: a field of 16 bytes or
 * more takes whole words, a smaller one shares a word with those of the next blocks. No bit is
 * changed. Q4_0 of K = 512:
 *
 *     plane 0, 16 bytes a block    │ codes of block 0 │ of block 1 │ … │ of block 15 │
 *     plane 1,  2 bytes a block    │ d of blocks 0 … 7 │ d of blocks 8 … 15 │
 *
 * The words of an output follow each other as in `wgsl.ts`, interleaved over a panel of 32 outputs.
 * Kernels read 32 inputs at a time, as codes of 8 bits with a scale and an offset for each half:
 * w = d · q + m.
 *
 * @module
 */
import { linesWgsl, mainWgsl } from "../wgsl/shader.ts";
import type { AheadWgsl, Chunk, GpuPacking, PackShader, WgslFormat } from "./format.ts";
import { PANEL } from "./wgsl.ts";

/** Inputs that a kernel reads at a time. */
const INPUTS = 32;

/** Bytes of a word. */
const WORD = 16;

/** Lanes per workgroup of the packing shader. */
const LANES = 64;

/** A field of a block. */
export interface Plane {
  /** First byte in the block. */
  readonly offset: number;
  /** Bytes: 2, 4, a multiple of 16, or less than that, padded with zeros. */
  readonly bytes: number;
}

/** Size of a block. */
interface BlockSize {
  readonly block: number;
  readonly bytes: number;
}

/** A block format in WGSL. */
export interface BlockWgsl {
  readonly planes: readonly Plane[];
  /** Whether codes are signed bytes. */
  readonly signed?: boolean;
  /** Functions that `decode` calls. */
  readonly declare?: string;
  /**
   * WGSL statements that return `block_of(a, b, d, m)` for inputs 32k … 32k + 31: the codes of the
   * first and the last 16 (vec4u), and their scales and offsets (vec2f).
   * @param word expression: word `i` of a plane (vec4u); `i` depends on `k` only.
   */
  decode(word: (plane: number, i: string) => string): string;
}

/** Words of one block, or blocks of one word. */
function share({ bytes }: Plane): { readonly words: number; readonly blocks: number } {
  return bytes < WORD && WORD % bytes === 0
    ? { words: 1, blocks: WORD / bytes }
    : { words: Math.ceil(bytes / WORD), blocks: 1 };
}

/** Words of each plane for one output, and where it begins. */
function layout(planes: readonly Plane[], blocks: number) {
  let begin = 0;
  const places = planes.map((plane) => {
    const { words, blocks: shared } = share(plane);
    const place = { begin, count: Math.ceil(blocks / shared) * words };
    begin += place.count;
    return place;
  });
  return { places, words: begin };
}

/** WGSL that all block formats share. */
const DECLARE = /* wgsl */ `
struct Block { a: vec4u, b: vec4u, d: vec2f, m: vec2f }
fn block_of(a: vec4u, b: vec4u, d: vec2f, m: vec2f) -> Block { return Block(a, b, d, m); }
fn half_of(bits: u32) -> f32 { return unpack2x16float(bits & 0xffffu).x; }
// Bits i … i + 3 of each component to bit 4 of its four bytes.
fn fifth_bits(bits: vec4u) -> vec4u { return (((bits & vec4u(15u)) * 0x204081u) & vec4u(0x01010101u)) << vec4u(4u); }
fn low_nibbles(q: vec4u) -> vec4u { return q & vec4u(0x0f0f0f0fu); }
fn high_nibbles(q: vec4u) -> vec4u { return (q >> vec4u(4u)) & vec4u(0x0f0f0f0fu); }`;

/** The WGSL form of a block format. */
export function wgslBlocks(size: BlockSize, format: BlockWgsl): WgslFormat {
  const { planes, signed, declare = "", decode } = format;
  const codes = signed ? "unpack4xI8" : "unpack4xU8";
  const value = (word: string, half: "a" | "b", i: string) => {
    const side = half === "a" ? "x" : "y";
    return `fma(vec4f(${codes}(${word}.${half}[${i}])), vec4f(${word}.d.${side}), ` +
      `vec4f(${word}.m.${side}))`;
  };
  return {
    inputs: INPUTS,
    type: "Block",
    words: (K) => layout(planes, K / size.block).words,
    declare: DECLARE + declare,
    load: (K, at) => {
      const { places } = layout(planes, K / size.block);
      return decode((plane, i) => at(`${places[plane].begin}u + ${i}`));
    },
    ahead: aheadOf(size, format),
    unpack: (word, i) => value(word, i < 4 ? "a" : "b", `${i % 4}`),
    four: (word, g) =>
      `fma(vec4f(${codes}(select(${word}.a, ${word}.b, ${g} >= 4u)[${g} % 4u])), ` +
      `vec4f(select(${word}.d.x, ${word}.d.y, ${g} >= 4u)), ` +
      `vec4f(select(${word}.m.x, ${word}.m.y, ${g} >= 4u)))`,
    pack: (packing) => packBlocks(size, planes, packing),
  };
}

/** The decoder in two steps: its words are listed as it asks for them. */
function aheadOf({ block }: BlockSize, { planes, decode }: BlockWgsl): AheadWgsl {
  const words: { plane: number; i: string }[] = [];
  const text = decode((plane, i) => {
    const known = words.findIndex((word) => word.plane === plane && word.i === i);
    return `raw.w_${known < 0 ? words.push({ plane, i }) - 1 : known}`;
  });
  return {
    declare: /* wgsl */ `
struct Raw { ${words.map((_, j) => `w_${j}: vec4u`).join(", ")} }
fn swapped(b: Block, odd: bool) -> Block {
  return block_of(select(b.a, b.a.yxwz, odd), select(b.b, b.b.yxwz, odd), b.d, b.m);
}`,
    raw: (K, at) => {
      const { places } = layout(planes, K / block);
      const each = words.map(({ plane, i }) => at(`${places[plane].begin}u + ${i}`));
      return `return Raw(${each.join(", ")});`;
    },
    decode: text,
  };
}

/**
 * The shader that moves rows of blocks into planes, bit for bit; a lane moves one word. Bindings: 0
 * the panels, 1 the chunk's bytes. In group 0, `chunk` replaces `run`.
 * @throws {RangeError} If the file's rows are inputs: a block is never split.
 */
function packBlocks(
  { block, bytes }: BlockSize,
  planes: readonly Plane[],
  { shape: [, K], stored }: GpuPacking,
): PackShader {
  if (stored !== "NK") {
    throw new RangeError(
      `Cannot transpose blocks of ${block}: expected rows of outputs, got rows of inputs`,
    );
  }
  const blocks = K / block;
  const { places, words } = layout(planes, blocks);
  const branch = (plane: Plane, p: number) => {
    const { begin, count } = places[p];
    return `if (w >= ${begin}u && w < ${begin + count}u) {
    let i = w - ${begin}u;
    ${moveWord(plane, { bytes, blocks })}
  }`;
  };
  const wgsl = /* wgsl */ `
struct Chunk { row: u32, rows: u32 }
@group(0) @binding(0) var<uniform> chunk: Chunk;
@group(1) @binding(0) var<storage, read_write> panels: array<vec4u>;
@group(1) @binding(1) var<storage, read> source: array<u32>;
// Four bytes from any byte on.
fn four_at(byte: u32) -> u32 {
  let shift = 8u * (byte % 4u);
  let low = source[byte / 4u];
  return select(
    (low >> shift) | (source[byte / 4u + 1u] << ((32u - shift) & 31u)),
    low,
    shift == 0u,
  );
}

${mainWgsl(LANES)} {
  let index = index_of(group, grid) * ${LANES}u + lane;
  let panel = chunk.row / ${PANEL}u + index / ${PANEL * words}u;
  let w = (index / ${PANEL}u) % ${words}u;
  let n = panel * ${PANEL}u + index % ${PANEL}u;
  if (n < chunk.row || n >= chunk.row + chunk.rows) { return; }
  let row = (n - chunk.row) * ${blocks * bytes}u;
  var word = vec4u(0u);
  ${planes.map(branch).join(" else ")}
  panels[(panel * ${words}u + w) * ${PANEL}u + index % ${PANEL}u] = word;
}
`;
  const groups = ({ row, rows }: Chunk) =>
    Math.ceil(
      PANEL * words * (Math.ceil((row + rows) / PANEL) - Math.floor(row / PANEL)) / LANES,
    );
  return { wgsl, workgroupBytes: 0, groups };
}

/** Statements that set `word` to word `i` of a plane. */
function moveWord(
  { offset, bytes }: Plane,
  of: { readonly bytes: number; readonly blocks: number },
): string {
  const { words, blocks } = share({ offset, bytes });
  if (blocks === 1) {
    const at = `row + i / ${words}u * ${of.bytes}u + ${offset}u + i % ${words}u * ${WORD}u`;
    const used = bytes % WORD || WORD; // bytes of the last word
    const mask = [0, 1, 2, 3].map((c) => {
      const left = Math.max(0, Math.min(4, used - 4 * c));
      return left === 4 ? "0xffffffffu" : `${2 ** (8 * left) - 1}u`;
    });
    return `let at = ${at};
    word = vec4u(four_at(at), four_at(at + 4u), four_at(at + 8u), four_at(at + 12u));
    ${used === WORD ? "" : `word &= vec4u(${mask.join(", ")});`}`;
  }
  const mask = bytes === 4 ? "0xffffffffu" : "0xffffu";
  return linesWgsl(blocks, (j) => {
    const component = Math.floor(j * bytes / 4);
    const at = `row + b * ${of.bytes}u + ${offset}u`;
    return `{
      let b = i * ${blocks}u + ${j}u;
      let bits = (four_at(${at}) & ${mask}) << ${8 * (j * bytes % 4)}u;
      word[${component}] |= select(0u, bits, b < ${of.blocks}u);
    }`;
  });
}

/** Expression: the F16 of block `k` in a plane of two bytes a block. */
export function halfAt(word: (plane: number, i: string) => string, plane: number, k = "k"): string {
  return `half_of(${word(plane, `${k} / 8u`)}[(${k} % 8u) / 2u] >> (16u * (${k} % 2u)))`;
}

/** Expression: the four bytes of block `k` in a plane of four bytes a block. */
export function fourAt(word: (plane: number, i: string) => string, plane: number, k = "k"): string {
  return `${word(plane, `${k} / 4u`)}[${k} % 4u]`;
}

/** Scale and offset of 32 inputs of Q4_K and Q5_K: `head` is d, dmin and the 12 bytes of scales. */
export const K_SCALES_WGSL = /* wgsl */ `
fn k_scale(head: vec4u, j: u32) -> vec2f {
  let s = 8u * (j % 4u);
  let low = vec2u((head.y >> s) & 63u, (head.z >> s) & 63u);
  let high = vec2u(
    ((head.w >> s) & 15u) | (((head.y >> (s + 6u)) & 3u) << 4u),
    ((head.w >> (s + 4u)) & 15u) | (((head.z >> (s + 6u)) & 3u) << 4u),
  );
  return unpack2x16float(head.x) * vec2f(1.0, -1.0) * vec2f(select(low, high, j >= 4u));
}`;

/** The table of IQ4_NL, four signed bytes at a time. */
export const IQ4_WGSL = /* wgsl */ `
const IQ4_VALUES = vec4u(0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u);
fn iq4_byte(q: vec4u) -> vec4u {
  let at = q & vec4u(15u);
  let words = vec4u(
    IQ4_VALUES[at.x / 4u], IQ4_VALUES[at.y / 4u], IQ4_VALUES[at.z / 4u], IQ4_VALUES[at.w / 4u],
  );
  return (words >> (8u * (at % vec4u(4u)))) & vec4u(0xffu);
}
fn iq4(q: vec4u) -> vec4u {
  return iq4_byte(q) | (iq4_byte(q >> vec4u(8u)) << vec4u(8u)) |
    (iq4_byte(q >> vec4u(16u)) << vec4u(16u)) | (iq4_byte(q >> vec4u(24u)) << vec4u(24u));
}`;
