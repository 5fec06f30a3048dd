/**
 * Progress of loading and measuring: a bar on a terminal, elsewhere one line per finished stage.
 *
 * @module
 */
import type { SweepProgress } from "../engine/measure/sweep.ts";
import type { BenchmarkProgress, LoadProgress } from "../mod.ts";
import { bytes, plural, rate } from "./format.ts";
import { clearStatus, columns, fancy, say, showStatus } from "./terminal.ts";

/** Milliseconds between two updates of a bar. */
const REDRAW_MS = 80;

/** Shows progress until it is closed. */
export class Progress implements Disposable {
  #drawnAt = -Infinity;
  #said = "";

  constructor(readonly iterations = 1) {}

  /** For `LoadOptions.onProgress`; on a terminal only: a loaded model gets a line anyway. */
  readonly load = ({ stage, file, loaded, total }: LoadProgress): void => {
    const name = file?.replace(/^.*[/\\]/, "");
    const amount = total === undefined ? bytes(loaded) : `${bytes(loaded)} of ${bytes(total)}`;
    this.#draw(name ? `${stage} ${name}` : stage, loaded, total, amount, loaded === total);
  };

  /** For `BenchmarkOptions.onProgress`. */
  readonly measure = (
    { stage, iteration = 0, tokens, total, tokensPerSec }: BenchmarkProgress,
  ): void => {
    const names = {
      engine: "engine warm-up",
      warmup: "warm-up",
      prefill: "prefill",
      iteration: `iteration ${iteration + 1} of ${this.iterations}`,
    };
    const speed = tokensPerSec === undefined ? "" : `, ${rate(tokensPerSec)}`;
    const done = tokens >= total;
    if (fancy) {
      this.#draw(
        names[stage],
        tokens,
        total,
        `${tokens} of ${plural(total, stage === "engine" ? "round" : "token")}${speed}`,
        done,
      );
    }
    // One line per stage, though a stage may report its end more than once.
    const worth = stage === "iteration" || (stage === "warmup" && !fancy);
    if (!done || !worth || this.#said === names[stage]) return;
    this.#said = names[stage];
    say(`${names[stage]}: ${plural(total, "token")}${speed}`);
  };

  /** For `PerplexityOptions.onProgress`. */
  readonly score = ({ tokens, total }: { tokens: number; total: number }): void =>
    this.#draw("score", tokens, total, `${tokens} of ${plural(total, "token")}`, tokens === total);

  #draw(
    label: string,
    done: number,
    total: number | undefined,
    amount: string,
    always: boolean,
  ): void {
    const now = performance.now();
    if (!fancy || (!always && now - this.#drawnAt < REDRAW_MS)) return;
    this.#drawnAt = now;
    showStatus(bar(label, done, total, amount, columns() - 1));
  }

  [Symbol.dispose](): void {
    clearStatus();
  }
}

/** Share of a sweep between two lines where there is no terminal. */
const LINE_SHARE = 0.1;

/** Shows the progress of a sweep until it is closed: a bar over the whole, with the time left. */
export class SweepStatus implements Disposable {
  #drawnAt = -Infinity;
  #said = 0;
  #measuring = false;

  /** @param count number of combinations. */
  constructor(readonly count: number) {}

  /** @param label name of the combination. */
  show(label: string, { stage, run, share, leftMs }: Omit<SweepProgress<unknown>, "member">): void {
    const left = leftMs === null ? "" : `, ${timeLeft(leftMs)}`;
    if (!fancy) {
      const isFirst = stage === "iteration" && !this.#measuring;
      this.#measuring ||= isFirst;
      if (isFirst) return say(`iterations begin${left}`);
      if (share < this.#said + LINE_SHARE) return;
      this.#said = share;
      return say(`${Math.floor(100 * share)} % of ${plural(this.count, "combination")}${left}`);
    }
    const now = performance.now();
    if (run && now - this.#drawnAt < REDRAW_MS) return;
    this.#drawnAt = now;
    const step = stage === "iteration" ? `iteration ${(run?.iteration ?? 0) + 1}` : stage;
    const amount = `${Math.floor(100 * share)} %${left}: ${label}, ${step}`;
    showStatus(bar("sweep", share, 1, amount, columns() - 1));
  }

  [Symbol.dispose](): void {
    clearStatus();
  }
}

/** A time that is left, for people: in whole seconds or minutes. */
export function timeLeft(ms: number): string {
  const seconds = Math.ceil(ms / 1000);
  return seconds < 120 ? `${seconds} s left` : `${Math.ceil(seconds / 60)} min left`;
}

/** One line of at most `width` columns. */
export function bar(
  label: string,
  done: number,
  total: number | undefined,
  amount: string,
  width: number,
): string {
  // By code points: no surrogate pair is cut.
  const fit = (line: string) => [...line].slice(0, Math.max(0, width)).join("");
  const room = Math.min(30, width - label.length - amount.length - 4);
  if (!total || room < 5) return fit(`${label}  ${amount}`);
  const full = Math.round(room * Math.min(1, done / total));
  return fit(`${label} [${"#".repeat(full)}${"-".repeat(room - full)}] ${amount}`);
}
