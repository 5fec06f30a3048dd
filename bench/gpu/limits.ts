/**
 * Stages `facts` and `limits`: the adapter, costs of launches, and rates of memory and arithmetic.
 *
 * @module
 */
import type { ShaderCall } from "../../kernels/webgpu/pipeline.ts";
import { linesWgsl, mainWgsl } from "../../kernels/wgsl/shader.ts";
import { median } from "../measuring.ts";
import { Bare } from "./device.ts";
import type { Stage } from "./stage.ts";

const LANES = 256;

/** A shader at binding 0 `out`, and the buffers after it. */
function callOf(
  declare: string,
  body: string,
  [out, ...from]: readonly GPUBuffer[],
  groups: number,
): ShaderCall {
  const wgsl = /* wgsl */ `
@group(1) @binding(0) var<storage, read_write> out: array<f32>;
${declare}
${mainWgsl(LANES)} {
  let index = index_of(group, grid) * ${LANES}u + lane;
  ${body}
}`;
  const operands = [{ buffer: out, written: true }].concat(
    from.map((buffer) => ({ buffer, written: false })),
  );
  return { op: "limit", wgsl, workgroupBytes: 0, operands, groups: () => groups };
}

/** Best of five runs, in milliseconds. */
async function best(run: () => Promise<{ total: number }>): Promise<number> {
  let least = Infinity;
  for (let i = 0; i < 5; i++) least = Math.min(least, (await run()).total);
  return least;
}

/** The adapter, and what a dispatch, a submit and a read cost. */
export const facts: Stage = async ({ tiny }) => {
  await using bare = await Bare.open();
  const { gpu } = bare;
  const { info } = (await navigator.gpu.requestAdapter())!;
  const count = tiny ? 100 : 1000;
  const outs = Array.from({ length: 16 }, () => gpu.storage(4, "staging"));
  const bump = (out: GPUBuffer) => callOf("", "if (index == 0u) { out[0] += 1.0; }", [out], 1);
  const measure = async (calls: ShaderCall[]) => {
    const run = await bare.prepare(calls, outs[0]);
    await run();
    const times = [];
    for (let i = 0; i < 7; i++) times.push(await run());
    return { host: median(times.map((t) => t.host)), total: median(times.map((t) => t.total)) };
  };
  const one = await measure([bump(outs[0])]);
  const chain = await measure(Array.from({ length: count }, () => bump(outs[0])));
  const apart = await measure(Array.from({ length: count }, (_, i) => bump(outs[i % 16])));
  const micros = (ms: number) => 1000 * ms / count;
  return {
    adapter: {
      description: gpu.description,
      software: gpu.software,
      vendor: info.vendor,
      architecture: info.architecture,
      subgroupMinSize: info.subgroupMinSize,
      subgroupMaxSize: info.subgroupMaxSize,
    },
    granted: gpu.granted,
    limits: {
      maxBytes: gpu.maxBytes,
      workgroupBytes: gpu.device.limits.maxComputeWorkgroupStorageSize,
    },
    dependentUs: micros(chain.total - one.total),
    independentUs: micros(apart.total - one.total),
    hostUs: micros(chain.host - one.host),
    submitAndReadUs: 1000 * one.total,
  };
};

/** Reads a buffer with so many loads in flight per lane; GB/s. */
async function readRate(
  bare: Bare,
  from: GPUBuffer,
  out: GPUBuffer,
  { loads, groups }: { loads: number; groups: number },
): Promise<number> {
  const vectors = from.size / 16;
  const stride = groups * LANES;
  const body = /* wgsl */ `
  var sum = vec4f(0.0);
  for (var at = index; at + ${(loads - 1) * stride}u < ${vectors}u; at += ${loads * stride}u) {
    ${linesWgsl(loads, (i) => `let v_${i} = source[at + ${i * stride}u];`)}
    ${linesWgsl(loads, (i) => `sum += v_${i};`)}
  }
  if (sum.x == 12345.678) { out[0] = sum.y; }`;
  const declare = "@group(1) @binding(1) var<storage, read> source: array<vec4f>;";
  const steps = Math.floor(vectors / (loads * stride));
  if (steps < 1) return 0;
  const ms = await best(await bare.prepare([callOf(declare, body, [out, from], groups)], out));
  return 16 * steps * loads * stride / ms / 1e6;
}

/** Nanoseconds of a load that depends on the one before, over a buffer of zeros plus a stride. */
async function chaseNs(bare: Bare, from: GPUBuffer, out: GPUBuffer, hops: number): Promise<number> {
  const words = from.size / 4;
  const step = 4099 * 8; // a new line and another page each time
  const run = (count: number) => {
    const body = /* wgsl */ `
  if (index > 0u) { return; }
  var at = 0u;
  for (var i = 0u; i < ${count}u; i++) { at = (at + ${step}u + source[at]) % ${words}u; }
  out[0] = f32(at);`;
    const declare = "@group(1) @binding(1) var<storage, read> source: array<u32>;";
    return bare.prepare([callOf(declare, body, [out, from], 1)], out);
  };
  const [short, long] = [await best(await run(1)), await best(await run(hops))];
  return 1e6 * (long - short) / (hops - 1);
}

/** Start of a chain of multiply-adds, and its step: four multiply-adds. */
type MultiplyForm = readonly [start: string, step: (i: number) => string];

const FORMS: Readonly<Record<string, MultiplyForm>> = {
  fma: ["vec4f(0.5)", (i) => `s_${i} = fma(s_${i}, x, x);`],
  dot: ["vec4f(0.5)", (i) => `s_${i}.x += dot(s_${i}, x);`],
  dot4I8Packed: ["vec4i(1)", (i) => `s_${i}.x += dot4I8Packed(u32(s_${i}.x), seed);`],
};

const F16_FORMS: Readonly<Record<string, MultiplyForm>> = {
  fmaF16: ["vec4h(0.5h)", (i) => `s_${i} = fma(s_${i}, vec4h(x), vec4h(x));`],
};

/** Multiply-adds per second of some forms, in units of 1e9. */
async function multiplyRates(
  bare: Bare,
  out: GPUBuffer,
  tiny: boolean,
  forms: Readonly<Record<string, MultiplyForm>>,
) {
  const [rounds, groups, chains] = [tiny ? 16 : 1024, tiny ? 8 : 2048, 8];
  const rates: Record<string, number> = {};
  for (const [name, [start, line]] of Object.entries(forms)) {
    const chain = (form: (i: number) => string) => linesWgsl(chains, form);
    const body = /* wgsl */ `
  let seed = index * 0x01010101u;
  let x = vec4f(f32(lane) * 1e-6 + 0.5);
  ${chain((i) => `var s_${i} = ${start};`)}
  for (var i = 0u; i < ${rounds}u; i++) {
    ${chain(line)}
  }
  ${chain((i) => `if (f32(s_${i}.x) == 12345.678) { out[0] = f32(s_${i}.y); }`)}`;
    const ms = await best(await bare.prepare([callOf("", body, [out], groups)], out));
    rates[name] = 4 * chains * rounds * groups * LANES / ms / 1e6;
  }
  return rates;
}

/** Rates of memory and arithmetic. */
export const limits: Stage = async ({ tiny, left }) => {
  await using bare = await Bare.open();
  const { gpu } = bare;
  const size = Math.min(gpu.maxBytes, tiny ? 4 << 20 : 1 << 30);
  const [from, out] = [gpu.storage(size, "staging"), gpu.storage(4, "staging")];
  const reads = [];
  for (const groups of tiny ? [16] : [132, 264, 528, 1056, 4096]) {
    for (const loads of [1, 2, 4, 8]) {
      if (left() < 0) break;
      reads.push({ groups, loads, gbs: await readRate(bare, from, out, { loads, groups }) });
    }
  }
  const near = gpu.storage(1 << 20, "staging");
  const hops = tiny ? 256 : 4096;
  return {
    bytes: size,
    reads,
    readGBs: Math.max(...reads.map(({ gbs }) => gbs)),
    nearNs: await chaseNs(bare, near, out, hops),
    memoryNs: await chaseNs(bare, from, out, hops),
    gigaMultiplyAdds: {
      ...await multiplyRates(bare, out, tiny, FORMS),
      ...await halfRates(tiny),
    },
  };
};

/** Rates in F16; none if the adapter has no arithmetic of it. */
async function halfRates(tiny: boolean): Promise<Record<string, number>> {
  await using bare = await Bare.openF16();
  if (!bare) return {};
  return await multiplyRates(bare, bare.gpu.storage(4, "staging"), tiny, F16_FORMS);
}
