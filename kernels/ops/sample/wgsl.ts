/**
 * WGSL sampling: one workgroup; thresholds by bisection over order-preserving integer keys of
 * floats.
 *
 * @module
 */
import {
  type Shader,
  sumOverLanesWgsl,
  workgroupArray,
  workgroupBytes,
} from "../../wgsl/shader.ts";
import type { GpuDispatch, GpuTarget } from "../contract.ts";
import { NOT_FINITE, ROTATIONS, type SampleCall, sampleOperands } from "./mod.ts";

/** Constants of the shader. */
export interface SampleWgsl {
  readonly V: number;
  /** Length of the ring of drawn ids. */
  readonly R: number;
  /** Lanes of the one workgroup, a power of two. */
  readonly lanes: number;
  /** Whether the device has subgroups; default false. */
  readonly subgroups?: boolean;
}

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

/** Scalar functions: order-preserving keys of floats, a log accurate near 1, Gumbel noise. */
function sampleMathWgsl(): string {
  return /* wgsl */ `
// Floats in the order of their keys; both zeros have one key. Comparing integers asks no device what it makes of infinity.
fn key_of(v: f32) -> u32 {
  let raw = bitcast<u32>(v);
  let bits = select(raw, 0u, raw == 0x80000000u);
  return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}
fn value_of(key: u32) -> f32 {
  return bitcast<f32>(select(~key, key & 0x7fffffffu, (key >> 31u) == 1u));
}

// The builtin may err by 2^-21 near 1, which is where the greatest noise comes from.
fn log_of(v: f32) -> f32 {
  let bits = bitcast<u32>(v) - 0x3f3504f3u; // counts from √½, so that the mantissa m is in [√½, √2)
  let exponent = f32(bitcast<i32>(bits) >> 23u);
  let m = bitcast<f32>((bits & 0x7fffffu) + 0x3f3504f3u);
  let a = (m - 1.0) / (m + 1.0); // log m = 2 atanh a
  let b = a * a;
  return exponent * 0.69314718 + 2.0 * a * (1.0 + b * (0.33333333 + b * (0.2 + b * (0.14285714 + b * 0.11111111))));
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
`;
}

/**
 * Thresholds of top-k and top-p: two bits of the key per pass, by sums over the workgroup, equal in
 * every lane.
 */
function sampleThresholdsWgsl({ lanes, subgroups }: SampleWgsl): Shader {
  const count = sumOverLanesWgsl(lanes, { name: "count_over_lanes", type: "vec3u", subgroups });
  const mass = sumOverLanesWgsl(lanes, { name: "mass_over_lanes", type: "vec3f", subgroups });
  const wgsl = /* wgsl */ `
${count.wgsl}
${mass.wgsl}

// The greatest key that at least k ids reach: the k-th largest. Three keys are tried at a time: reading is what costs.
fn top_k_key(lane: u32, k: u32) -> u32 {
  var key = 0u;
  for (var shift = 32u; shift > 0u;) {
    shift -= 2u;
    let tried = vec3u(key) + (vec3u(1u, 2u, 3u) << vec3u(shift));
    var reach = vec3u(0u);
    for (var id = lane; id < V; id += LANES) { reach += vec3u(vec3u(keys[id]) >= tried); }
    let enough = vec3u(count_over_lanes(lane, reach) >= vec3u(k));
    key += (enough.x + enough.y + enough.z) << shift;
  }
  return key;
}

// Probability, up to a factor, of all ids whose key is that key or greater.
fn mass_from(lane: u32, least: vec3u, top: f32) -> vec3f {
  var mass = vec3f(0.0);
  for (var id = lane; id < V; id += LANES) {
    let key = keys[id];
    let p = exp(max(value_of(key) - top, -100.0));
    mass += select(vec3f(0.0), vec3f(p), vec3u(key) >= least);
  }
  return mass_over_lanes(lane, mass);
}

// The least key such that what is greater has at most the share p of the mass from that key on.
fn top_p_key(lane: u32, least: u32, top_key: u32, p: f32) -> u32 {
  let top = value_of(top_key);
  let bound = vec3f(max(p, 0.0) * mass_from(lane, vec3u(least), top).x);
  var below = 0u; // the greatest key with more than that above it
  for (var shift = 32u; shift > 0u;) {
    shift -= 2u;
    let tried = vec3u(below) + (vec3u(1u, 2u, 3u) << vec3u(shift));
    let above = vec3u(mass_from(lane, tried + vec3u(1u), top) > bound);
    below += (above.x + above.y + above.z) << shift;
  }
  return max(least, below + 1u);
}
`;
  return { wgsl, workgroupBytes: workgroupBytes([count, mass]) };
}

/**
 * The WGSL form: one workgroup. Bindings: 0 ids, 1 logits as bits, 2 settings, 3 counter, 4 seen, 5
 * drawn, 6 keys (scratch, U32 [V]).
 */
export function sampleWgsl(constants: SampleWgsl): Shader {
  const { V, R, lanes } = constants;
  const thresholds = sampleThresholdsWgsl(constants);
  const candidates = workgroupArray("candidates", "vec2u", lanes, "LANES");
  const wgsl = /* wgsl */ `
@group(1) @binding(0) var<storage, read_write> ids: array<i32>;
@group(1) @binding(1) var<storage, read> logits: array<u32>;
@group(1) @binding(2) var<storage, read> settings: array<f32>;
@group(1) @binding(3) var<storage, read_write> counter: array<u32>;
@group(1) @binding(4) var<storage, read_write> seen: array<u32>;
@group(1) @binding(5) var<storage, read_write> drawn: array<i32>;
@group(1) @binding(6) var<storage, read_write> keys: array<u32>;

const V = ${V}u;
const R = ${R}u;
const LANES = ${lanes}u;
${sampleMathWgsl()}
${thresholds.wgsl}
// A candidate is (key, id); of equal keys the lower id wins.
fn better(a: vec2u, b: vec2u) -> vec2u {
  return select(b, a, a.x > b.x || (a.x == b.x && a.y < b.y));
}
${candidates.wgsl}
fn best_over_lanes(lane: u32, mine: vec2u) -> vec2u {
  candidates[lane] = mine;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { candidates[lane] = better(candidates[lane], candidates[lane + half]); }
  }
  return workgroupUniformLoad(&candidates[0]);
}

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) lane: u32) {
  let greedy = settings[0] == 0.0;
  let divisor = select(max(settings[0], 0.000001), 1.0, greedy);
  let top_k = u32(clamp(settings[1], 0.0, f32(V)));
  let draw = counter[2];
  let seed = vec2u(counter[0], counter[1]);

  // A lane comes back to its own keys alone, so no barrier is needed for them.
  var not_finite = 0u;
  var mine = vec2u(0u, V);
  for (var id = lane; id < V; id += LANES) {
    let bits = logits[id];
    not_finite += u32((bits & 0x7f800000u) == 0x7f800000u);
    var s = bitcast<f32>(bits) / divisor;
    if (seen[id] != 0u) { s /= settings[3]; }
    keys[id] = key_of(s);
    mine = better(mine, vec2u(keys[id], id));
  }
  let finite = count_over_lanes(lane, vec3u(not_finite)).x == 0u;
  var choice = best_over_lanes(lane, mine);

  if (!greedy) {
    let top_key = choice.x;
    var least = 0u;
    if (top_k > 0u && top_k < V) { least = top_k_key(lane, top_k); }
    if (settings[2] < 1.0) { least = top_p_key(lane, least, top_key, settings[2]); }
    mine = vec2u(0u, V);
    for (var id = lane; id < V; id += LANES) {
      let key = keys[id];
      if (key >= least) { mine = better(mine, vec2u(key_of(value_of(key) + gumbel(seed, draw, id)), id)); }
    }
    choice = best_over_lanes(lane, mine);
  }

  if (lane == 0u) {
    let id = select(${NOT_FINITE}, i32(choice.y), finite);
    ids[0] = id;
    drawn[draw % R] = id;
    if (finite) { seen[choice.y] = 1u; }
    counter[2] = draw + 1u;
  }
}
`;
  return { wgsl, workgroupBytes: workgroupBytes([thresholds, candidates]) };
}

/** Lowers the call to one dispatch. */
export function sampleDispatches(call: SampleCall, target: GpuTarget): GpuDispatch[] {
  const { ids, logits, settings, counter, seen, drawn } = sampleOperands(call);
  const { V, R } = call;
  // A small vocabulary keeps few lanes busy. lavapipe ends a shader's loops after 65,535 iterations
  // in all, and each id takes about 40.
  const lanes = V <= 2048 ? 64 : 256;
  const keys = target.scratch(4 * V); // [V] U32
  return [{
    op: "sample",
    ...sampleWgsl({ V, R, lanes, subgroups: target.subgroups }),
    operands: [ids, logits, settings, counter, seen, drawn, keys],
    groups: () => 1,
  }];
}
