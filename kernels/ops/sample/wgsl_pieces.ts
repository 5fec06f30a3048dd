/**
 * WGSL pieces of sampling: settings, scaling, sortable keys, Gumbel noise, the best over lanes.
 *
 * @module
 */
import { type Shader, workgroupArray } from "../../wgsl/shader.ts";
import { LEAST_DIVISOR, MOST_DIVISOR, NOT_FINITE, ROTATIONS } from "./mod.ts";

/** Constants of the shaders. */
export interface SampleWgsl {
  readonly V: number;
  /** Length of the ring of drawn ids. */
  readonly R: number;
  /** Lanes of a workgroup, a power of two. */
  readonly lanes: number;
  /** Whether the device has subgroups; default false. */
  readonly subgroups?: boolean;
}

/** Settings. Binding: 2. */
export function settingsWgsl(V: number): string {
  return /* wgsl */ `
const V = ${V}u;
const NO_KEY = 0xffffffffu; // of a logit that is not finite; no finite number has it
@group(1) @binding(2) var<storage, read> settings: array<f32>;

fn is_greedy() -> bool { return settings[0] == 0.0; }
fn top_k() -> u32 { return u32(clamp(settings[1], 0.0, f32(V))); }
fn cuts_by_k() -> bool { return top_k() > 0u && top_k() < V; }
fn cuts_by_p() -> bool { return settings[2] < 1.0; }
`;
}

/** Order-preserving keys of floats, candidates of (key, id), masses of scaled logits. */
export const KEYS_WGSL = /* wgsl */ `
// Floats in the order of their keys; both zeros have one key. Comparing integers asks no device
// what it makes of infinity.
fn key_of(v: f32) -> u32 {
  let raw = bitcast<u32>(v);
  let bits = select(raw, 0u, raw == 0x80000000u);
  return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}
fn value_of(key: u32) -> f32 {
  return bitcast<f32>(select(~key, key & 0x7fffffffu, (key >> 31u) == 1u));
}
// A candidate is (key, id); of equal keys the lower id wins.
fn better(a: vec2u, b: vec2u) -> vec2u {
  return select(b, a, a.x > b.x || (a.x == b.x && a.y < b.y));
}
// Probability, up to a factor.
fn mass_of(key: u32, top: f32) -> f32 { return exp(max(value_of(key) - top, -100.0)); }
`;

/** Scales a logit from its bits, and whether its id was `seen`. */
export const SCALE_WGSL = /* wgsl */ `
fn divisor() -> f32 {
  return select(clamp(settings[0], ${LEAST_DIVISOR}, ${MOST_DIVISOR}), 1.0, is_greedy());
}
fn penalty_of(seen: u32) -> f32 {
  return select(1.0, clamp(settings[3], ${LEAST_DIVISOR}, ${MOST_DIVISOR}), seen != 0u);
}
// Whether the greatest scaled logit may exceed F32: it has the key of the greatest or least number.
fn is_beyond(key: u32) -> bool { return key == 0xff7fffffu || key == 0x00800000u; }
// Key of a scaled logit; of one beyond F32, that of the greatest number with its sign.
fn scaled_key(bits: u32, seen: u32) -> u32 {
  let v = bitcast<f32>(bits);
  let penalty = penalty_of(seen);
  let reduced = v * 0x1p-64 / divisor();
  let size = max(abs(reduced), abs(reduced / penalty));
  let most = bitcast<f32>((bits & 0x80000000u) | 0x7f7fffffu);
  let s = select(v / divisor() / penalty, most, size >= 0x1.fffffep63);
  return select(key_of(s), NO_KEY, (bits & 0x7f800000u) == 0x7f800000u);
}
`;

/** Reads logits one at a time, scaled. Bindings: 1 logits as bits, 4 seen. */
export const LOGITS_WGSL = /* wgsl */ `
${SCALE_WGSL}
@group(1) @binding(1) var<storage, read> logits: array<u32>;
@group(1) @binding(4) var<storage, read_write> seen: array<u32>;

fn key_at(id: u32) -> u32 { return scaled_key(logits[id], seen[id]); }
// Scaled logits times 2^-64, none of which exceeds F32.
fn reduced_at(id: u32) -> f32 {
  return bitcast<f32>(logits[id]) * 0x1p-64 / divisor() / penalty_of(seen[id]);
}
`;

/** Unrolls the rounds of `threefry`, on state `s` and `keys`. */
function threefryRoundsWgsl(): string {
  const lines: string[] = [];
  for (let round = 0; round < 20; round++) {
    lines.push(`s = rotate_words(s, ${ROTATIONS[round % 8]}u);`);
    const i = (round + 1) / 4;
    if (round % 4 === 3) {
      lines.push(`s += vec2u(keys[${i % 3}], keys[${(i + 1) % 3}] + ${i}u);`);
    }
  }
  return lines.join("\n  ");
}

/** A log accurate near 1, and a candidate with Gumbel noise. */
export const NOISE_WGSL = /* wgsl */ `
// The builtin may err by 2^-21 near 1, which is where the greatest noise comes from.
fn log_of(v: f32) -> f32 {
  let bits = bitcast<u32>(v) - 0x3f3504f3u; // counts from √½, so that the mantissa m is in [√½, √2)
  let exponent = f32(bitcast<i32>(bits) >> 23u);
  let m = bitcast<f32>((bits & 0x7fffffu) + 0x3f3504f3u);
  let a = (m - 1.0) / (m + 1.0); // log m = 2 atanh a
  let b = a * a;
  let series = 1.0 + b * (0.33333333 + b * (0.2 + b * (0.14285714 + b * 0.11111111)));
  return exponent * 0.69314718 + 2.0 * a * series;
}

fn rotate_words(s: vec2u, by: u32) -> vec2u {
  let x = s.x + s.y;
  return vec2u(x, ((s.y << by) | (s.y >> (32u - by))) ^ x);
}
fn threefry(key: vec2u, count: vec2u) -> u32 {
  let keys = vec3u(key, 0x1bd11bdau ^ key.x ^ key.y);
  var s = count + key;
  ${threefryRoundsWgsl()}
  return s.x;
}
fn gumbel(seed: vec2u, draw: u32, id: u32) -> f32 {
  let u = (f32(threefry(seed, vec2u(draw, id)) >> 9u) + 0.5) * 0x1p-23;
  return -log_of(-log_of(u));
}
fn noisy(key: u32, id: u32, seed: vec2u, draw: u32) -> vec2u {
  return vec2u(key_of(value_of(key) + gumbel(seed, draw, id)), id);
}
`;

/** Defines `best_over_lanes`: the best candidate of all lanes, equal in every lane. */
export function bestOverLanesWgsl(lanes: number): Shader {
  const candidates = workgroupArray("candidates", "vec2u", lanes);
  const wgsl = /* wgsl */ `
${candidates.wgsl}
fn best_over_lanes(lane: u32, mine: vec2u) -> vec2u {
  candidates[lane] = mine;
  for (var half = ${lanes / 2}u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { candidates[lane] = better(candidates[lane], candidates[lane + half]); }
  }
  return workgroupUniformLoad(&candidates[0]);
}
`;
  return { ...candidates, wgsl };
}

/**
 * Defines `best_beyond`: the best of logits that exceed F32 when scaled. Such numbers are so far
 * apart that no noise changes their order.
 */
export function bestBeyondWgsl(lanes: number): string {
  return /* wgsl */ `
fn best_beyond(lane: u32) -> vec2u {
  var mine = vec2u(0u, V);
  for (var id = lane; id < V; id += ${lanes}u) {
    mine = better(mine, vec2u(key_of(reduced_at(id)), id));
  }
  return best_over_lanes(lane, mine);
}
`;
}

/** Defines `keep_draw`, which writes the id, or NOT_FINITE. Bindings: 0 ids, 3 counter, 5 drawn. */
export function keepDrawWgsl(R: number): string {
  return /* wgsl */ `
@group(1) @binding(0) var<storage, read_write> ids: array<i32>;
@group(1) @binding(3) var<storage, read_write> counter: array<u32>;
@group(1) @binding(5) var<storage, read_write> drawn: array<i32>;
fn keep_draw(id: u32, finite: bool, draw: u32) {
  let kept = select(${NOT_FINITE}, i32(id), finite);
  ids[0] = kept;
  drawn[draw % ${R}u] = kept;
  if (finite) { seen[id] = 1u; }
  counter[2] = draw + 1u;
}
`;
}
