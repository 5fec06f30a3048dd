/**
 * Interface of a weight format: block size, decoding, encoding, and its panels in WASM and WGSL.
 *
 * Think of a weight [N, K] as N rows of K / `block` blocks. A format defines the bytes of a block
 * and how to decode it; matmul, embedding, the packer and the uploader call the record and never
 * compare a dtype's name. A record holds no state and no tensor.
 *
 * @module
 */
import { ints } from "../asm/assembler.ts";
import type {
  Func,
  FunctionBuilder,
  Int,
  Ints,
  Local,
  ModuleBuilder,
  Value,
} from "../asm/assembler.ts";
import type { PairLoads } from "../asm/join.ts";
import type { StoredOrder } from "../tensor.ts";
import type { Shader } from "../wgsl/shader.ts";

/** Dtypes that a weight may be computed in; `mod.ts` has the table of their formats. */
export type WeightDtype =
  | "F32"
  | "F16"
  | "BF16"
  | "Q8_0"
  | "Q4_0"
  | "Q4_1"
  | "Q5_0"
  | "Q5_1"
  | "Q2_K"
  | "Q3_K"
  | "Q4_K"
  | "Q5_K"
  | "Q6_K"
  | "IQ4_NL"
  | "IQ4_XS";

/** Numbers in a file: bytes of a block, and how to decode it. */
export interface StoredFormat {
  /** Numbers per block: neighbouring inputs of one output. */
  readonly block: number;
  /** Bytes per block. */
  readonly bytes: number;
  /** Decodes whole blocks to `into.length` numbers. Exact; tests compare all kernels with it. */
  decode(into: Float32Array, stored: Uint8Array): void;
  /** Bound of the magnitudes of the block at byte `at`; missing if the numbers must be decoded. */
  readonly bound?: (view: DataView, at: number) => number;
}

/** A weight format: backends compute with its blocks. */
export interface Format extends StoredFormat {
  /** View of stored numbers as F32, without a copy; null if the format must be decoded. */
  readonly view: ((stored: Uint8Array) => Float32Array) | null;
  /**
   * Encodes numbers as whole blocks. Floats: to nearest, ties to even, as PyTorch's `.to(dtype)`.
   * Blocks: bit for bit as ggml's reference quantisers. Null if weights can only be read in the
   * format.
   */
  readonly encode: ((into: Uint8Array, values: Float32Array) => void) | null;
  /** Format for rows that are no multiple of the block; missing if the block is one number. */
  readonly instead?: WeightDtype;
  /** Null if the format has no WASM form yet: weights are widened to F16 then. */
  readonly wasm: WasmFormat | null;
  /** Null if the format has no WGSL form yet: weights are widened to F16 then. */
  readonly wgsl: WgslFormat | null;
}

/** A format in the linear memory of WebAssembly; `panels.ts` draws the panels of 16 outputs. */
export interface WasmFormat {
  /** Addresses of a weight's panels. */
  layout(shape: readonly [N: number, K: number]): PanelLayout;
  /**
   * Loads of panels for one row of x; the panels, read in parallel, begin at `bases`. Null if
   * numbers are in blocks.
   */
  readonly reader:
    | ((shape: readonly [N: number, K: number], bases: readonly Local<Int>[]) => PanelReader)
    | null;
  /** Fields of a block, for integer dot products with a row of x; null if numbers are floats. */
  readonly blocks: BlockForm | null;
  /**
   * Defines the function that widens a panel to F32 lines of 16. Null if panels are F32.
   */
  readonly widen: ((m: ModuleBuilder, shape: readonly [N: number, K: number]) => PanelCopy) | null;
  /** Loads of 16-bit lines for kernels of 256 bits, which then read panels as they are stored. */
  readonly pairs: PairLoads | null;
  /** Loops over row `row` of `table` [N, K] in vectors of F32; `at` is the byte offset in F32. */
  eachOfRow(
    f: FunctionBuilder,
    table: Local<Int>,
    row: Local<Int>,
    shape: readonly [N: number, K: number],
    body: (v: Local<"v128">, at: Local<Int>, lanes: number) => void,
  ): void;
  /** Defines the function that packs a part of a panel from a file's rows. */
  pack(m: ModuleBuilder, stored: StoredOrder): PanelPacker;
  /** Defines the quantisation of a row; missing if weights can only be read in the format. */
  readonly encode?: (m: ModuleBuilder) => RowEncoder;
}

/**
 * A blocked format in panels: words of 32 bits, interleaved like the numbers of an F32 panel;
 * `block_panels.ts` draws them.
 */
export interface BlockForm {
  /** Byte of a scale (F16) outside the words; null if there is none. */
  readonly half: number | null;
  /** Byte of the first word. */
  readonly first: number;
  /** Number of words. */
  readonly words: number;
  /** Word that holds two F16: scale and minimum; null if there is none. */
  readonly pair: number | null;
  /** Word whose lower half is the scale (F16); missing if there is none. */
  readonly lower?: number;
  /** The parts of a block with a scale each, in the order of their inputs. */
  readonly parts: readonly BlockPart[];
  /** Indices of parts that share code words; missing if each part has words of its own. */
  readonly stripes?: readonly (readonly number[])[];
  /**
   * Equal pieces of a block: a loop over them is code that caches hold. Stripes and parts of a
   * piece follow those of the piece before, and so do their words, `apart` lines away.
   */
  readonly pieces?: { readonly count: number; readonly apart: number };
  /** Line of a word in a panel's block; missing if it is the word's index. */
  readonly line?: (word: number) => number;
  /**
   * Whether the even bytes of all words are stored in panels with their highest bit flipped: codes
   * are signed bytes, and those of even bytes become code + 128, which needs one operation less to
   * widen to 16 bits.
   */
  readonly flipped?: boolean;
  /**
   * Word of the fifth bits: in the file, bit 4g + b is of input 4g + b; in panels it is bit 8b + g,
   * so that a shift brings those of a group to its four bytes. Missing if there is none.
   */
  readonly fifths?: number;
}

/** A part of a block with one scale: w = scale · (code + offset) + min. */
export interface BlockPart {
  readonly inputs: 16 | 32;
  /** Added to each code. */
  readonly offset: number;
  /** Largest code: at most 63 if codes are not negative; null for signed bytes. */
  readonly most: number | null;
  /** Words that hold the codes. */
  readonly codeWords: readonly number[];
  /** Codes in word `index`, which is in `word`; other fields of the block are in `fields`. */
  codes(word: Local<"v128">, index: number, fields: BlockFields): readonly BlockCodes[];
  scale(fields: BlockFields): Value<"v128">;
  min?(fields: BlockFields): Value<"v128">;
}

/** Codes of four neighbouring inputs: 4·group … 4·group + 3 of the part. */
export interface BlockCodes {
  readonly group: number;
  /** The codes as the four bytes of a lane. */
  readonly bytes: Value<"v128">;
  /** The codes as 16-bit integers, if they take fewer operations than from `bytes`. */
  readonly pairs?: BlockPairs;
}

/** Codes of four inputs as 16-bit integers, the lower half of a lane first. */
export interface BlockPairs {
  /** Inputs 0 and 2. */
  readonly even: Value<"v128">;
  /** Inputs 1 and 3. */
  readonly odd: Value<"v128">;
}

/** Fields of four outputs' blocks, one in each lane. */
export interface BlockFields {
  /** Loads a word of each block. */
  word(index: number): Value<"v128">;
  /** The same as panels hold it; different only in a form that is `flipped`. */
  stored(index: number): Value<"v128">;
  /** The scale outside the words, as F32. */
  half(): Value<"v128">;
}

/**
 * Addresses of panels. Input k of panel p, a line of 16 outputs, is in part ⌊k / inputs⌋, which
 * begins at byte part · apart + p · pitch.
 */
export interface PanelLayout {
  /** Separate parts of a panel. */
  readonly parts: number;
  /** Inputs per part. */
  readonly inputs: number;
  /** Bytes from a part of one panel to that of the next panel. */
  readonly pitch: number;
  /** Bytes from one part of a panel to its next part. */
  readonly apart: number;
}

/** Reader of panels: several streams per panel, line by line. */
export interface PanelReader {
  /** Streams per panel, read in parallel. */
  readonly streams: number;
  /** Inputs per stream, a multiple of four; the rest of K follows the last stream. */
  readonly length: number;
  /** Factor from a loaded number to the weight. */
  readonly unit: number;
  /**
   * Loads eight weights, divided by `unit`, as two vectors: of the line that is `line` lines after
   * a stream's position.
   */
  load(pair: readonly Local<"v128">[], at: PanelPlace): void;
  /** Advances all streams by `lines`. */
  advance(lines: number): void;
}

/** Position of eight weights of a panel. */
export interface PanelPlace {
  /** Index of the panel in `bases`. */
  readonly panel: number;
  readonly stream: number;
  /** Lines after the stream's position. */
  readonly line: number;
  /** The first of eight columns. */
  readonly column: number;
}

/** Parameters of a row's quantisation: `count` F32 to whole blocks. */
export const ENCODER = ints("to", "from", "count", "scratch");

/** Quantises a row, with `ENCODE_SCRATCH` bytes of scratch. */
export type RowEncoder = Func<typeof ENCODER>;

/** Bytes of scratch of a row's quantisation. */
export const ENCODE_SCRATCH = 4096;

/** Copies a panel from one address to another. */
export type PanelCopy = Func<Ints<"to" | "from">>;

/**
 * Packs one part of a panel. `to` is the address of the part, `from` that of its first number in
 * the file's rows, `pitch` the bytes of such a row. `count` is the number of lines to write (NK:
 * the inputs of a part; KN: the rows), `mask` the address of the column mask (KN). Returns 1 if
 * panels cannot represent one of the numbers.
 */
export type PanelPacker = Func<Ints<"to" | "from" | "count" | "pitch" | "mask">, "int">;

/**
 * A format in the storage buffers of a GPU; `wgsl.ts` draws the panels. A lane loads one word of 16
 * bytes at a time, whatever the format: a narrower one has more inputs in it.
 */
export interface WgslFormat {
  /** Neighbouring inputs of one output that one load gives, a multiple of four. */
  readonly inputs: number;
  /** WGSL type of a load: vec4u, or a block's codes and scales. */
  readonly type: string;
  /** Words of 16 bytes of one output of K inputs. */
  words(K: number): number;
  /** Functions and types that the text of `load` and `unpack` uses. */
  readonly declare: string;
  /** WGSL statements that return load `k` of an output; `at(i)` is its word `i`. */
  load(K: number, at: (i: string) => string): string;
  /**
   * The same in two steps, so that a kernel requests the words of several loads before it decodes
   * the first; missing if a load is one word.
   */
  readonly ahead?: AheadWgsl;
  /** WGSL expression, a vec4f: the weights of inputs 4i … 4i + 3 of a load. */
  unpack(load: string, i: number): string;
  /** The same of an index that is an expression. */
  four(load: string, i: string): string;
  /**
   * WGSL expressions, each a vec4f, of the lower and the upper inputs of four outputs' pairs, a
   * vec4u; missing unless a word is four pairs of neighbouring inputs.
   */
  readonly pairs?: { low(bits: string): string; high(bits: string): string };
  /** The shader that moves a chunk of a file's rows into panels. */
  pack(packing: GpuPacking): PackShader;
}

/** A load in two steps. */
export interface AheadWgsl {
  /** Type `Raw`, a load's words, and `swapped(load, odd)`: its fours 1, 0, 3, 2 … if odd. */
  readonly declare: string;
  /** WGSL statements that return `Raw` of load `k`; `at(i)` is its word `i`. */
  raw(K: number, at: (i: string) => string): string;
  /** WGSL statements that return load `k` from `raw`. */
  readonly decode: string;
}

/** Upload of a weight, or of a range of its outputs, into one buffer of a GPU. */
export interface GpuPacking {
  readonly shape: readonly [N: number, K: number];
  readonly stored: StoredOrder;
  /** The buffer holds outputs first … first + count − 1. */
  readonly first: number;
  readonly count: number;
}

/**
 * Rows of a file that one dispatch packs: the packing shader's uniform, in the place of a step.
 */
export interface Chunk {
  /**
   * Index of the first row: among the buffer's outputs (NK), or among all inputs (KN).
   */
  readonly row: number;
  /** Number of rows. */
  readonly rows: number;
}

/** A packing shader. */
export interface PackShader extends Shader {
  /** Number of workgroups for a chunk. */
  readonly groups: (chunk: Chunk) => number;
}
