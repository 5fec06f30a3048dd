/**
 * WGSL sampling by many workgroups: three kernels, two of them over all V ids in parts of 1024.
 *
 *     keys     parts    penalty, temperature; logits → sortable keys [V], best of each part,
 *                       number of ids per bin of scaled logits
 *     cut      parts    from the bins: ids kept for certain, cut for certain, or undecided;
 *                       best of the first with noise, their mass, list of the last
 *     choose   once     thresholds of top-k and top-p among the undecided; best of all;
 *                       ids, seen, counter
 *
 * A greedy draw skips `cut`. Both thresholds are values, so equal logits stay together.
 *
 *     scaled logits, in bins of 1/16         ◀─ less                        greater ─▶
 *
 *       cut by k │ split: holds the k-th │ cut by p, but counts │ undecided by p │ kept
 *     ───────────┴───────────────────────┴──────────────────────┴────────────────┴──────
 *                └ listed if it is to be split                  └ listed         └ noise at once
 *
 * The mass of a bin is only known within its edges, so a few bins are undecided by p. Only integers
 * are added by atomics, and sums of masses have a fixed order: reruns are equal bit for bit.
 *
 * @module
 */
import {
  linesWgsl,
  mainWgsl,
  type Shader,
  sumOverLanesWgsl,
  workgroupArray,
  workgroupBytes,
} from "../../wgsl/shader.ts";
import { type GpuDispatch, type GpuTarget, readOnly } from "../contract.ts";
import { type SampleCall, sampleOperands } from "./mod.ts";
import {
  bestBeyondWgsl,
  bestOverLanesWgsl,
  keepDrawWgsl,
  LOGITS_WGSL,
  NOISE_WGSL,
  type SampleWgsl,
  SCALE_WGSL,
} from "./wgsl_pieces.ts";
import { BINS, idsWgsl, PART, workBytes, workWgsl } from "./wgsl_work.ts";

/** Defines `before_over_lanes`: the sum over all lower lanes (Hillis and Steele, 1986). */
export function beforeOverLanesWgsl(lanes: number): Shader {
  const sums = workgroupArray("sums_before", "vec3f", lanes);
  const wgsl = /* wgsl */ `
${sums.wgsl}
fn before_over_lanes(lane: u32, mine: vec3f) -> vec3f {
  var sum = mine;
  for (var reach = 1u; reach < ${lanes}u; reach *= 2u) {
    workgroupBarrier();
    sums_before[lane] = sum;
    workgroupBarrier();
    if (lane >= reach) { sum += sums_before[lane - reach]; }
  }
  workgroupBarrier();
  sums_before[lane] = sum;
  workgroupBarrier();
  return select(vec3f(0.0), sums_before[max(lane, 1u) - 1u], lane > 0u);
}
`;
  return { ...sums, wgsl };
}

/**
 * Keys: scales the ids of a part, and counts them by bins around an anchor, the greatest of a
 * sample: whole sectors at equal distances. Bindings: 1 logits, 2 settings, 4 seen, 6 work.
 */
export function sampleKeysWgsl({ V, lanes }: SampleWgsl): Shader {
  const best = bestOverLanesWgsl(lanes);
  const counts = workgroupArray("counts", "atomic<u32>", BINS);
  const last = Math.ceil(V / 4) - 1;
  const eachWord = (line: (j: number) => string) => linesWgsl(PART / 4 / lanes, line);
  const each = (line: (i: number) => string) => linesWgsl(PART / lanes, line);
  const wgsl = /* wgsl */ `
${workWgsl(V, "atomic<u32>")}
${SCALE_WGSL}
// Four neighbours at a time: a tensor's buffer is whole words of 16 bytes.
@group(1) @binding(1) var<storage, read> logits: array<vec4u>;
@group(1) @binding(4) var<storage, read> seen: array<vec4u>;
fn keys_of(bits: vec4u, was: vec4u) -> vec4u {
  return vec4u(
    scaled_key(bits.x, was.x), scaled_key(bits.y, was.y),
    scaled_key(bits.z, was.z), scaled_key(bits.w, was.w),
  );
}
${best.wgsl}
${counts.wgsl}

${mainWgsl(lanes)} {
  let part = index_of(group, grid);
  if (part >= PARTS) { return; }
  ${idsWgsl(lanes)}
  ${eachWord((j) => `let bits_${j} = logits[min(at_${j}, ${last}u)];`)}
  ${eachWord((j) => `let seen_${j} = seen[min(at_${j}, ${last}u)];`)}
  let filtered = is_filtered();
  var anchor = 0u;
  if (filtered) {
    let at = 2u * (lane / 2u * ${Math.floor(V / 8)}u / ${lanes / 2}u) + lane % 2u;
    let sample = keys_of(logits[at], seen[at]);
    let most = max(max(sample.x, sample.y), max(sample.z, sample.w));
    anchor = best_over_lanes(lane, vec2u(most, 0u)).x;
  }
  let middle = value_of(anchor);
  ${eachWord((j) => `let keys_${j} = keys_of(bits_${j}, seen_${j});`)}
  ${eachWord((j) => `work.keys[at_${j}] = keys_${j};`)}
  var mine = vec2u(0u, V);
  ${
    each((i) =>
      /* wgsl */ `let key_${i} = keys_${i >> 2}.${"xyzw"[i % 4]};
  if (id_${i} < V) {
    mine = better(mine, vec2u(key_${i}, id_${i}));
    if (filtered) { atomicAdd(&counts[bin_of(key_${i}, middle)], 1u); }
  }`
    )
  }
  let best = best_over_lanes(lane, mine);
  if (lane == 0u) {
    work.best[part] = best;
    if (part == 0u) { work.anchor = anchor; }
  }
  if (filtered) {
    for (var bin = lane; bin < BINS; bin += ${lanes}u) {
      let count = atomicLoad(&counts[bin]);
      if (count > 0u) { atomicAdd(&work.bins[bin], count); }
    }
  }
}
`;
  return { wgsl, workgroupBytes: workgroupBytes([best, counts]) };
}

/**
 * Defines `find_cuts`: walks over the bins from the greatest on, every lane over some, and leaves
 * the limits of the head's drawing in `cuts`.
 */
function cutsWgsl(lanes: number): Shader {
  const before = beforeOverLanesWgsl(lanes);
  const each = (line: (i: number) => string) => linesWgsl(BINS / lanes, line);
  const wgsl = /* wgsl */ `
${before.wgsl}
struct Cuts {
  keep: u32, // least bin kept for certain
  list: u32, // least bin undecided by p
  whole: u32, // least bin that top-k keeps whole
  split: u32, // the bin that it splits, or NONE
  excess: u32, // ids of the split bin beyond the k-th
  least_mass: f32, // bounds of the mass that top-k keeps
  most_mass: f32,
  kept: atomic<u32>, // number of bins kept by p, and of those not cut by it
  open: atomic<u32>,
}
var<workgroup> cuts: Cuts;

// Number of ids in a bin, and bounds of their mass; the lower edge is relative to the top.
fn content_of(bin: u32, ids: u32, edge: f32) -> vec3f {
  let count = f32(ids);
  let low = select(exp(min(edge, 0.0)), 0.0, bin == 0u || edge < -80.0);
  let high = select(exp(clamp(edge + 0.0625, -80.0, 0.0)), 1.0, bin == BINS - 1u);
  return count * vec3f(1.0, low, high);
}
fn find_cuts(lane: u32, anchor: f32, top: f32) {
  // Lower edge of bin 0 less the top; an anchor far below the top leaves all mass in the last bin.
  let lowest = 2.0 * max(anchor * 0.5 - top * 0.5, -1000.0) - 8.0;
  let first = BINS / 4u - 1u - lane * ${BINS / lanes / 4}u;
  ${linesWgsl(BINS / lanes / 4, (j) => `let ids_${j} = work.bins[first - ${j}u];`)}
  ${each((i) => `let bin_${i} = BINS - 1u - (lane * ${BINS / lanes}u + ${i}u);`)}
  ${
    each((i) =>
      `let content_${i} = content_of(bin_${i}, ids_${i >> 2}.${"wzyx"[i % 4]}, ` +
      `lowest + 0.0625 * f32(bin_${i}));`
    )
  }
  let above_0 = before_over_lanes(lane, ${
    Array.from({ length: BINS / lanes }, (_, i) => `content_${i}`).join(" + ")
  });
  ${each((i) => `let above_${i + 1} = above_${i} + content_${i};`)}
  let k = f32(top_k());
  if (!cuts_by_k() && lane == ${lanes - 1}u) {
    cuts.split = NONE;
    cuts.least_mass = above_${BINS / lanes}.y;
    cuts.most_mass = above_${BINS / lanes}.z;
  }
  ${
    each((i) =>
      /* wgsl */ `if (cuts_by_k() && above_${i}.x < k && above_${i + 1}.x >= k) {
    let whole = above_${i + 1}.x == k;
    let first = select(bin_${i} + 1u, bin_${i}, whole);
    cuts.keep = first;
    cuts.list = first;
    cuts.whole = first;
    cuts.split = select(bin_${i}, NONE, whole);
    cuts.excess = u32(above_${i + 1}.x - k);
    cuts.least_mass = select(above_${i}.y, above_${i + 1}.y, whole);
    cuts.most_mass = above_${i + 1}.z;
  }`
    )
  }
  workgroupBarrier();
  if (!cuts_by_p()) { return; }
  // The slack of 1/1000 is more than the error of these sums and of exp.
  let p = max(settings[2], 0.0);
  let least = p * cuts.least_mass * 0.999;
  let most = p * cuts.most_mass * 1.001;
  ${
    each((i) =>
      /* wgsl */ `if (above_${i + 1}.z <= least) { atomicMax(&cuts.kept, BINS - bin_${i}); }
  if (above_${i}.y <= most) { atomicMax(&cuts.open, BINS - bin_${i}); }`
    )
  }
  workgroupBarrier();
  if (lane == 0u) {
    cuts.keep = max(cuts.whole, BINS - atomicLoad(&cuts.kept));
    cuts.list = max(cuts.whole, BINS - atomicLoad(&cuts.open));
  }
  workgroupBarrier();
}
`;
  return { wgsl, workgroupBytes: before.workgroupBytes + 9 * 4 };
}

/**
 * Cut: every workgroup finds the same limits from the bins, and applies them to its part. Bindings:
 * 2 settings, 3 counter, 6 work.
 */
export function sampleCutWgsl({ V, lanes, subgroups }: SampleWgsl): Shader {
  const best = bestOverLanesWgsl(lanes);
  const cuts = cutsWgsl(lanes);
  const mass = sumOverLanesWgsl(lanes, { name: "mass_over_lanes", type: "vec3f", subgroups });
  const each = (line: (i: number) => string) => linesWgsl(PART / lanes, line);
  const wgsl = /* wgsl */ `
${workWgsl(V, "vec4u")}
@group(1) @binding(3) var<storage, read> counter: array<u32>;
${NOISE_WGSL}
${best.wgsl}
${cuts.wgsl}
${mass.wgsl}

${mainWgsl(lanes)} {
  let part = index_of(group, grid);
  if (part >= PARTS) { return; }
  ${idsWgsl(lanes)}
  ${linesWgsl(PART / 4 / lanes, (j) => `let keys_${j} = work.keys[at_${j}];`)}
  let seed = vec2u(counter[0], counter[1]);
  let anchor = value_of(work.anchor);
  var mine = vec2u(0u, V);
  for (var other = lane; other < PARTS; other += ${lanes}u) {
    mine = better(mine, work.best[other]);
  }
  let top = value_of(best_over_lanes(lane, mine).x);
  if (is_filtered()) { find_cuts(lane, anchor, top); }
  let keep = cuts.keep;
  let list = cuts.list;
  let whole = cuts.whole;
  let split = cuts.split;

  var pick = vec2u(0u, V);
  var mass = vec3f(0.0); // kept, cut
  var listed = 0u;
  ${each((i) => `let key_${i} = keys_${i >> 2}.${"xyzw"[i % 4]};`)}
  ${
    each((i) =>
      /* wgsl */ `let bin_${i} = bin_of(key_${i}, anchor);
  let open_${i} = is_filtered() && id_${i} < V
    && (bin_${i} == split || (bin_${i} >= list && bin_${i} < keep));
  listed += u32(open_${i});
  if (id_${i} < V && !open_${i} && bin_${i} >= whole) {
    if (bin_${i} >= keep) { pick = better(pick, noisy(key_${i}, id_${i}, seed, counter[2])); }
    if (cuts_by_p()) { mass[u32(bin_${i} < keep)] += mass_of(key_${i}, top); }
  }`
    )
  }
  var rank = 0u;
  if (is_filtered()) {
    rank = u32(before_over_lanes(lane, vec3f(f32(listed), 0.0, 0.0)).x);
    if (lane == ${lanes - 1}u) { work.listed[part] = rank + listed; }
    ${each((i) => `if (open_${i}) { work.undecided[part * ${PART}u + rank] = id_${i}; rank++; }`)}
    mass = mass_over_lanes(lane, mass);
  }
  pick = best_over_lanes(lane, pick);
  if (lane == 0u) {
    work.pick[part] = pick;
    work.mass[part] = mass.xy;
    if (part == 0u) { work.excess = cuts.excess; }
  }
}
`;
  return { wgsl, workgroupBytes: workgroupBytes([best, cuts, mass]) };
}

/**
 * Defines `gather`, which joins the parts' lists, and `threshold`, the least key to keep of the
 * joined list.
 */
function thresholdWgsl(lanes: number, subgroups?: boolean): Shader {
  const before = beforeOverLanesWgsl(lanes);
  const mass = sumOverLanesWgsl(lanes, { name: "mass_over_lanes", type: "vec3f", subgroups });
  const first = workgroupArray("first_of", "u32", lanes);
  const wgsl = /* wgsl */ `
${before.wgsl}
${mass.wgsl}
${first.wgsl}
var<workgroup> length: u32;

// 32 lanes copy the list of a part. Returns the number of ids.
fn gather(lane: u32) -> u32 {
  for (var base = 0u; base < PARTS; base += ${lanes}u) {
    var listed = 0u;
    if (base + lane < PARTS) { listed = work.listed[base + lane]; }
    let before = before_over_lanes(lane, vec3f(f32(listed), 0.0, 0.0)).x;
    let first = workgroupUniformLoad(&length) + u32(before);
    first_of[lane] = first;
    if (lane == ${lanes - 1}u) { length = first + listed; }
    workgroupBarrier();
    let end = min(${lanes}u, PARTS - base);
    for (var i = lane / 32u; i < end; i += ${lanes / 32}u) {
      let part = base + i;
      let listed = work.listed[part];
      for (var at = lane % 32u; at < listed; at += 32u) {
        let id = work.undecided[part * ${PART}u + at];
        work.list[first_of[i] + at] = vec2u(work.keys[id / 4u][id % 4u], id);
      }
    }
  }
  storageBarrier();
  return workgroupUniformLoad(&length);
}

// The greatest key, with the leading bits of the least, such that the weight from that key on
// exceeds the limit. A weight is 1, or a mass. Three keys are tried at a time: reading is what
// costs.
fn search(
  lane: u32, count: u32, least: u32, bits: u32, by_mass: bool, top: f32, limit: f32,
) -> u32 {
  var key = select((least >> bits) << bits, 0u, bits == 32u);
  for (var shift = bits; shift > 0u;) {
    shift -= 2u;
    let tried = vec3u(key) + (vec3u(1u, 2u, 3u) << vec3u(shift));
    var weight = vec3f(0.0);
    for (var at = lane; at < count; at += ${lanes}u) {
      let each = work.list[at].x;
      let one = select(1.0, mass_of(each, top), by_mass);
      weight += select(vec3f(0.0), vec3f(one), vec3u(each) >= tried);
    }
    let more = vec3u(mass_over_lanes(lane, weight) > vec3f(limit));
    key += (more.x + more.y + more.z) << shift;
  }
  return key;
}

fn threshold(lane: u32, count: u32, top: f32) -> u32 {
  var most = 0u;
  var inverted = 0u;
  for (var at = lane; at < count; at += ${lanes}u) {
    let key = work.list[at].x;
    most = max(most, key);
    inverted = max(inverted, ~key);
  }
  most = best_over_lanes(lane, vec2u(most, 0u)).x;
  let least = ~best_over_lanes(lane, vec2u(inverted, 0u)).x;
  let bits = (33u - countLeadingZeros(most ^ least)) & ~1u; // that differ, rounded up to pairs
  var key = least;
  if (cuts_by_k()) {
    key = search(lane, count, least, bits, false, top, f32(count - work.excess) - 0.5);
  }
  if (!cuts_by_p()) { return key; }
  var mass = vec3f(0.0); // kept, cut by p, undecided
  for (var part = lane; part < PARTS; part += ${lanes}u) {
    mass += vec3f(work.mass[part], 0.0);
  }
  for (var at = lane; at < count; at += ${lanes}u) {
    let each = work.list[at].x;
    if (each >= key) { mass.z += mass_of(each, top); }
  }
  mass = mass_over_lanes(lane, mass);
  let limit = max(settings[2], 0.0) * (mass.x + mass.y + mass.z) - mass.x;
  return max(key, search(lane, count, least, bits, true, top, limit));
}
`;
  return { wgsl, workgroupBytes: workgroupBytes([before, mass, first]) + 4 };
}

/**
 * Choose: the id of the draw. Bindings: 0 ids, 1 logits, 2 settings, 3 counter, 4 seen, 5 drawn, 6
 * work.
 */
export function sampleChooseWgsl({ V, R, lanes, subgroups }: SampleWgsl): Shader {
  const best = bestOverLanesWgsl(lanes);
  const threshold = thresholdWgsl(lanes, subgroups);
  const wgsl = /* wgsl */ `
${workWgsl(V, "vec4u")}
${keepDrawWgsl(R)}
${LOGITS_WGSL}
${NOISE_WGSL}
${best.wgsl}
${bestBeyondWgsl(lanes)}
${threshold.wgsl}

fn best_kept(lane: u32, top: f32, seed: vec2u, draw: u32) -> vec2u {
  var count = 0u;
  var least = 0u;
  if (is_filtered()) { count = gather(lane); }
  if (count > 0u) { least = threshold(lane, count, top); }
  var mine = vec2u(0u, V);
  for (var part = lane; part < PARTS; part += ${lanes}u) {
    mine = better(mine, work.pick[part]);
  }
  for (var at = lane; at < count; at += ${lanes}u) {
    let each = work.list[at];
    if (each.x >= least) { mine = better(mine, noisy(each.x, each.y, seed, draw)); }
  }
  return best_over_lanes(lane, mine);
}

${mainWgsl(lanes)} {
  let draw = counter[2];
  let seed = vec2u(counter[0], counter[1]);
  var mine = vec2u(0u, V);
  for (var part = lane; part < PARTS; part += ${lanes}u) {
    mine = better(mine, work.best[part]);
  }
  var choice = best_over_lanes(lane, mine);
  let finite = choice.x != NO_KEY;
  if (is_beyond(choice.x)) { choice = best_beyond(lane); }
  else if (finite && !is_greedy()) { choice = best_kept(lane, value_of(choice.x), seed, draw); }

  for (var word = lane; word < BINS / 4u; word += ${lanes}u) { work.bins[word] = vec4u(0u); }
  if (lane == 0u) { keep_draw(choice.y, finite, draw); }
}
`;
  return { wgsl, workgroupBytes: workgroupBytes([best, threshold]) };
}

/** Lowers the call to three dispatches, of which a greedy draw takes two. */
export function manyDispatches(call: SampleCall, target: GpuTarget): GpuDispatch[] {
  const { ids, logits, settings, counter, seen, drawn } = sampleOperands(call);
  const { V } = call;
  const work = target.scratch(workBytes(V));
  const constants = { V, R: call.R, lanes: 256, subgroups: target.subgroups };
  const parts = Math.ceil(V / PART);
  const temperature = target.firstOf(settings);
  const op = "sample";
  return [
    {
      op,
      ...sampleKeysWgsl(constants),
      operands: [undefined, logits, settings, undefined, readOnly(seen), undefined, work],
      groups: () => parts,
    },
    {
      op,
      ...sampleCutWgsl(constants),
      operands: [undefined, undefined, settings, readOnly(counter), undefined, undefined, work],
      groups: () => parts,
      times: () => temperature() === 0 ? 0 : 1,
    },
    {
      op,
      ...sampleChooseWgsl(constants),
      operands: [ids, logits, settings, counter, seen, drawn, work],
      groups: () => 1,
    },
  ];
}
