/**
 * The record of a weight format: all that the rest of the program knows about how numbers are
 * stored.
 *
 * Think of a weight [N, K] as N rows of K / `block` blocks. A format says how many bytes a block
 * has and how its numbers are recovered; matmul, embedding, the packer and the uploader call the
 * record and compare no names. A record holds no state and no tensor.
 *
 * @module
 */
import type { Func, FunctionBuilder, Ints, Local, ModuleBuilder } from "../asm/assembler.ts";
import type { StoredOrder } from "../tensor.ts";
import type { Shader } from "../wgsl/shader.ts";

/** A weight format. */
export interface Format {
  /** Numbers in a block: neighbouring inputs of one output. */
  readonly block: number;
  /** Bytes of a block. */
  readonly bytes: number;
  /** The numbers where they are stored, if that is as F32; null in formats that must be decoded. */
  readonly view: ((stored: Uint8Array) => Float32Array) | null;
  /** Decodes whole blocks to `into.length` numbers. Exact; the oracle of every other form. */
  decode(into: Float32Array, stored: Uint8Array): void;
  /**
   * Rounds numbers to whole blocks: to the nearest, ties to even, as PyTorch's `.to(dtype)` does.
   */
  encode(into: Uint8Array, values: Float32Array): void;
  readonly wasm: WasmFormat;
  readonly wgsl: WgslFormat;
}

/** A format in the linear memory of WebAssembly; `panels.ts` draws the panels of 16 outputs. */
export interface WasmFormat {
  /** Where the panels of a weight are. */
  layout(shape: readonly [N: number, K: number]): PanelLayout;
  /** Code by which one row of x meets panels side by side, which begin at `bases`. */
  reader(shape: readonly [N: number, K: number], bases: readonly Local<"i32">[]): PanelReader;
  /**
   * Defines the copy of a panel as F32 lines of 16: to, from. Null where panels are F32 already.
   */
  readonly widen: ((m: ModuleBuilder, shape: readonly [N: number, K: number]) => PanelCopy) | null;
  /** Walks a row of a weight by fours, as F32; `at` is their place in a row of F32, in bytes. */
  eachOfRow(
    f: FunctionBuilder,
    table: Local<"i32">,
    row: Local<"i32">,
    shape: readonly [N: number, K: number],
    body: (v: Local<"v128">, at: Local<"i32">, lanes: number) => void,
  ): void;
  /** Defines the packing of a part of a panel from a file's rows. */
  pack(m: ModuleBuilder, stored: StoredOrder): PanelPacker;
}

/**
 * Where panels are: input k of panel p, a line of 16, is in part ⌊k / inputs⌋, at part · apart + p
 * · pitch.
 */
export interface PanelLayout {
  /** Parts of a panel that lie apart. */
  readonly parts: number;
  /** Inputs of a part. */
  readonly inputs: number;
  /** Bytes from a part to that of the next panel, and to the panel's next part. */
  readonly pitch: number;
  readonly apart: number;
}

/** Reads panels by streams, line by line. */
export interface PanelReader {
  /** Streams of a panel, read side by side. */
  readonly streams: number;
  /** Inputs of each stream, a multiple of four; what is left of K follows the last stream. */
  readonly length: number;
  /** Factor that loaded numbers lack. */
  readonly unit: number;
  /**
   * Loads two vectors of four weights, over `unit`: of a panel's line, `line` behind where a stream
   * is.
   */
  load(pair: readonly Local<"v128">[], at: PanelPlace): void;
  /** Moves all streams on by some lines. */
  advance(lines: number): void;
}

/** Eight weights of a panel. */
export interface PanelPlace {
  /** The panel, by its place in `bases`. */
  readonly panel: number;
  readonly stream: number;
  readonly line: number;
  /** The first of eight columns. */
  readonly column: number;
}

/** Copies a panel. */
export type PanelCopy = Func<Ints<"to" | "from">>;

/**
 * Packs one part of a panel to `to`, from its first number in the file's rows, which are `pitch`
 * bytes apart. `count` is the lines to write (NK: all of the part; KN: as many as there are rows),
 * `mask` the address of its columns' mask (KN). Returns 1 when panels cannot hold one of the
 * numbers.
 */
export type PanelPacker = Func<Ints<"to" | "from" | "count" | "pitch" | "mask">, "i32">;

/** A format in the storage buffers of a GPU; `wgsl.ts` draws the panels. */
export interface WgslFormat {
  /**
   * WGSL type of a group, four neighbouring inputs of one output: the element of a binding's array.
   */
  readonly group: string;
  /** The body of a function that returns group `at` of `array` as a vec4f. */
  load(array: string, at: string): string;
  /** The shader that moves a chunk of a file's rows into panels. */
  pack(packing: GpuPacking): PackShader;
}

/** A weight on its way into one buffer of a GPU. */
export interface GpuPacking {
  readonly shape: readonly [N: number, K: number];
  readonly stored: StoredOrder;
  /** Outputs first … first + count, which the buffer holds. */
  readonly first: number;
  readonly count: number;
}

/**
 * Rows of a file that are packed at once: what the shader that packs reads, as other shaders read a
 * step.
 */
export interface Chunk {
  /**
   * Place of the first row among the buffer's outputs, or among all inputs where rows are inputs.
   */
  readonly row: number;
  readonly rows: number;
}

/** A shader that packs, and its workgroups for a chunk. */
export interface PackShader extends Shader {
  readonly groups: (chunk: Chunk) => number;
}
