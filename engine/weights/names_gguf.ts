/**
 * Tensor names of GGUF files: one table for all architectures.
 *
 * Two facts differ between files and are read from the tensors: whether queries, keys and values
 * are one tensor, and whether the gate's rows are in the tensor of `ffn_up`, before its own.
 *
 * @module
 */
import type { Architecture } from "../architecture/mod.ts";
import type { Checkpoint } from "../checkpoint/checkpoint.ts";
import { NAMES, type NameTable } from "./names.ts";

const GGUF: NameTable = {
  prefixes: [],
  wte: "token_embd",
  wpe: "position_embd",
  lnF: "output_norm",
  lmHead: ["output"],
  layers: "blk",
  ln1: "attn_norm",
  qkv: ["attn_q", "attn_k", "attn_v"],
  qNorm: "attn_q_norm",
  kNorm: "attn_k_norm",
  attnProj: "attn_output",
  lnAttn: "post_attention_norm",
  ln2: "ffn_norm",
  fc: "ffn_gate",
  up: "ffn_up",
  mlpProj: "ffn_down",
  lnMlp: "post_ffw_norm",
  // Read with the metadata, or left over from old converters.
  others: /^(blk\.\d+\.)?(rope_freqs|rope_factors_long|rope_factors_short|attn_rot_embd)\.weight$/,
};

/** The names of a checkpoint's tensors. */
export function namesOf(
  checkpoint: Pick<Checkpoint, "format" | "tensors">,
  { family, gated }: Pick<Architecture, "family" | "gated">,
): NameTable {
  if (checkpoint.format !== "gguf") return NAMES[family];
  const names = new Set(checkpoint.tensors().map(({ name }) => name));
  return {
    ...GGUF,
    ...names.has("blk.0.attn_qkv.weight") && { qkv: ["attn_qkv"] },
    ...!names.has("blk.0.ffn_gate.weight") && { fc: "ffn_up" },
    ...!gated && { up: undefined },
  };
}
