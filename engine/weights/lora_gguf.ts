/**
 * Names of an adapter's modules in a GGUF base, and the rows that llama.cpp's converter moved.
 *
 *     Llama     q, k of a head     0, D/2, 1, D/2 + 1, …      from halves to neighbours
 *     GPT-NeoX  one matrix         q of all heads, k, v        from q, k, v of each head in turn
 *
 * @module
 */
import { FAMILIES, type FamilyFacts } from "../architecture/families.ts";
import { type Architecture, type Family, hasReorderedRows } from "../architecture/mod.ts";
import type { Checkpoint } from "../checkpoint/checkpoint.ts";
import { NAMES } from "./names.ts";
import { namesOf } from "./names_gguf.ts";

/** Fields of a name table: linear layers with rows in the same order, and norms. */
const LINEAR = ["attnProj", "fc", "up", "mlpProj"] as const;
const NORMS = ["ln1", "ln2", "lnAttn", "lnMlp", "qNorm", "kNorm"] as const;

const FACTS: Partial<Record<Family, FamilyFacts>> = FAMILIES;

/** Row of a Hugging Face checkpoint's tensor, by the row of the GGUF's. */
export type RowOrder = (row: number) => number;

/** A tensor of a GGUF file in terms of a Hugging Face checkpoint. */
export interface HfTensor {
  /** Name without the family's prefix. */
  readonly name: string;
  /** Undefined if the rows have the same order. */
  readonly order?: RowOrder;
}

/** The Hugging Face name of a GGUF's tensor; undefined if an adapter cannot change it. */
export function hfTensorOf(
  checkpoint: Pick<Checkpoint, "format" | "tensors" | "metadata">,
  a: Architecture,
): (name: string) => HfTensor | undefined {
  const [gguf, hf] = [namesOf(checkpoint, a), NAMES[a.family]];
  const modules = new Map<string, HfTensor>();
  const reordered = hasReorderedRows(checkpoint.metadata);
  for (const [i, name] of gguf.qkv.entries()) {
    if (gguf.qkv.length !== hf.qkv.length) break;
    const isRotated = reordered && i < 2;
    const order = isRotated ? fromNeighbours(a) : hf.qkvByHead ? fromParts(a) : undefined;
    modules.set(name, { name: hf.qkv[i]!, order });
  }
  // The norms of Gemma hold 1 + w.
  const hasSameNorms = !(FACTS[a.family]?.normOffset);
  for (const field of [...LINEAR, ...hasSameNorms ? NORMS : []]) {
    const [name, other] = [gguf[field], hf[field]];
    if (name && other) modules.set(name, { name: other });
  }
  const whole = new Map<string, string | undefined>([
    [`${gguf.wte}.weight`, `${hf.wte}.weight`],
    [`${gguf.lmHead[0]}.weight`, `${hf.lmHead[0]}.weight`],
    [`${gguf.lmHead[0]}.bias`, `${hf.lmHead[0]}.bias`],
    ...["weight", "bias"].map((suffix) =>
      [`${gguf.lnF}.${suffix}`, hasSameNorms ? `${hf.lnF}.${suffix}` : undefined] as const
    ),
  ]);
  return (tensor) => {
    const other = whole.get(tensor);
    if (other !== undefined) return { name: other };
    const [, layer, module, suffix] = /^blk\.(\d+)\.(\w+)(\.(?:weight|bias))$/.exec(tensor) ?? [];
    const found = modules.get(module);
    return found && { ...found, name: `${hf.layers}.${layer}.${found.name}${suffix}` };
  };
}

/** Rows of a head's halves, from rows of its neighbours: 2i + j is half j's row i. */
function fromNeighbours({ headDim: D }: Architecture): RowOrder {
  return (row) => {
    const within = row % D;
    return row - within + (within % 2) * (D / 2) + Math.floor(within / 2);
  };
}

/** Rows of q, k, v of each head, from those of all heads' q, then k, then v. */
function fromParts({ headDim: D, nHead: H }: Architecture): RowOrder {
  return (row) => {
    const [part, within] = [Math.floor(row / (H * D)), row % (H * D)];
    const [head, at] = [Math.floor(within / D), within % D];
    return (3 * head + part) * D + at;
  };
}
