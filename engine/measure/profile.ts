/**
 * Kernel profile of a model: the time of each kind of kernel, compared with the device's limits.
 *
 *     limit_share = max(bytes / bandwidth, flops / peak) / measured time        1 is optimal
 *
 * The maximum is the roofline model's least time (Williams et al., 2009).
 *
 * @module
 */
import type { KernelTime } from "../../kernels/backend.ts";
import { measureLimits } from "../../kernels/mod.ts";
import { drawPrompt } from "./prompt.ts";
import { findHost } from "../host/choose.ts";
import { type PassTimes, timePasses } from "../diagnose.ts";
import { instrumentsOf, type Model, remoteCalls } from "../model.ts";
import { show } from "../options.ts";
import type { KernelReport, PassReport, ProfileReport } from "./report.ts";

/** Options of a profile. */
export interface ProfileOptions {
  /** Tokens in the cache, including the step's own; default 128, at most the context. */
  readonly length?: number;
  /** Ends the profile between two measurements. */
  readonly signal?: AbortSignal;
}

/**
 * Times the kernels of a decode step and of a prefill chunk, and measures the device's limits.
 * Sampling uses the settings of the last generation. Empties the cache.
 *
 * @param model a loaded model.
 * @param options number of tokens in the cache, and signal.
 * @throws {RangeError} If the length is not an integer of at least 1.
 * @throws {DeviceError} If the device cannot be opened a second time to measure its limits.
 * @throws the signal's reason, if it is aborted.
 * @example
 * ```ts
 * import { loadModel, profile } from "@wgslm/wgslm";
 *
 * await using model = await loadModel("bench/demo");
 * const { decode } = await profile(model, { length: 64 });
 * for (const { name, ms } of decode.kernels) console.log(name, ms);
 * ```
 */
export async function profile(
  model: Model,
  options: ProfileOptions = {},
): Promise<ProfileReport> {
  const remote = remoteCalls.get(model);
  if (remote) return await remote("profile", [], options);
  const { length = 128, signal } = options;
  if (!Number.isSafeInteger(length) || length < 1) {
    throw new RangeError(
      `Cannot profile: expected length to be an integer of at least 1, got ${show(length)}`,
    );
  }
  signal?.throwIfAborted();
  const ids = drawPrompt(Math.min(length, model.contextLength), model.config.vocabSize, 0);
  const { decode, prefill } = await instrumentsOf(model).run(
    ids,
    (runner) => timePasses(runner, ids),
  );
  signal?.throwIfAborted();
  const host = (await findHost()).compute;
  const { readBytesPerSec, flopsPerSec } = await measureLimits(model.backend, host);
  const limits = { gb_per_sec: readBytesPerSec / 1e9, gflops_per_sec: flopsPerSec / 1e9 };
  signal?.throwIfAborted();
  return { limits, decode: passReport(decode, limits), prefill: passReport(prefill, limits) };
}

type Limits = ProfileReport["limits"];

function passReport(
  { step: { rows, length }, ms, kernels }: PassTimes,
  limits: Limits,
): PassReport {
  const kernels_ms = kernels.reduce((sum, kernel) => sum + kernel.ms, 0);
  return {
    rows,
    length,
    ms,
    kernels_ms,
    kernels: kernels.map((kernel) => kernelReport(kernel, kernels_ms, limits)),
  };
}

function kernelReport(kernel: KernelTime, kernelsMs: number, limits: Limits): KernelReport {
  const { name, calls, ms, bytes, flops } = kernel;
  const perSec = (count: number) => ms > 0 ? count / ms / 1e6 : null;
  const memoryMs = bytes / limits.gb_per_sec / 1e6;
  const arithmeticMs = flops / limits.gflops_per_sec / 1e6;
  return {
    name,
    calls,
    ms,
    share: kernelsMs > 0 ? ms / kernelsMs : 0,
    bytes,
    flops,
    gb_per_sec: perSec(bytes),
    gflops_per_sec: perSec(flops),
    limit_share: ms > 0 ? Math.max(memoryMs, arithmeticMs) / ms : null,
    limit: memoryMs >= arithmeticMs ? "memory" : "arithmetic",
  };
}
