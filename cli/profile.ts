/**
 * Tables of a profile.
 *
 * @module
 */
import type { KernelReport, PassReport, ProfileReport } from "../mod.ts";
import { duration, plural, table } from "./format.ts";

/** The tables of a profile: one for a step of decode, one for a prefill chunk. */
export function profileTable({ limits, decode, prefill }: ProfileReport): string {
  const kernels = [...decode.kernels, ...prefill.kernels];
  const cached = kernels.some(({ limit_share }) => limit_share !== null && limit_share > 1);
  return `profile, by the limits of this run: ${limits.gb_per_sec.toFixed(1)} GB/s read, ${
    limits.gflops_per_sec.toFixed(1)
  } GF/s calculated\n` +
    passTable(`a token after ${plural(decode.length - 1, "token")}`, decode) +
    passTable(`a prefill of ${plural(prefill.rows, "token")}`, prefill) +
    (cached ? "above 100 %: from the caches, which are faster than memory\n" : "");
}

const HEAD = ["kernel", "calls", "ms", "share", "MB", "MF", "GB/s", "GF/s", "of the limit"];

function passTable(what: string, { ms, kernels_ms, kernels }: PassReport): string {
  const rows = [HEAD, ...kernels.map(cells)];
  return `${what}: ${duration(kernels_ms)} in its kernels, ${duration(ms)} as a whole\n` +
    table(rows, HEAD.map((_, i) => i).slice(1, -1));
}

function cells(kernel: KernelReport): string[] {
  const { name, calls, ms, share, bytes, flops, gb_per_sec, gflops_per_sec, limit_share } = kernel;
  return [
    name,
    String(calls),
    ms.toFixed(3),
    percent(share),
    (bytes / 1e6).toFixed(2),
    (flops / 1e6).toFixed(2),
    gb_per_sec?.toFixed(1) ?? "",
    gflops_per_sec?.toFixed(1) ?? "",
    limit_share === null ? "" : `${percent(limit_share).padStart(7)} ${kernel.limit}`,
  ];
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
