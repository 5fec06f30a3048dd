/**
 * Share of the machine's limit: least time of a pass by bandwidth and FLOP/s, over its time.
 *
 *     least time = max(bytes / bandwidth, FLOPs / peak)        summed over the passes
 *     share      = least time / measured time                  1 is optimal
 *
 * The maximum is the roofline model's (Williams et al., 2009). Both limits are measured on the same
 * backend and threads in the gaps between iterations, so that a slow minute slows both sides down;
 * the median of the gaps counts. The buffer that is read is as large as the weights, up to 128 MiB:
 * weights that fit the processor's cache are compared with the cache.
 *
 *     gap  iteration  gap  iteration  gap …      at most a tenth of the time, but three gaps
 *
 * @module
 */
import { type Call, costOf, record } from "../../kernels/calls.ts";
import { DeviceError } from "../../kernels/errors.ts";
import type { ComputeHost } from "../../kernels/host.ts";
import { type DeviceLimits, type LimitMeter, openLimitMeter } from "../../kernels/mod.ts";
import { median } from "../../kernels/profile.ts";
import type { Segment } from "../../kernels/step.ts";
import { forward } from "../decoder.ts";
import { messageOf } from "../errors.ts";
import { instrumentsOf, type Model } from "../model.ts";
import { forwardAndSample, type Runner } from "../runner.ts";
import { Sequence } from "../sequence.ts";
import type { LimitReport } from "./report.ts";

/** Largest buffer to read, in bytes. */
export const MOST_BYTES = 128 * 2 ** 20;
/** Milliseconds of each kind of run in a gap; the fastest run counts. */
const GAP_MS = 3;
/** Gaps that are always measured, and the share of the time that further ones may take. */
const [LEAST_GAPS, MOST_SHARE] = [3, 0.1];

/** Meters in use, by backend, threads and bytes: the runs of a sweep share them. */
const meters = new Map<string, { readonly meter: Promise<LimitMeter>; users: number }>();

/** Measured times that shares are of; null for what was not measured. */
export interface MeasuredTimes {
  /** Mean time of a token after the first, in ms, and the tokens before it. */
  readonly decode: { readonly ms: number; readonly length: number } | null;
  /** Time of a pass over a prompt, in ms, and its tokens. */
  readonly prefill: { readonly ms: number; readonly length: number };
  /** Whether a token reads the cache, or computes its window anew. */
  readonly useKvCache: boolean;
}

/** Measures the limits of a model's backend in the gaps of a benchmark. */
export class GapLimits implements AsyncDisposable {
  readonly #gaps: DeviceLimits[] = [];
  #spentMs = 0;
  readonly #start = performance.now();
  #release: (() => Promise<void>) | null;

  private constructor(
    readonly model: Model,
    readonly meter: LimitMeter | null,
    /** Why there is no meter. */
    readonly reason: string | null,
    release: () => Promise<void>,
  ) {
    this.#release = release;
  }

  /** Opens a meter, or shares the one of another run. */
  static async open(model: Model, host?: ComputeHost): Promise<GapLimits> {
    const { name, threads } = model.backend;
    const bytes = Math.min(model.weightsBytes, MOST_BYTES);
    const key = `${name} ${threads} ${bytes}`;
    const shared = meters.get(key) ??
      { meter: openLimitMeter({ name, threads }, bytes, host), users: 0 };
    meters.set(key, shared);
    shared.users++;
    const release = async () => {
      if (--shared.users) return;
      meters.delete(key);
      await (await shared.meter.catch(() => null))?.[Symbol.asyncDispose]();
    };
    try {
      return new GapLimits(model, await shared.meter, null, release);
    } catch (error) {
      await release();
      // A second device or its memory was refused.
      if (!(error instanceof DeviceError || error instanceof RangeError)) throw error;
      return new GapLimits(model, null, messageOf(error), () => Promise.resolve());
    }
  }

  /** Measures a gap, unless enough is known; then reads the weights back into the caches. */
  async measure(signal?: AbortSignal): Promise<void> {
    const { meter } = this;
    const start = performance.now();
    const isDue = this.#gaps.length < LEAST_GAPS ||
      this.#spentMs < MOST_SHARE * (start - this.#start);
    if (!meter || !isDue) return;
    this.#gaps.push(await meter.measure(GAP_MS));
    const work = (runner: Runner, ids: readonly number[]) => runner.lastLogits(ids, signal);
    await instrumentsOf(this.model).run([0], work, signal);
    this.#spentMs += performance.now() - start;
  }

  /** The limits and the shares that times reached. */
  async report(times: MeasuredTimes): Promise<LimitReport> {
    const gaps = this.#gaps.length;
    if (!gaps) {
      const nothing = {
        read_gb_per_s: null,
        gflops: null,
        decode_share: null,
        prefill_share: null,
      };
      return { ...nothing, gaps, spread: null, reason: this.reason ?? "no gap was measured" };
    }
    const [read, flops] = [
      this.#gaps.map((gap) => gap.readBytesPerSec),
      this.#gaps.map((gap) => gap.flopsPerSec),
    ];
    const limits = { readBytesPerSec: median(read), flopsPerSec: median(flops) };
    const shares = await instrumentsOf(this.model).run([0], (runner) => {
      return Promise.resolve(sharesOf(passesOf(runner), limits, times));
    });
    return {
      read_gb_per_s: limits.readBytesPerSec / 1e9,
      gflops: limits.flopsPerSec / 1e9,
      ...shares,
      gaps,
      spread: gaps > 1 ? Math.max(spreadOf(read), spreadOf(flops)) : null,
      reason: null,
    };
  }

  /** Closes the meter if no other run uses it. */
  async [Symbol.asyncDispose](): Promise<void> {
    const release = this.#release;
    this.#release = null;
    await release?.();
  }
}

function spreadOf(values: readonly number[]): number {
  return (Math.max(...values) - Math.min(...values)) / median(values);
}

/** Calls of a model's passes, and the sequence that they step through. */
interface Passes {
  readonly prefill: readonly Call[];
  readonly decode: readonly Call[];
  readonly draw: readonly Call[];
  readonly sequence: () => Sequence;
}

function passesOf(runner: Runner): Passes {
  const { weights, buffers, architecture, slots, chunk } = runner;
  return {
    prefill: record((k) => forward(k, weights, buffers.prefill)),
    decode: record((k) => forward(k, weights, buffers.decode)),
    draw: record((k) => forwardAndSample(k, weights, buffers)),
    sequence: () => new Sequence(architecture, slots, chunk),
  };
}

function sharesOf(
  passes: Passes,
  limits: DeviceLimits,
  { decode, prefill, useKvCache }: MeasuredTimes,
): Pick<LimitReport, "decode_share" | "prefill_share"> {
  const { slots } = passes.sequence();
  const prompt = (length: number, last: readonly Call[]) =>
    promptMs(passes, last, Math.min(length, slots), limits);
  const token = (length: number) =>
    useKvCache
      ? leastMs(passes.draw, lastStep(Math.min(length, slots)), limits)
      : prompt(length, passes.draw);
  return {
    decode_share: decode && token(decode.length) / decode.ms,
    prefill_share: prompt(prefill.length, passes.decode) / prefill.ms,
  };
}

/** Least time of a prompt: chunks of all rows but the last, and the pass of the last one. */
function promptMs(
  { prefill, sequence: open }: Passes,
  last: readonly Call[],
  length: number,
  limits: DeviceLimits,
): number {
  const sequence = open();
  let ms = 0;
  while (sequence.fed < length - 1) {
    const rows = Math.min(sequence.chunk, length - 1 - sequence.fed);
    ms += leastMs(prefill, sequence.step(rows), limits);
    sequence.advance(rows);
  }
  return ms + leastMs(last, lastStep(length), limits);
}

/** The step of the last of `length` tokens; a cost does not depend on its slot. */
function lastStep(length: number): Segment {
  return { rows: 1, position: length - 1, slot: length - 1, length };
}

/** Least time of one pass, in ms. */
export function leastMs(calls: readonly Call[], step: Segment, limits: DeviceLimits): number {
  const costs = calls.map((call) => costOf(call, step));
  const sum = (key: "bytes" | "flops") => costs.reduce((total, cost) => total + cost[key], 0);
  return 1000 * Math.max(sum("bytes") / limits.readBytesPerSec, sum("flops") / limits.flopsPerSec);
}
