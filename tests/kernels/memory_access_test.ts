/**
 * Memory accesses of the kernels for a GPU, traced from their own text: sectors of storage, banks
 * of workgroup memory, bytes in flight.
 */
import assert from "node:assert/strict";
import { sectorsOf, turnsOf } from "../../bench/gpu/memory_cost.ts";
import { type PaperDispatch, passesOf, type Shape, SHAPES } from "../../bench/gpu/shapes.ts";
import { parseWgsl, type Statement } from "../../bench/gpu/wgsl_parse.ts";
import { type Access, type Run, type Trace, trace } from "../../bench/gpu/wgsl_trace.ts";
import { PRELUDE } from "../../kernels/wgsl/shader.ts";
import { attentionShaders } from "./attention_shaders.ts";

const STEP = { rows: 1, position: 511, slot: 511, length: 512 };

/** Bytes that an H100 must have in flight to use its bandwidth: 3.35 TB/s · 650 ns. */
const ENOUGH_BYTES = 2.2e6;

/** Share of a warp's distinct bytes that makes an array hot; caches serve smaller ones. */
const HOT_SHARE = 0.25;

interface Traced extends PaperDispatch, Trace {
  readonly what: string;
}

/** Each distinct kernel of a decode step and of a prefill chunk, from one layer. */
async function kernelsOf({ name, config, dtype }: Shape): Promise<Traced[]> {
  const oneLayer = { ...config, [config.n_layer ? "n_layer" : "num_hidden_layers"]: 1 };
  const passes = await passesOf({ name, config: oneLayer, dtype }, [
    { rows: 1, length: 512 },
    { rows: 512, length: 512 },
  ]);
  return passes.flatMap(({ run, dispatches }) =>
    [...new Map(dispatches.map((dispatch) => [dispatch.wgsl, dispatch])).values()]
      .map((dispatch) => traced(`${name} ${run.rows} rows`, dispatch, run))
  );
}

function traced(what: string, dispatch: PaperDispatch, run: Run): Traced {
  const { wgsl, groups, op } = dispatch;
  const group = Math.min(3, groups - 1);
  return { ...dispatch, ...trace(wgsl, run, { group, groups }), what: `${what} ${op}` };
}

/** Arrays whose reads are a large share of what a warp reads from storage. */
function hotReads({ accesses }: Trace): Map<string, Access[]> {
  const reads = accesses.filter(({ space, how }) => space === "storage" && how === "read");
  const distinct = (list: readonly Access[]) =>
    new Set(list.flatMap(({ array, addresses }) => addresses.map((at) => `${array} ${at}`))).size;
  const all = distinct(reads);
  return new Map(
    [...Map.groupBy(reads, ({ array }) => array)]
      .filter(([, list]) => distinct(list) >= HOT_SHARE * all),
  );
}

const HOT_OPS = ["matmul", "attention", "writeKv", "norm", "sample"];

const kernels: Traced[] = [];
for (const shape of SHAPES.filter(({ name }) => name !== "SmolLM2")) {
  kernels.push(...await kernelsOf(shape));
}

Deno.test("every hot load fetches at most 1.1 times the sectors of the bytes that it wants", () => {
  let hot = 0;
  for (const kernel of kernels.filter(({ op }) => HOT_OPS.includes(op))) {
    for (const [array, reads] of hotReads(kernel)) {
      let [fetched, ideal] = [0, 0];
      for (const read of reads) {
        const cost = sectorsOf(read);
        fetched += cost.sectors;
        ideal += cost.ideal;
      }
      assert.ok(fetched <= 1.1 * ideal, `${kernel.what} ${array}: ${fetched} of ${ideal} sectors`);
      hot++;
    }
  }
  assert.ok(hot > 40, `${hot} hot arrays`);
});

Deno.test("no access to workgroup memory has a bank conflict in a hot kernel", () => {
  let shared = 0;
  for (const { what, op, accesses } of kernels) {
    if (!HOT_OPS.includes(op)) continue;
    for (const access of accesses.filter(({ space }) => space === "workgroup")) {
      const { turns, ideal } = turnsOf(access);
      assert.equal(turns, ideal, `${what} ${access.how} ${access.array}`);
      shared++;
    }
  }
  assert.ok(shared > 500, `${shared} accesses`);
});

/** Loops without a loop inside. */
function innerLoops(statements: readonly Statement[]): (Statement & { kind: "for" })[] {
  return statements.flatMap((statement) => {
    switch (statement.kind) {
      case "if":
        return innerLoops([...statement.then, ...statement.otherwise]);
      case "block":
        return innerLoops(statement.body);
      case "for": {
        const inner = innerLoops(statement.body);
        return inner.length ? inner : [statement];
      }
      default:
        return [];
    }
  });
}

Deno.test("every loop of a product or of attention has an unrolled body", () => {
  let loops = 0;
  for (const { what, op, wgsl } of kernels) {
    if (op !== "matmul" && op !== "attention") continue;
    for (const { body } of parseWgsl(wgsl).functions.values()) {
      for (const loop of innerLoops(body)) {
        const work = JSON.stringify(loop.body).match(/"name":"(fma|dot|subgroup\w+)"/g)?.length ??
          JSON.stringify(loop.body).match(/"op":"\+"/g)?.length ?? 0;
        assert.ok(work >= 4, `${what}: ${work} operations in a loop`);
        loops++;
      }
    }
  }
  assert.ok(loops > 40, `${loops} loops`);
});

Deno.test("products of a decode step keep 2.2 MB in flight when a model has a billion parameters", () => {
  const products = kernels.filter(({ op, what }) => op === "matmul" && /^\dB 1 rows/.test(what));
  for (const { what, inFlight, lanes, groups } of products) {
    const bytes = inFlight * lanes * groups;
    assert.ok(bytes >= ENOUGH_BYTES, `${what}: ${bytes} bytes`);
  }
  assert.ok(products.length >= 8);
});

/** Sectors of all reads of an array by the fewest that could hold their bytes. */
function sectorRatio(reads: readonly Access[]): number {
  const costs = reads.map(sectorsOf);
  const sum = (key: "sectors" | "ideal") => costs.reduce((all, cost) => all + cost[key], 0);
  return sum("sectors") / sum("ideal");
}

for (const dtype of ["Q8_0", "Q4_0", "Q4_K", "Q6_K"] as const) {
  Deno.test(`products of ${dtype} load whole sectors of weights and x, 2.2 MB in flight, without bank conflicts`, async () => {
    for (const shape of SHAPES.filter(({ name }) => /^\dB$/.test(name))) {
      const products = (await kernelsOf({ ...shape, dtype })).filter(({ op }) => op === "matmul");
      assert.ok(products.length >= 8, `${products.length} products`);
      for (const { what, accesses, inFlight, lanes, groups } of products) {
        const weights = accesses.filter(({ array }) => array === "weight" || array === "up");
        assert.ok(weights.length >= 2, `${what}: ${weights.length} loads`);
        for (const access of weights) {
          assert.equal(sectorRatio([access]), 1, `${what} ${access.array}`);
          assert.equal(access.bytes, 16);
        }
        const reads = accesses.filter(({ space, how }) => space === "storage" && how === "read");
        for (const [array, list] of Map.groupBy(reads, ({ array }) => array)) {
          const ratio = sectorRatio(list);
          assert.ok(ratio <= 1.1, `${what} ${array}: ${ratio} times the sectors`);
        }
        for (const access of accesses.filter(({ space }) => space === "workgroup")) {
          const { turns, ideal } = turnsOf(access);
          assert.equal(turns, ideal, `${what} ${access.how} ${access.array}`);
        }
        if (!what.includes(" 1 rows")) continue; // many rows are bound by multiply-adds
        const bytes = inFlight * lanes * groups;
        assert.ok(bytes >= ENOUGH_BYTES, `${what}: ${bytes} bytes`);
      }
    }
  });
}

Deno.test("sampling requests all logits, then all keys, before it waits for the first", () => {
  const wanted: [kernel: number, bytes: number, arrays: string[]][] = [
    [0, 32, ["logits", "seen"]],
    [1, 16, ["work.keys"]],
  ];
  const many = SHAPES.filter(({ config: { vocab_size: V } }) => Number(V) > 2048);
  for (const { name } of many.filter(({ name }) => name !== "SmolLM2")) {
    const samples = kernels.filter(({ op, what }) => op === "sample" && what.startsWith(name));
    assert.equal(samples.length, 3, name);
    for (const [i, bytes, arrays] of wanted) {
      assert.ok(samples[i].inFlight >= bytes, `${name} ${samples[i].inFlight} bytes in flight`);
      for (const array of arrays) {
        const [read] = samples[i].accesses.filter((a) => a.array === array && a.how === "read");
        assert.equal(read.bytes, 16, array);
      }
    }
  }
});

Deno.test("attention's loads are whole sectors for every head size, with and without subgroups", () => {
  for (const D of [32, 64, 128, 256]) {
    for (const smallestSubgroup of [1, 32]) {
      const device = { software: false, smallestSubgroup };
      for (const [name, { wgsl }] of attentionShaders({ H: 32, G: 8, D, S: 4096 }, device)) {
        const run = name.includes("prefill") ? { ...STEP, rows: 512, position: 0, slot: 0 } : STEP;
        const { accesses } = trace(PRELUDE + wgsl, run, { group: 3, groups: 64 });
        for (const access of accesses) {
          if (access.space === "workgroup") {
            const { turns, ideal } = turnsOf(access);
            assert.equal(turns, ideal, `${name} D ${D} ${access.how} ${access.array}`);
          } else if (access.array !== "table") {
            const { sectors, ideal } = sectorsOf(access);
            assert.equal(sectors, ideal, `${name} D ${D} ${access.how} ${access.array}`);
          }
        }
      }
    }
  }
});

Deno.test("trace() finds scattered loads, bank conflicts and loads that wait for each other", () => {
  const shader = (body: string) =>
    `${PRELUDE}
@group(1) @binding(0) var<storage, read_write> y: array<f32>;
@group(1) @binding(1) var<storage, read> x: array<vec4f>;
var<workgroup> pool: array<f32, 2048>;
fn x_at(i: u32) -> vec4f { return x[i]; }
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
  ${body}
}`;
  const of = (body: string) => trace(shader(body), STEP, { group: 0, groups: 1 });
  const scattered = of("let a = x_at(lane * 16u); y[lane] = a.x;");
  assert.deepEqual(sectorsOf(scattered.accesses[0]), { sectors: 32, ideal: 16 });
  assert.deepEqual(sectorsOf(scattered.accesses[1]), { sectors: 4, ideal: 4 });
  const [conflict] = of("pool[lane * 32u] = 1.0;").accesses;
  assert.deepEqual(turnsOf(conflict), { turns: 32, ideal: 1 });
  assert.deepEqual(turnsOf(of("pool[lane] = 1.0;").accesses[0]), { turns: 1, ideal: 1 });
  const apart = of("let a = x_at(lane); let b = x_at(lane + 64u); y[lane] = dot(a, b);");
  assert.equal(apart.inFlight, 32);
  const chained = of("var s = 0.0; for (var i = 0u; i < 8u; i++) { s += x_at(i).x; } y[lane] = s;");
  assert.equal(chained.inFlight, 16);
});
