/**
 * Progress of loading and measuring: a bar on a terminal, elsewhere one line per finished stage.
 *
 * @module
 */
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
