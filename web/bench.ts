/// <reference lib="dom" />
/**
 * Benchmark of the model, with the report of the command line.
 *
 * @module
 */
import {
  benchmark,
  type BenchmarkProgress,
  type BenchmarkReport,
  type Model,
  toHtml,
  toJson,
} from "../mod.ts";
import { byId, bytes, download, sentence, show } from "./dom.ts";
import { facts } from "./model.ts";
import type { Session } from "./session.ts";

let running: AbortController | null = null;
let report: BenchmarkReport | null = null;

/** Connects the panel "Benchmark". */
export function connectBench(session: Session): void {
  byId("bench-form").addEventListener("submit", (event) => {
    event.preventDefault();
    void run(session);
  });
  byId("bench-stop").addEventListener("click", () => running?.abort());
  byId("bench-json").addEventListener("click", () => {
    if (report) download("wgslm-report.json", "application/json", toJson(report));
  });
  byId("bench-html").addEventListener("click", () => {
    if (report) download("wgslm-report.html", "text/html", toHtml([report]));
  });
  session.onChange(({ model, isBusy }) => {
    byId<HTMLButtonElement>("bench-run").disabled = model === null || isBusy;
    byId<HTMLButtonElement>("bench-stop").disabled = running === null;
  });
}

async function run(session: Session): Promise<void> {
  const number = (id: string) => Number(byId<HTMLInputElement>(id).value);
  running = new AbortController();
  const { signal } = running;
  await session.run(async (model) => {
    for (const id of ["bench-error", "bench-result", "bench-empty"]) show(byId(id), false);
    show(byId("bench-running"), true);
    byId("bench-text").textContent = "Starting …";
    try {
      report = await benchmark(model, {
        prompt: promptOf(model, number("bench-prompt")),
        genTokens: number("bench-gen"),
        iters: number("bench-iters"),
        warmupTokens: number("bench-warmup"),
        source: model.id.startsWith("hf:") ? "hf" : "local",
        seed: 1,
        signal,
        onProgress: (progress) => showProgress(progress, number("bench-iters")),
      });
      showReport(report);
    } catch (error) {
      byId("bench-error").textContent = signal.aborted
        ? "The benchmark was stopped."
        : sentence(error);
      show(byId("bench-error"), true);
    } finally {
      running = null;
      show(byId("bench-running"), false);
    }
  });
}

/** Ids of the vocabulary, as many as asked for; the same in every run. */
function promptOf({ config: { vocabSize } }: Model, length: number): number[] {
  let state = 1;
  return Array.from({ length }, () => {
    state = Math.imul(state, 1664525) + 1013904223 >>> 0; // Numerical Recipes' generator
    return Math.floor(state / 2 ** 32 * vocabSize);
  });
}

const STAGES: Readonly<Record<BenchmarkProgress["stage"], string>> = {
  engine: "Warming up the engine",
  warmup: "Warming up",
  prefill: "Timing the prompt",
  iteration: "Iteration",
};

function showProgress(
  { stage, iteration, tokens, total, tokensPerSec }: BenchmarkProgress,
  iters: number,
): void {
  const which = iteration === undefined ? "" : ` ${iteration + 1} of ${iters}`;
  const rate = tokensPerSec ? `, ${tokensPerSec.toFixed(1)} tokens per second` : "";
  byId("bench-text").textContent = `${STAGES[stage]}${which}: ${tokens} of ${total}${rate}`;
  byId<HTMLProgressElement>("bench-bar").value = total ? tokens / total : 0;
}

function showReport({ results, engine, device }: BenchmarkReport): void {
  const { tokens_per_sec: rate, prefill, decode, buffer_peak_mib, check } = results;
  const times = decode.ms_per_token;
  const ms = (value: number | null | undefined) => value == null ? "–" : `${value.toFixed(2)} ms`;
  byId("bench-facts").replaceChildren(...facts([
    ["Tokens per second", `${rate.mean.toFixed(2)} ± ${rate.stddev.toFixed(2)}`],
    ["Prompt", `${prefill.tokens_per_sec.toFixed(1)} tokens per second`],
    ["Time of a token, median", ms(times?.p50)],
    ["99th percentile", ms(times?.p99)],
    ["Peak memory", bytes(buffer_peak_mib * 2 ** 20)],
    ["Device", `${engine.backend}, ${device.name}`],
    ["Check", check?.passed ? `passed: same ids as ${check.against}` : check?.reason ?? "failed"],
  ]));
  show(byId("bench-result"), true);
}
