/**
 * From the calls of a forward pass to shaders and their operands.
 *
 * @module
 */
import { checkAttention } from "../ops/attention/mod.ts";
import {
  attentionManyGroups,
  attentionManyWgsl,
  attentionOneWgsl,
  attentionReduceWgsl,
  splitsOf,
} from "../ops/attention/wgsl.ts";
import type { Recorder } from "../backend.ts";
import {
  checkAddPosition,
  checkEmbed,
  embedGroups,
  type EmbedWgsl,
  embedWgsl,
} from "../ops/embed.ts";
import { expectThat } from "../errors.ts";
import { checkWriteKv } from "../ops/kv_cache/mod.ts";
import { writeKvGroups, writeKvParts, writeKvWgsl } from "../ops/kv_cache/wgsl.ts";
import { checkMatmul } from "../ops/matmul/mod.ts";
import { matmulGroups, matmulWgsl } from "../ops/matmul/wgsl.ts";
import { checkNorm, normWgsl } from "../ops/norm.ts";
import { checkSample } from "../ops/sample/mod.ts";
import { sampleWgsl } from "../ops/sample/wgsl.ts";
import type { Segment, Step } from "../step.ts";
import type { Weight } from "../formats/mod.ts";
import type { Tensor } from "../tensor.ts";
import { type Gpu, GpuTensor } from "./device.ts";
import { merge, type Recorded } from "./merge.ts";
import type { Call, Operand } from "./pipeline.ts";
import type { Tiles } from "./tuner.ts";
import { GpuWeight } from "./weights.ts";

type Of<Op extends Recorded["op"]> = Recorded & { op: Op };

/** Notes the calls of a forward pass, checked; `lowered` turns them into dispatches. */
export class WebGpuRecorder implements Recorder {
  readonly recorded: Recorded[] = [];
  /** Buffers of the plan's own. */
  readonly scratch: GPUBuffer[] = [];
  readonly #gpu: Gpu;
  readonly #tiles: Tiles;

  constructor(gpu: Gpu, tiles: Tiles) {
    this.#gpu = gpu;
    this.#tiles = tiles;
  }

  embed: Recorder["embed"] = (y, table, ids, { scale = 1 } = {}) => {
    checkEmbed(y, table, ids);
    this.recorded.push({ op: "embed", y, table, ids, scale });
  };

  addPosition: Recorder["addPosition"] = (y, table) => {
    checkAddPosition(y, table);
    this.recorded.push({ op: "addPosition", y, table });
  };

  norm: Recorder["norm"] = (y, x, options) => {
    checkNorm(y, x, options);
    this.recorded.push({ op: "norm", y, x, options });
  };

  matmul: Recorder["matmul"] = (y, x, weight, options = {}) => {
    checkMatmul(y, x, weight, options);
    this.recorded.push({ op: "matmul", y, x, weight, options });
  };

  writeKv: Recorder["writeKv"] = (q, cache, qkv, options = {}) => {
    checkWriteKv(q, cache, qkv, options);
    this.recorded.push({ op: "writeKv", y: q, cache, qkv, options });
  };

  attention: Recorder["attention"] = (y, q, cache, options = {}) => {
    checkAttention(y, q, cache, options);
    this.recorded.push({ op: "attention", y, q, cache, options });
  };

  sample: Recorder["sample"] = (ids, logits, sampling) => {
    checkSample(ids, logits, sampling);
    this.recorded.push({ op: "sample", y: ids, logits, sampling });
  };

  /** What was recorded, neighbours merged, and the dispatches of each. */
  lowered(): { readonly call: Recorded; readonly calls: readonly Call[] }[] {
    const lowered = merge(this.recorded).map((call) => ({ call, calls: this.#lower(call) }));
    for (const { op, operands } of lowered.flatMap(({ calls }) => calls)) {
      const present = operands.filter((operand) => operand !== undefined);
      const alone = present.every((a) =>
        !a.written || present.every((b) => a === b || a.buffer !== b.buffer)
      );
      expectThat(op, alone, "what is written to be another tensor than the other operands");
    }
    return lowered;
  }

  #lower(call: Recorded): Call[] {
    switch (call.op) {
      case "embed":
      case "addPosition":
        return this.#embed(call);
      case "norm":
        return this.#norm(call);
      case "matmul":
        return this.#matmul(call);
      case "writeKv":
        return this.#writeKv(call);
      case "attention":
        return this.#attention(call);
      case "sample":
        return this.#sample(call);
    }
  }

  #embed(call: Of<"embed"> | Of<"addPosition">): Call[] {
    const { op, y, table } = call;
    const [V, C] = table.shape;
    const [ids, positions, scale] = call.op === "embed"
      ? [call.ids, call.positions, call.scale]
      : [undefined, undefined, 1];
    const more = positions && weightOf(positions).parts;
    if (positions && more && more.length > 1) {
      // Positions of several parts are added on their own.
      return [
        ...this.#embed({ ...call, positions: undefined } as Of<"embed">),
        ...this.#embed({
          op: "addPosition",
          y,
          table: positions,
        }),
      ];
    }
    return weightOf(table).parts.map(({ first, count, buffer }) => {
      const constants: EmbedWgsl = {
        V,
        C,
        lanes: this.#gpu.software ? 32 : 64,
        table: { dtype: table.dtype, first, count },
        by: ids ? "ids" : "position",
        scale,
        positions: positions?.dtype,
      };
      const operands = [
        writes(y),
        reads(ids),
        { buffer, written: false },
        more && { buffer: more[0].buffer, written: false },
      ];
      const groups = ({ rows }: Pick<Step, "rows">) => embedGroups(constants, rows);
      return { op, ...embedWgsl(constants), operands, groups };
    });
  }

  #norm({ y, x, options }: Of<"norm">): Call[] {
    const inPlace = y === x;
    const lanes = this.#gpu.software ? 32 : 128;
    const subgroups = this.#subgroups;
    const shader = normWgsl({ C: x.shape[1], lanes, inPlace, subgroups, options });
    const { weight, bias } = options;
    const operands = [writes(y), inPlace ? undefined : reads(x), reads(weight), reads(bias)];
    return [{ op: "norm", ...shader, operands, groups: ({ rows }) => rows }];
  }

  #matmul({ y, x, weight, options, norm }: Of<"matmul">): Call[] {
    const [N, K] = weight.shape;
    const tile = this.#tiles.of(weight, x.shape[0], norm !== undefined);
    return weightOf(weight).parts.map(({ first, count, buffer }) => {
      const part = { first, count };
      const shader = matmulWgsl({ N, K, dtype: weight.dtype, tile, options, norm, part });
      const operands = [
        writes(y),
        reads(x),
        { buffer, written: false },
        reads(options.bias),
        reads(options.gate),
        reads(norm?.weight),
        reads(norm?.bias),
      ];
      const groups = ({ rows }: Pick<Step, "rows">) => matmulGroups(tile, count, rows);
      return { op: "matmul", ...shader, operands, groups };
    });
  }

  #writeKv({ y: q, cache, qkv, options }: Of<"writeKv">): Call[] {
    const shape = checkWriteKv(q, cache, qkv, options);
    const { table, qNorm, kNorm } = options;
    const rotaryDim = options.rotaryDim ?? table?.shape[1] ?? 0;
    const lanes = this.#gpu.software ? 16 : 64;
    const subgroups = this.#subgroups;
    return writeKvParts(options).map((part) => {
      const shader = writeKvWgsl({ ...shape, lanes, rotaryDim, subgroups, part, options });
      const [queries, keys] = [part !== "kv", part !== "q"];
      const operands = [
        queries ? writes(q) : undefined,
        keys ? writes(cache.k) : undefined,
        keys ? writes(cache.v) : undefined,
        reads(qkv),
        reads(table),
        queries ? reads(qNorm?.weight) : undefined,
        queries ? reads(qNorm?.bias) : undefined,
        keys ? reads(kNorm?.weight) : undefined,
        keys ? reads(kNorm?.bias) : undefined,
      ];
      const groups = ({ rows }: Pick<Step, "rows">) => writeKvGroups(shape, part, rows);
      return { op: "writeKv", ...shader, operands, groups };
    });
  }

  #attention({ y, q, cache, options }: Of<"attention">): Call[] {
    const shape = checkAttention(y, q, cache, options);
    const { H, G, D, S } = shape;
    const op = "attention";
    const kv = [reads(cache.k), reads(cache.v)];
    if (q.shape[0] > 1) {
      const [lanes, queries] = this.#gpu.software ? [8, D > 64 ? 1 : 2] : [32, 1];
      const constants = { ...shape, lanes, queries, options };
      const shader = attentionManyWgsl(constants);
      const groups = ({ rows }: Pick<Step, "rows">) => attentionManyGroups(constants, rows);
      return [{ op, ...shader, operands: [writes(y), reads(q), ...kv], groups }];
    }
    const constants = { ...shape, lanes: this.#gpu.software ? 32 : 128, options };
    const visible = ({ length }: Segment) => Math.min(length, options.window ?? Infinity);
    const groups = (step: Segment) => step.rows * G * splitsOf(constants, visible(step));
    const most = splitsOf(constants, Math.min(S, options.window ?? Infinity));
    if (most === 1) {
      const shader = attentionOneWgsl(constants, false);
      return [{ op, ...shader, operands: [writes(y), reads(q), ...kv], groups }];
    }
    const shares = this.#scratch(4 * most * H * (D + 2));
    const split = attentionOneWgsl(constants, true);
    const reduce = attentionReduceWgsl(constants);
    return [
      { op, ...split, operands: [{ buffer: shares, written: true }, reads(q), ...kv], groups },
      {
        op,
        ...reduce,
        operands: [writes(y), { buffer: shares, written: false }],
        groups: ({ rows }) => rows * H,
      },
    ];
  }

  #sample({ y: ids, logits, sampling }: Of<"sample">): Call[] {
    const { V, R } = checkSample(ids, logits, sampling);
    // Few ids keep few lanes busy. lavapipe ends a shader's loops after 65535 rounds in all, and each id takes some 40.
    const lanes = V <= 2048 ? 64 : 256;
    const shader = sampleWgsl({ V, R, lanes, subgroups: this.#subgroups });
    const { settings, counter, seen, drawn } = sampling;
    const operands = [
      writes(ids),
      reads(logits),
      reads(settings),
      writes(counter),
      writes(seen),
      writes(drawn),
      { buffer: this.#scratch(4 * V), written: true },
    ];
    return [{ op: "sample", ...shader, operands, groups: () => 1 }];
  }

  get #subgroups(): boolean {
    return this.#gpu.features.has("subgroups");
  }

  #scratch(bytes: number): GPUBuffer {
    const buffer = this.#gpu.storage(bytes, "activations");
    this.scratch.push(buffer);
    return buffer;
  }
}

function reads(t: Tensor): Operand;
function reads(t: Tensor | undefined): Operand;
function reads(t: Tensor | undefined): Operand {
  return t && { buffer: bufferOf(t), written: false };
}

function writes(t: Tensor): Operand {
  return { buffer: bufferOf(t), written: true };
}

function bufferOf(t: Tensor): GPUBuffer {
  if (t instanceof GpuTensor) return t.buffer;
  throw foreign();
}

function weightOf(weight: Weight): GpuWeight {
  if (weight instanceof GpuWeight) return weight;
  throw foreign();
}

function foreign(): TypeError {
  return new TypeError("Cannot record on webgpu: expected a tensor of this backend, got another's");
}
