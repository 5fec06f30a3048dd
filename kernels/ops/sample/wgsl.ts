/**
 * WGSL sampling: one workgroup for small vocabularies and software adapters, else many of them.
 *
 * @module
 */
import type { GpuDispatch, GpuTarget } from "../contract.ts";
import { type SampleCall, sampleOperands } from "./mod.ts";
import { manyDispatches } from "./wgsl_many.ts";
import { sampleOneWgsl } from "./wgsl_one.ts";
import { PART } from "./wgsl_work.ts";

/**
 * Lowers the call to one dispatch, or to three of which a greedy draw takes two. Barriers are what
 * the three cost on a CPU that emulates a GPU: 0.9 ms at V 65 and 6.8 ms at V 50257, where one
 * workgroup takes 0.2 ms and 3.8 ms (top-k 40, lavapipe on two cores).
 */
export function sampleDispatches(call: SampleCall, target: GpuTarget): GpuDispatch[] {
  const { V, R } = call;
  if (V > PART && !target.software) return manyDispatches(call, target);
  const { ids, logits, settings, counter, seen, drawn } = sampleOperands(call);
  // A small vocabulary keeps few lanes busy. lavapipe ends a shader's loops after 65,535 iterations
  // in all, and each id takes about 40.
  const lanes = V <= 2048 ? 64 : 256;
  const keys = target.scratch(4 * V); // [V] U32
  return [{
    op: "sample",
    ...sampleOneWgsl({ V, R, lanes, subgroups: target.subgroups }),
    operands: [ids, logits, settings, counter, seen, drawn, keys],
    groups: () => 1,
  }];
}
