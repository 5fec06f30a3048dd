/**
 * Attention's shaders for every kind of device.
 *
 * @module
 */
import type { AttentionOptions, AttentionShape } from "../../kernels/ops/attention/mod.ts";
import {
  attentionDecodeWgsl,
  attentionReduceWgsl,
  decodeConstants,
} from "../../kernels/ops/attention/wgsl_decode.ts";
import {
  attentionPrefillWgsl,
  prefillConstants,
} from "../../kernels/ops/attention/wgsl_prefill.ts";
import type { Device } from "../../kernels/ops/attention/wgsl_state.ts";
import type { Shader } from "../../kernels/wgsl/shader.ts";

/** GPUs and software adapters, with subgroups of 4 lanes or more and without. */
export const DEVICES: readonly Device[] = [false, true].flatMap((software) =>
  [1, 4, 8, 32, 128].map((smallestSubgroup) => ({ software, smallestSubgroup }))
);

/** Rows of the prefill shaders. */
export const ROWS = [2, 20, 512] as const;

/** Decode, reduce, and prefill of `ROWS` rows, by name. */
export function attentionShaders(
  shape: AttentionShape,
  device: Device,
  options: AttentionOptions = {},
): [string, Shader][] {
  const decode = decodeConstants(shape, options, device);
  const prefill = ROWS.map((T) => prefillConstants(shape, options, T, device));
  return [
    ["attention decode", attentionDecodeWgsl(decode, "whole")],
    ["attention decode of splits", attentionDecodeWgsl(decode, "split")],
    ["attention reduce", attentionReduceWgsl(decode)],
    ...prefill.map((constants): [string, Shader] => [
      "attention prefill",
      attentionPrefillWgsl(constants),
    ]),
  ];
}
