/**
 * Model of a token's time on a GPU, from the dispatches and shaders that the engine records.
 *
 *     deno run -A bench/gpu_model.ts [KEYS] [--dtype DTYPE] [--measured gpu.json]
 *
 * Method, for each dispatch, all of them one dependent chain:
 *
 *     flying = lanes resident · bytes that a lane requests before it waits   (traced from its text)
 *     time   = bytes / min(bandwidth, flying / latency)                        Little's law
 *            + latency + barriers · barrier + launch
 *     token  = max(sum of times, dispatches · host)                            host and GPU overlap
 *
 * Orders of magnitude, good to about a factor of two: the constants below are assumptions, which
 * `--measured` replaces by those of a run of `bench/gpu.ts`.
 *
 * @module
 */
import { isWeightDtype } from "../kernels/formats/mod.ts";
import { PANEL, WORD_BYTES } from "../kernels/formats/wgsl.ts";
import { type PaperDispatch, passesOf, type Shape, SHAPES } from "./gpu/shapes.ts";
import { parseWgsl, type WgslModule } from "./gpu/wgsl_parse.ts";
import { type Run, trace } from "./gpu/wgsl_trace.ts";

/** A GPU, by assumption or measured. */
export interface Gpu {
  readonly name: string;
  readonly cores: number;
  /** Lanes that a core holds at once. */
  readonly resident: number;
  /** Bytes per second. */
  readonly bandwidth: number;
  /** Nanoseconds of a load from memory, and of a barrier. */
  readonly latencyNs: number;
  readonly barrierNs: number;
  /** Microseconds of a dispatch that waits for the one before; of the host to encode one. */
  readonly launchUs: number;
  readonly hostUs: number;
}

/** GPUs by assumption; nothing here was measured. */
export const GPUS: readonly Gpu[] = [
  {
    name: "H100",
    cores: 132,
    resident: 2048,
    bandwidth: 0.92 * 3350e9,
    latencyNs: 650,
    barrierNs: 25,
    launchUs: 3,
    hostUs: 2.4,
  },
  {
    name: "Apple, 16 cores",
    cores: 16,
    resident: 1024,
    bandwidth: 0.92 * 200e9,
    latencyNs: 500,
    barrierNs: 30,
    launchUs: 4,
    hostUs: 1.5,
  },
  {
    name: "integrated, 96 EU",
    cores: 24,
    resident: 512,
    bandwidth: 0.85 * 68e9,
    latencyNs: 400,
    barrierNs: 60,
    launchUs: 6,
    hostUs: 3,
  },
];

/** What a dispatch asks of memory. */
interface Demand {
  readonly op: string;
  /** Bytes of its weight; of other dispatches, those of one wave of loads. */
  readonly bytes: number;
  readonly isWeight: boolean;
  /** Bytes in flight of a lane. */
  readonly inFlight: number;
  readonly lanes: number;
  readonly groups: number;
  readonly barriers: number;
}

function constantOf({ constants }: WgslModule, name: string): number {
  const value = constants.get(name);
  return value?.kind === "integer" ? value.value : 0;
}

/** Bytes of a product's weights; a gated product has two. */
function weightBytes(wgsl: string, module: WgslModule): number {
  const matrices = wgsl.match(/array<vec4u>;/g)?.length ?? 0;
  // Words of a panel, scales of blocks included: see `startOf` of kernels/formats/wgsl.ts.
  const words = Number(wgsl.match(/fn weight_start.*\* (\d+)u \+/)?.[1] ?? 0);
  return matrices * constantOf(module, "COUNT") / PANEL * words * WORD_BYTES;
}

/** Demands of the dispatches of a pass; a shader is traced once. */
export function demandsOf(dispatches: readonly PaperDispatch[], run: Run): Demand[] {
  const known = new Map<string, Omit<Demand, "groups" | "bytes"> & { weight: number }>();
  return dispatches.map(({ op, wgsl, groups }) => {
    let shader = known.get(wgsl);
    if (!shader) {
      const module = parseWgsl(wgsl);
      const weight = op === "matmul" ? weightBytes(wgsl, module) : 0;
      const { inFlight, lanes } = trace(wgsl, run, { group: Math.min(3, groups - 1), groups });
      const barriers = wgsl.match(/workgroupBarrier|workgroupUniformLoad/g)?.length ?? 0;
      shader = { op, weight, isWeight: weight > 0, inFlight, lanes, barriers };
      known.set(wgsl, shader);
    }
    const { weight, ...rest } = shader;
    return { ...rest, groups, bytes: weight || groups * rest.lanes * rest.inFlight };
  });
}

/** Microseconds of a dispatch without its launch. */
function microsOf({ bytes, inFlight, lanes, groups, barriers }: Demand, gpu: Gpu): number {
  const together = Math.min(groups, gpu.cores * Math.floor(gpu.resident / lanes));
  const flying = Math.max(1, together * lanes * inFlight);
  const rate = Math.min(gpu.bandwidth, flying / (gpu.latencyNs * 1e-9));
  return 1e6 * bytes / rate + (gpu.latencyNs + barriers * gpu.barrierNs) / 1e3;
}

/** A token's predicted time, in microseconds by kind of kernel. */
export interface Prediction {
  readonly dispatches: number;
  /** Time that the bandwidth alone takes for the weights. */
  readonly idealUs: number;
  readonly productsUs: number;
  readonly attentionUs: number;
  readonly sampleUs: number;
  readonly otherUs: number;
  readonly launchUs: number;
  readonly hostUs: number;
  readonly tokensPerSec: number;
  /** Share of the bandwidth that reading the weights uses. */
  readonly share: number;
}

/** Predicts a decode step. */
export function predict(demands: readonly Demand[], gpu: Gpu): Prediction {
  const sum = (of: readonly Demand[]) => of.reduce((us, each) => us + microsOf(each, gpu), 0);
  const by = Map.groupBy(demands, ({ op }) => op);
  const us = (op: string) => sum(by.get(op) ?? []);
  const all = sum(demands);
  const weights = demands.reduce((bytes, each) => bytes + (each.isWeight ? each.bytes : 0), 0);
  const launchUs = demands.length * gpu.launchUs;
  const hostUs = demands.length * gpu.hostUs;
  const idealUs = 1e6 * weights / gpu.bandwidth;
  const total = Math.max(all + launchUs, hostUs);
  return {
    dispatches: demands.length,
    idealUs,
    productsUs: us("matmul"),
    attentionUs: us("attention"),
    sampleUs: us("sample"),
    otherUs: all - us("matmul") - us("attention") - us("sample"),
    launchUs,
    hostUs,
    tokensPerSec: 1e6 / total,
    share: idealUs / total,
  };
}

/** The demands of a shape's decode step at each of some numbers of keys. */
export async function decodeDemands(
  shape: Shape,
  lengths: readonly number[],
): Promise<Demand[][]> {
  const passes = await passesOf(shape, lengths.map((length) => ({ rows: 1, length })));
  return passes.map(({ dispatches, run }) => demandsOf(dispatches, run));
}

/** Parts of `gpu.json` that replace assumptions. */
export interface MeasuredGpu {
  readonly facts: { readonly dependentUs: number; readonly hostUs: number };
  readonly limits: { readonly readGBs: number; readonly memoryNs: number };
}

/** A GPU with the constants that `bench/gpu.ts` measured; cores and lanes are not among them. */
export function measuredGpu(name: string, { facts, limits }: MeasuredGpu): Gpu {
  return {
    ...GPUS[0],
    name,
    bandwidth: 1e9 * limits.readGBs,
    latencyNs: limits.memoryNs,
    launchUs: facts.dependentUs,
    hostUs: facts.hostUs,
  };
}

function readGpu(path: string): Gpu {
  const report = JSON.parse(Deno.readTextFileSync(path));
  return measuredGpu(report.adapter, report);
}

if (import.meta.main) {
  const at = Deno.args.indexOf("--measured");
  const gpus = at < 0 ? GPUS : [readGpu(Deno.args[at + 1])];
  const length = Number(Deno.args[0]) || 512;
  const demands = new Map<string, Demand[]>();
  const as = Deno.args.indexOf("--dtype");
  for (const shape of SHAPES) {
    const dtype = as < 0 ? shape.dtype : Deno.args[as + 1];
    if (!isWeightDtype(dtype)) {
      throw new TypeError(`Cannot model "${dtype}": expected a dtype, got another name`);
    }
    const [each] = await decodeDemands({ ...shape, dtype }, [length]);
    demands.set(`${shape.name} ${dtype}`, each);
  }
  for (const gpu of gpus) {
    console.log(`${gpu.name}, ${length} keys, default sampling; microseconds of a token`);
    console.table(
      Object.fromEntries([...demands].map(([name, each]) => {
        const { share, ...rest } = predict(each, gpu);
        const rounded = Object.entries(rest).map(([key, value]) => [key, Math.round(value)]);
        return [name, {
          ...Object.fromEntries(rounded),
          "% of bandwidth": Math.round(100 * share),
        }];
      })),
    );
  }
}
