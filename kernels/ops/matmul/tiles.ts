/**
 * Tiles of the WGSL matmul: shapes of a workgroup's work, candidates, bytes in flight.
 *
 *     flat    a lane computes `rows` × `outputs` sums over all of K; no barrier
 *     split   one row (decode): `outputs` lanes side by side, `slices` of them share out K
 *     shared  many rows (prefill): x and the weight pass through workgroup memory
 *
 * @module
 */
import { WORD_BYTES } from "../../formats/wgsl.ts";

/** Shape of a workgroup's work. */
export type Tile =
  | {
    readonly kind: "flat";
    /** Lanes of a workgroup. */
    readonly lanes: number;
    /** Outputs of a lane, `lanes` apart. */
    readonly outputs: number;
    /** Rows of a workgroup. */
    readonly rows: number;
  }
  | {
    readonly kind: "split";
    /** Outputs of a workgroup, a power of two from 4 on: 4 words of 16 bytes fill two sectors. */
    readonly outputs: number;
    /** Lanes per output, a power of two from 4 on; each takes every `slices`-th word of K. */
    readonly slices: number;
    /** Words of a lane that are loaded before the first is used; half as many blocks. */
    readonly depth: number;
    /** Workgroups per block of outputs (split-K); default 1. */
    readonly parts?: number;
  }
  | {
    readonly kind: "shared";
    /** Outputs and rows of a workgroup. */
    readonly tileN: number;
    readonly tileT: number;
    /** Outputs and rows of a lane, multiples of four. */
    readonly outputs: number;
    readonly rows: number;
    /** Workgroups per tile (split-K); default 1. */
    readonly parts?: number;
    /**
     * Whether weights stay pairs of 16 bits in workgroup memory, if their format has pairs; default
     * false. The sums are the same, in F32.
     */
    readonly half?: boolean;
  };

/** Most workgroups that share out K. */
export const MAX_PARTS = 4;

/** Candidates of the autotuner, by number of rows. */
export const TILES: Readonly<Record<"decode" | "prefill", readonly Tile[]>> = {
  decode: [
    { kind: "split", outputs: 32, slices: 8, depth: 4 },
    { kind: "split", outputs: 16, slices: 16, depth: 4 },
    { kind: "split", outputs: 8, slices: 32, depth: 4 },
    { kind: "split", outputs: 4, slices: 64, depth: 4 },
    { kind: "split", outputs: 8, slices: 16, depth: 4 },
    { kind: "split", outputs: 8, slices: 32, depth: 4, parts: 2 },
    { kind: "split", outputs: 8, slices: 32, depth: 4, parts: MAX_PARTS },
  ],
  prefill: [
    { kind: "shared", tileN: 128, tileT: 128, outputs: 8, rows: 8 },
    { kind: "shared", tileN: 128, tileT: 64, outputs: 8, rows: 4 },
    { kind: "shared", tileN: 64, tileT: 64, outputs: 4, rows: 4 },
    { kind: "shared", tileN: 64, tileT: 64, outputs: 4, rows: 4, parts: 2 },
    { kind: "shared", tileN: 64, tileT: 64, outputs: 4, rows: 4, parts: MAX_PARTS },
    { kind: "shared", tileN: 32, tileT: 32, outputs: 4, rows: 4 },
    { kind: "shared", tileN: 128, tileT: 128, outputs: 8, rows: 8, half: true },
    { kind: "shared", tileN: 128, tileT: 64, outputs: 8, rows: 4, half: true },
    { kind: "flat", lanes: 32, outputs: 1, rows: 4 },
  ],
};

/**
 * Tiles for a GPU emulated by the CPU: barriers are expensive, lanes beyond its vectors gain
 * nothing, and each number read costs as much as several multiply-adds. `normed` has the most
 * outputs, since each lane sums the row again (2304 × 768: 22 ms for 12, 43 with 16 × 8).
 */
export const SOFTWARE_TILES: Readonly<Record<"decode" | "normed" | "prefill", Tile>> = {
  decode: { kind: "flat", lanes: 8, outputs: 8, rows: 1 },
  normed: { kind: "flat", lanes: 8, outputs: 16, rows: 1 },
  prefill: { kind: "flat", lanes: 8, outputs: 8, rows: 8 },
};

/** Workgroups of a product of `count` outputs and `rows` rows. */
export function matmulGroups(tile: Tile, count: number, rows: number): number {
  switch (tile.kind) {
    case "flat":
      return Math.ceil(count / (tile.lanes * tile.outputs)) * Math.ceil(rows / tile.rows);
    case "split":
      return Math.ceil(count / tile.outputs) * partsOf(tile) * rows;
    case "shared":
      return Math.ceil(count / tile.tileN) * partsOf(tile) * Math.ceil(rows / tile.tileT);
  }
}

/** Workgroups that share out K of one block of outputs. */
export function partsOf(tile: Tile): number {
  return tile.kind === "flat" ? 1 : tile.parts ?? 1;
}

/** Matrix of a product: outputs, and words per output. */
export interface Words {
  /** N: outputs. */
  readonly N: number;
  /** Loads per output, as `panelWords` counts them: words of 16 bytes, or blocks. */
  readonly words: number;
  /** Whether the format has pairs of 16 bits; default false. */
  readonly paired?: boolean;
  /** Bytes of a load that is a block of the format; default one word. */
  readonly blockBytes?: number;
}

/** Loads of a lane before the first is used; blocks of several words take half as many. */
export function loadsAhead({ depth }: Tile & { kind: "split" }, isBlock: boolean): number {
  return isBlock ? depth / 2 : depth;
}

/**
 * Bytes of a weight that one row's product has in flight, if all its workgroups are resident: by
 * Little's law, a device reads them per latency of its memory. An H100 at 3.35 TB/s and 650 ns
 * requires 2.2 MB.
 */
export function bytesInFlight(tile: Tile, { N, words, blockBytes }: Words): number {
  const bytes = blockBytes ?? WORD_BYTES;
  switch (tile.kind) {
    case "flat":
      return N * Math.min(2, words) * bytes;
    case "split": {
      const ahead = loadsAhead(tile, blockBytes !== undefined);
      return N * Math.min(words, tile.slices * ahead * partsOf(tile)) * bytes;
    }
    case "shared":
      return 0; // its loads wait for a barrier
  }
}

/** Bytes in flight at which memory limits a large GPU; more than Little's 2.2 MB, for a margin. */
const ENOUGH = 3e6;

/** Seconds of memory latency, and of one more dispatch, on a large GPU. */
const [LATENCY, LAUNCH] = [650e-9, 3e-6];

/**
 * Index of the untuned tile for one row: the first with enough bytes in flight, else the one with
 * most. Split-K takes a second dispatch, so it must save more than its launch.
 */
export function decodeTile(shape: Words): number {
  const weight = shape.N * shape.words * (shape.blockBytes ?? WORD_BYTES);
  const seconds = (tile: Tile) => {
    const inFlight = Math.min(ENOUGH, bytesInFlight(tile, shape));
    return weight / inFlight * LATENCY + (partsOf(tile) > 1 ? LAUNCH : 0);
  };
  const times = TILES.decode.map(seconds);
  return times.indexOf(Math.min(...times));
}

/** Workgroups that occupy a large GPU: two for each of 132 cores, less a few. */
const ENOUGH_GROUPS = 256;

/** Words of a part at least: fewer take less time than their partial sums. */
const PART_WORDS = 64;

/**
 * Bytes of partial sums at most: what `isSuitable` allows, and as much
 * again for narrower products.
 */
export const MAX_PARTIALS = 2 * 4 * (MAX_PARTS * ENOUGH_GROUPS) * 64 * 64;

/**
 * Whether a tile suits a product: split-K only where its tiles alone do not occupy a GPU, halves
 * only of formats that have them.
 */
export function isSuitable(tile: Tile, { N, words, paired }: Words, T: number): boolean {
  if (tile.kind === "shared" && tile.half && !paired) return false;
  const parts = partsOf(tile);
  if (parts === 1 || T === 1) return true;
  return matmulGroups(tile, N, T) / parts < ENOUGH_GROUPS && words >= parts * PART_WORDS;
}

/**
 * Index of the untuned tile for many rows: the widest whose workgroups occupy a large GPU, else the
 * narrowest.
 */
export function prefillTile(shape: Words, T: number): number {
  const { prefill } = TILES;
  const shared = prefill.filter((tile) => tile.kind === "shared" && !tile.half);
  const enough = shared.findIndex((tile) =>
    isSuitable(tile, shape, T) && matmulGroups(tile, shape.N, T) >= ENOUGH_GROUPS
  );
  return enough >= 0 ? enough : shared.length - 1;
}
