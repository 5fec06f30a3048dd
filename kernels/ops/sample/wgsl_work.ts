/**
 * Scratch of WGSL sampling by many workgroups: keys, bins and what the kernels know of each part.
 *
 * @module
 */
import { linesWgsl } from "../../wgsl/shader.ts";
import { KEYS_WGSL, settingsWgsl } from "./wgsl_pieces.ts";

/** Ids of a part, which is the work of one workgroup. */
export const PART = 1024;

/** Bins of scaled logits; each lane of a workgroup walks over BINS / lanes of them. */
export const BINS = 1024;

/** Elements of an array of parts: whole sectors of 32 bytes. */
function partsWithRoom(V: number): number {
  return 8 * Math.ceil(V / PART / 8);
}

/** Bytes of `Work`, as `workWgsl` lays it out. */
export function workBytes(V: number): number {
  return 16 * Math.ceil(V / PART) * PART + 4 * BINS + 28 * partsWithRoom(V) + 16;
}

/**
 * Constants and scratch of all three shaders. Loads are 16 bytes where a lane takes neighbours.
 * @param bins type of the bins: atomics where they are counted, else words.
 */
export function workWgsl(V: number, bins: "atomic<u32>" | "vec4u"): string {
  const parts = Math.ceil(V / PART);
  const room = partsWithRoom(V);
  return /* wgsl */ `
${settingsWgsl(V)}
${KEYS_WGSL}
const PARTS = ${parts}u;
const BINS = ${BINS}u;
const NONE = 0xffffffffu;

struct Work {
  keys: array<vec4u, ${parts * PART / 4}>, // [V]; any numbers past V
  undecided: array<u32, ${parts * PART}>, // ids [PARTS, ${PART}]
  list: array<vec2u, ${parts * PART}>, // the same without gaps: key, id
  bins: array<${bins}, ${bins === "vec4u" ? BINS / 4 : BINS}>, // ids in each; zero between draws
  best: array<vec2u, ${room}>, // of a part: greatest key, and its lowest id
  pick: array<vec2u, ${room}>, // the same of the ids kept for certain, with noise
  mass: array<vec2f, ${room}>, // of the ids kept for certain; of those that top-p cuts for certain
  listed: array<u32, ${room}>, // number of undecided ids
  anchor: u32, // key at the lower edge of bin BINS / 8
  excess: u32, // undecided ids that top-k cuts, if no keys are equal
}
@group(1) @binding(6) var<storage, read_write> work: Work;

fn is_filtered() -> bool { return !is_greedy() && (cuts_by_k() || cuts_by_p()); }
// Bins are 1/16 wide, from 8 below the anchor to 56 above it; the first and the last have no other
// end. Each step is exact or one rounding, so every shader puts a key into the same bin. Halves:
// the difference must not overflow.
fn bin_of(key: u32, anchor: f32) -> u32 {
  let above = clamp(value_of(key) * 0.5 - anchor * 0.5, -4.0, 28.0) * 32.0 + 128.0;
  return min(u32(above), BINS - 1u);
}
`;
}

/** Declares the ids of a lane: four neighbours for each of its words of keys. */
export function idsWgsl(lanes: number): string {
  const id = (i: number) => `4u * at_${i >> 2} + ${i % 4}u`;
  return `${
    linesWgsl(PART / 4 / lanes, (j) => `let at_${j} = part * ${PART / 4}u + ${j * lanes}u + lane;`)
  }
  ${linesWgsl(PART / lanes, (i) => `let id_${i} = ${id(i)};`)}`;
}
