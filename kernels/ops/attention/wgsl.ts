/**
 * WGSL attention: the form of a call on a device. `mod.ts` has the formula and the shapes.
 *
 *     rows  file             form
 *     1     wgsl_decode.ts   keys split among workgroups, then a reduce if they are many
 *     > 1   wgsl_prefill.ts  keys and values pass through workgroup memory
 *
 * @module
 */
import type { Segment } from "../../step.ts";
import { type GpuDispatch, type GpuTarget, readOnly } from "../contract.ts";
import { type AttentionCall, attentionOperands } from "./mod.ts";
import {
  attentionDecodeWgsl,
  attentionReduceWgsl,
  decodeConstants,
  type DecodeForm,
  decodeGroups,
  isAlwaysWhole,
  splitsOf,
  tableBytes,
} from "./wgsl_decode.ts";
import { attentionPrefillWgsl, prefillConstants, prefillGroups } from "./wgsl_prefill.ts";

/** Lowers the call: prefill to one dispatch; decode to one, and a reduce where keys are many. */
export function attentionDispatches(call: AttentionCall, target: GpuTarget): GpuDispatch[] {
  return call.q.shape[0] > 1 ? prefillDispatches(call, target) : decodeDispatches(call, target);
}

function prefillDispatches(call: AttentionCall, target: GpuTarget): GpuDispatch[] {
  const { y, q, k, v } = attentionOperands(call);
  const constants = prefillConstants(call.shape, call.options, call.q.shape[0], target);
  return [{
    op: "attention",
    ...attentionPrefillWgsl(constants),
    operands: [y, q, k, v],
    groups: (rows) => prefillGroups(constants, rows),
  }];
}

function decodeDispatches(call: AttentionCall, target: GpuTarget): GpuDispatch[] {
  const { y, q, k, v } = attentionOperands(call);
  const constants = decodeConstants(call.shape, call.options, target);
  const decode = (form: DecodeForm) => ({
    op: "attention",
    ...attentionDecodeWgsl(constants, form),
    groups: (rows: number) => rows,
    times: ({ length }: Segment) => decodeGroups(constants, form, length),
  });
  const whole = { ...decode("whole"), operands: [y, q, k, v] };
  if (isAlwaysWhole(constants)) return [whole];
  const table = target.scratch(tableBytes(constants));
  return [
    whole,
    { ...decode("split"), operands: [y, q, k, v, table] },
    {
      op: "attention",
      ...attentionReduceWgsl(constants),
      operands: [y, readOnly(table)],
      groups: (rows) => rows * call.shape.H,
      times: ({ length }) => splitsOf(constants, length) > 1 ? 1 : 0,
    },
  ];
}
