/**
 * Where the time of a token goes: each kind of kernel of a pass, beside the limits of the machine
 * that runs it.
 *
 * @module
 */
import type { KernelTime } from "../kernels/backend.ts";
import { measureLimits } from "../kernels/mod.ts";
import { drawPrompt } from "./benchmark.ts";
import { findHost } from "./host/choose.ts";
import { type PassTimes, timePasses } from "./diagnose.ts";
import { instrumentsOf, type Model } from "./model.ts";
import type { KernelReport, PassReport, ProfileReport } from "./report.ts";

/** What is profiled. */
export interface ProfileOptions {
  /** Tokens in the cache, that of the step among them; default 128, at most the context. */
  readonly length?: number;
  /** Ends the profile between two measurements. */
  readonly signal?: AbortSignal;
}

/**
 * Times the kernels of a step of decode and of a prefill chunk, and the limits of the device. Ids
 * are drawn by the settings of the last generation. A cache is empty after it.
 * @throws {RangeError} when the length is no integer of at least 1.
 * @throws the signal's reason, when it is aborted.
 */
export async function profile(
  model: Model,
  { length = 128, signal }: ProfileOptions = {},
): Promise<ProfileReport> {
  if (!Number.isSafeInteger(length) || length < 1) {
    throw new RangeError(
      `Cannot profile: expected length to be an integer of at least 1, got ${length}`,
    );
  }
  signal?.throwIfAborted();
  const ids = drawPrompt(Math.min(length, model.contextLength), model.config.vocabSize, 0);
  const { decode, prefill } = await instrumentsOf(model).run(
    ids,
    (runner) => timePasses(runner, ids),
  );
  signal?.throwIfAborted();
  const host = (await findHost())?.compute;
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
