/**
 * WGSL sampling by one workgroup: thresholds by bisection over order-preserving integer keys of
 * floats.
 *
 * @module
 */
import { mainWgsl, type Shader, sumOverLanesWgsl, workgroupBytes } from "../../wgsl/shader.ts";
import {
  bestBeyondWgsl,
  bestOverLanesWgsl,
  keepDrawWgsl,
  KEYS_WGSL,
  LOGITS_WGSL,
  NOISE_WGSL,
  type SampleWgsl,
  settingsWgsl,
} from "./wgsl_pieces.ts";

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

// The greatest key that at least k ids reach: the k-th largest. Three keys are tried at a time:
// reading is what costs.
fn top_k_key(lane: u32) -> u32 {
  var key = 0u;
  for (var shift = 32u; shift > 0u;) {
    shift -= 2u;
    let tried = vec3u(key) + (vec3u(1u, 2u, 3u) << vec3u(shift));
    var reach = vec3u(0u);
    for (var id = lane; id < V; id += ${lanes}u) { reach += vec3u(vec3u(keys[id]) >= tried); }
    let enough = vec3u(count_over_lanes(lane, reach) >= vec3u(top_k()));
    key += (enough.x + enough.y + enough.z) << shift;
  }
  return key;
}

// Probability, up to a factor, of all ids whose key is that key or greater.
fn mass_from(lane: u32, least: vec3u, top: f32) -> vec3f {
  var mass = vec3f(0.0);
  for (var id = lane; id < V; id += ${lanes}u) {
    let key = keys[id];
    mass += select(vec3f(0.0), vec3f(mass_of(key, top)), vec3u(key) >= least);
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
 * The shader. Bindings: 0 ids, 1 logits as bits, 2 settings, 3 counter, 4 seen, 5 drawn, 6 keys
 * (scratch, U32 [V]).
 */
export function sampleOneWgsl(constants: SampleWgsl): Shader {
  const { V, R, lanes } = constants;
  const best = bestOverLanesWgsl(lanes);
  const thresholds = sampleThresholdsWgsl(constants);
  const wgsl = /* wgsl */ `
@group(1) @binding(6) var<storage, read_write> keys: array<u32>;
${settingsWgsl(V)}
${LOGITS_WGSL}
${keepDrawWgsl(R)}
${KEYS_WGSL}
${NOISE_WGSL}
${best.wgsl}
${bestBeyondWgsl(lanes)}
${thresholds.wgsl}
${mainWgsl(lanes)} {
  let draw = counter[2];
  let seed = vec2u(counter[0], counter[1]);
  // A lane comes back to its own keys alone, so no barrier is needed for them.
  var mine = vec2u(0u, V);
  for (var id = lane; id < V; id += ${lanes}u) {
    keys[id] = key_at(id);
    mine = better(mine, vec2u(keys[id], id));
  }
  var choice = best_over_lanes(lane, mine);
  let finite = choice.x != NO_KEY;
  if (is_beyond(choice.x)) { choice = best_beyond(lane); }
  else if (finite && !is_greedy()) {
    let top_key = choice.x;
    var least = 0u;
    if (cuts_by_k()) { least = top_k_key(lane); }
    if (cuts_by_p()) { least = top_p_key(lane, least, top_key, settings[2]); }
    mine = vec2u(0u, V);
    for (var id = lane; id < V; id += ${lanes}u) {
      if (keys[id] >= least) { mine = better(mine, noisy(keys[id], id, seed, draw)); }
    }
    choice = best_over_lanes(lane, mine);
  }
  if (lane == 0u) { keep_draw(choice.y, finite, draw); }
}
`;
  return { wgsl, workgroupBytes: workgroupBytes([best, thresholds]) };
}
