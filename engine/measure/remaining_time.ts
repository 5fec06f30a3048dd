/**
 * Remaining time of a sweep, estimated from the steps that are done.
 *
 *     left = Σ time of each step that is left: its own mean, else the mean of the steps of its kind
 *
 * Before the first iteration of a combination, the rate of its warm-up predicts one.
 *
 * @module
 */
import type { BenchmarkProgress } from "./benchmark.ts";

/** Kinds of steps of a combination; a load is a step of the first that shares the model. */
export type StepKind = "load" | "warmup" | "iteration" | "report";

/** Steps of one kind of a combination. */
interface Steps {
  left: number;
  done: number;
  ms: number;
}

/** Steps that are done and left of every combination. */
export class RemainingTime<T> {
  readonly #steps = new Map<T, Map<StepKind, Steps>>();
  readonly #predicted = new Map<T, number>();
  readonly #now: () => number;

  /**
   * @param members every combination.
   * @param loads those whose step is also the load of a model.
   * @param iters iterations of each.
   * @param now clock in ms.
   */
  constructor(
    members: readonly T[],
    loads: readonly T[],
    iters: number,
    now: () => number = () => performance.now(),
  ) {
    this.#now = now;
    const steps = (left: number): Steps => ({ left, done: 0, ms: 0 });
    for (const member of members) {
      this.#steps.set(
        member,
        new Map([
          ["load", steps(loads.includes(member) ? 1 : 0)],
          ["warmup", steps(1)],
          ["iteration", steps(iters)],
          ["report", steps(1)],
        ]),
      );
    }
  }

  /** Runs and times a step of a combination; one that fails stays to be done. */
  async step<R>(kind: StepKind, member: T, act: () => Promise<R>): Promise<R> {
    const start = this.#now();
    const result = await act();
    const steps = this.#steps.get(member)!.get(kind)!;
    steps.left = Math.max(0, steps.left - 1);
    steps.done++;
    steps.ms += this.#now() - start;
    return result;
  }

  /** Predicts an iteration of `tokens` tokens from a rate of the warm-up. */
  predict(member: T, { stage, tokensPerSec }: BenchmarkProgress, tokens: number): void {
    if (stage === "warmup" && tokensPerSec) {
      this.#predicted.set(member, 1000 * tokens / tokensPerSec);
    }
  }

  /** Removes the steps that are left of a combination. */
  drop(member: T): void {
    for (const steps of this.#steps.get(member)!.values()) steps.left = 0;
  }

  /** Share of the steps that are done, by number. */
  get share(): number {
    const all = [...this.#steps.values()].flatMap((kinds) => [...kinds.values()]);
    const done = all.reduce((sum, steps) => sum + steps.done, 0);
    const left = all.reduce((sum, steps) => sum + steps.left, 0);
    return done + left ? done / (done + left) : 1;
  }

  /** Estimated ms of the steps that are left; null if nothing predicts an iteration. */
  get leftMs(): number | null {
    let sum = 0;
    for (const [member, kinds] of this.#steps) {
      for (const [kind, { left, done, ms }] of kinds) {
        if (!left) continue;
        const each = done ? ms / done : this.#ofKind(kind, member);
        if (each === null && kind === "iteration") return null;
        sum += left * (each ?? 0);
      }
    }
    return sum;
  }

  /** Time of a step that this combination has not done yet. */
  #ofKind(kind: StepKind, member: T): number | null {
    const predicted = this.#predicted.get(member);
    if (kind === "iteration" && predicted !== undefined) return predicted;
    const others = [...this.#steps.values()].map((kinds) => kinds.get(kind)!);
    const done = others.reduce((sum, steps) => sum + steps.done, 0);
    if (done) return others.reduce((sum, steps) => sum + steps.ms, 0) / done;
    const predictions = kind === "iteration" ? [...this.#predicted.values()] : [];
    return predictions.length ? predictions.reduce((a, b) => a + b) / predictions.length : null;
  }
}
