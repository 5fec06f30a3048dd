/**
 * State of the machine during a benchmark: load, clock, and CPU time of other processes.
 *
 *     other share = (busy time of all processors − own CPU time) / (wall time · processors)
 *
 * Only the time of iterations counts: between them, other runs of a sweep use the CPU.
 *
 * @module
 */
import { median } from "../../kernels/profile.ts";
import type { Host, MachineActivity } from "../host/mod.ts";
import type { MachineReport } from "./report.ts";

/** The part of the host that is watched. */
type Watched = Pick<Host, "activity">;

/** Adds up the activity of the machine over iterations. */
export class MachineWatch {
  readonly #clocks: number[] = [];
  #load: MachineReport["load_average"] = null;
  /** Processors · wall time, and what others and the hypervisor took of it; null if unknown. */
  #total = 0;
  #other: number | null = 0;
  #stolen: number | null = 0;

  constructor(
    readonly host: Watched,
    readonly now: () => number = () => performance.now(),
  ) {}

  /** Runs a measured step and counts the activity meanwhile. */
  async during<T>(step: () => Promise<T>): Promise<T> {
    const before = this.host.activity();
    const start = this.now();
    const result = await step();
    this.#count(before, this.host.activity(), this.now() - start);
    return result;
  }

  #count(before: MachineActivity, after: MachineActivity, wallMs: number): void {
    this.#load = after.loadAverage && [...after.loadAverage];
    if (after.cpuMhz) {
      this.#clocks.push(after.cpuMhz.reduce((sum, mhz) => sum + mhz, 0) / after.cpuMhz.length);
    }
    const { cpu, ownMs, stolenMs } = after;
    this.#total += wallMs * (cpu?.processors ?? 0);
    const known = cpu && before.cpu && ownMs !== null && before.ownMs !== null;
    const other = known ? cpu.busyMs - before.cpu.busyMs - (ownMs - before.ownMs) : null;
    const stolen = stolenMs !== null && before.stolenMs !== null
      ? stolenMs - before.stolenMs
      : null;
    this.#other = other === null || this.#other === null ? null : this.#other + other;
    this.#stolen = stolen === null || this.#stolen === null ? null : this.#stolen + stolen;
  }

  /** The state over all steps so far. */
  report(): MachineReport {
    // Times of processors come in ticks of 10 ms, so that a difference may be below 0.
    const share = (ms: number | null) =>
      ms === null || !this.#total ? null : Math.min(1, Math.max(0, ms / this.#total));
    return {
      load_average: this.#load,
      cpu_mhz: this.#clocks.length ? median(this.#clocks) : null,
      other_cpu_share: share(this.#other),
      stolen_cpu_share: share(this.#stolen),
    };
  }
}
