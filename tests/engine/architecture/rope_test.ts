import assert from "node:assert/strict";
import { type Architecture, readArchitecture } from "../../../engine/architecture/mod.ts";
import { CheckpointError } from "../../../engine/errors.ts";
import { ropeTable } from "../../../kernels/ops/rope.ts";
import { assertClose, readJson, TOLERANCE } from "../../testing.ts";

type Config = Record<string, unknown>;

const SIZES: Config = {
  vocab_size: 64,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
};
const LLAMA: Config = { ...SIZES, model_type: "llama" };
const GEMMA3: Config = { ...SIZES, model_type: "gemma3_text", head_dim: 8 };

const ropesOf = ({ layers }: Architecture) => layers.map(({ rope }) => rope);
const ropeOf = (config: Config) => readArchitecture(config, "config.json").rope;

interface TableCase {
  readonly name: string;
  readonly head_dim: number;
  readonly parameters: Config;
  /** Whether the context is longer than the original context. */
  readonly long: boolean;
  readonly rows: readonly number[];
  readonly expected: readonly number[];
}

for (const golden of readJson<TableCase[]>("tiny/rope_scaling.json")) {
  Deno.test(`ropeTable() returns transformers' angles for ${golden.name}`, () => {
    const { head_dim, parameters, long, rows, expected } = golden;
    const rope = ropeOf({
      ...(golden.name.startsWith("Phi")
        ? { ...SIZES, model_type: "phi3", original_max_position_embeddings: 4096 }
        : LLAMA),
      head_dim,
      max_position_embeddings: 131072,
      rope_parameters: parameters,
    });
    const table = ropeTable({ ...rope!, positions: long ? 4098 : 4097 });
    const chosen = rows.flatMap((p) => [...table.subarray(p * head_dim, (p + 1) * head_dim)]);
    assertClose(chosen, expected, TOLERANCE.kernel, golden.name);
  });
}

Deno.test("readArchitecture() reads equal ropes from old and new keys", () => {
  const scaling = { factor: 4, original_max_position_embeddings: 16 };
  const pairs: [model: Config, parameters: Config, old: Config][] = [
    [LLAMA, { rope_theta: 5000 }, { rope_theta: 5000 }],
    [LLAMA, { rope_theta: 5000, rope_type: "default" }, { rope_theta: 5000, rope_scaling: null }],
    [LLAMA, { rope_theta: 5000 }, { rope_theta: 5000, rope_scaling: {} }],
    [
      LLAMA,
      { rope_theta: 5000, rope_type: "linear", factor: 2 },
      { rope_theta: 5000, rope_scaling: { type: "linear", factor: 2 } },
    ],
    [
      LLAMA,
      { rope_theta: 5000, rope_type: "yarn", ...scaling },
      { rope_theta: 5000, rope_scaling: { type: "yarn", ...scaling } },
    ],
    [
      { ...SIZES, model_type: "phi" },
      { rope_theta: 5000, partial_rotary_factor: 0.75 },
      { rope_theta: 5000, partial_rotary_factor: 0.75 },
    ],
    [
      { ...SIZES, model_type: "gpt_neox" },
      { rope_theta: 5000, partial_rotary_factor: 0.75 },
      { rotary_emb_base: 5000, rotary_pct: 0.75 },
    ],
    [
      { ...SIZES, model_type: "phi3", original_max_position_embeddings: 16 },
      { rope_type: "longrope", short_factor: [1, 2, 3, 4], long_factor: [5, 6, 7, 8] },
      { rope_scaling: { type: "su", short_factor: [1, 2, 3, 4], long_factor: [5, 6, 7, 8] } },
    ],
  ];
  for (const [model, parameters, old] of pairs) {
    const rope = ropeOf({ ...model, rope_parameters: parameters });
    assert.deepEqual(ropeOf({ ...model, ...old }), rope, JSON.stringify(old));
    assert.equal(rope?.theta, model.model_type === "phi3" ? 10000 : 5000);
  }
});

Deno.test("readArchitecture() reads Gemma 3's two tables from old and new keys", () => {
  const expected = {
    rope: {
      theta: 50000,
      rotaryDim: 8,
      interleaved: false,
      scaling: { type: "linear", factor: 8 },
    },
    ropeLocal: { theta: 100, rotaryDim: 8, interleaved: false },
  };
  const scaling = { rope_type: "linear", factor: 8 };
  const old = { rope_theta: 50000, rope_local_base_freq: 100, rope_scaling: scaling };
  const today = {
    rope_parameters: {
      full_attention: { rope_theta: 50000, ...scaling },
      sliding_attention: { rope_theta: 100, rope_type: "default" },
    },
  };
  for (const spelling of [old, today]) {
    const a = readArchitecture({ ...GEMMA3, ...spelling }, "config.json");
    const { rope, ropeLocal } = a;
    assert.deepEqual({ rope, ropeLocal }, expected);
    assert.deepEqual(ropesOf(a), a.layers.map(() => ropeLocal));
  }
  const deep = { ...GEMMA3, num_hidden_layers: 3, sliding_window_pattern: 3 };
  const a = readArchitecture(deep, "config.json");
  const { rope, ropeLocal } = a;
  assert.deepEqual([rope?.theta, ropeLocal?.theta], [1_000_000, 10_000]);
  assert.deepEqual(ropesOf(a), [ropeLocal, ropeLocal, rope]);
});

Deno.test("readArchitecture() scales YaRN's original context by its factor", () => {
  const yarn = { type: "yarn", factor: 4, original_max_position_embeddings: 32768 };
  const { blockSize } = readArchitecture(
    { ...LLAMA, max_position_embeddings: 32768, rope_scaling: yarn },
    "config.json",
  );
  assert.equal(blockSize, 131072);
});

Deno.test("readArchitecture() names the key of invalid rotary positions", () => {
  const scaled = (values: Config): Config => ({ ...LLAMA, rope_scaling: values });
  const llama3 = { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
  const types = "one of default linear dynamic llama3 yarn longrope";
  const cases: [config: Config, expected: string][] = [
    [{ ...LLAMA, rope_theta: 0 }, "rope_theta to be a positive number, got 0"],
    [
      { ...LLAMA, rope_parameters: { rope_theta: -1 } },
      "rope_parameters.rope_theta to be a positive number, got -1",
    ],
    [{ ...LLAMA, rope_scaling: 4 }, "rope_scaling to be an object, got 4"],
    [{ ...LLAMA, rope_parameters: [1] }, "rope_parameters to be an object, got [1]"],
    [scaled({ type: "mrope" }), `rope_scaling.type to be ${types}, got "mrope"`],
    [scaled({ rope_type: 7 }), `rope_scaling.rope_type to be ${types}, got 7`],
    [scaled({ type: "linear" }), "rope_scaling.factor to be a positive number, got none"],
    [
      scaled({ type: "linear", factor: "4" }),
      'rope_scaling.factor to be a positive number, got "4"',
    ],
    [
      scaled({ ...llama3, low_freq_factor: null }),
      "rope_scaling.low_freq_factor to be a positive number, got null",
    ],
    [
      scaled({ ...llama3, high_freq_factor: 1 }),
      "rope_scaling.high_freq_factor to be larger than low_freq_factor (1), got 1",
    ],
    [
      scaled({ type: "yarn", factor: 4, original_max_position_embeddings: 1.5 }),
      "rope_scaling.original_max_position_embeddings to be an integer from 1 to 2147483647, got 1.5",
    ],
    [
      scaled({ type: "yarn", factor: 4, truncate: 1 }),
      "rope_scaling.truncate to be true or false, got 1",
    ],
    [
      scaled({ type: "longrope", short_factor: [1, 2], long_factor: [1, 2, 3, 4] }),
      "rope_scaling.short_factor to be a list of 4 positive numbers, got [1,2]",
    ],
    [
      scaled({ type: "longrope", short_factor: [1, 2, 3, 4], long_factor: [1, 2, 3, 0] }),
      "rope_scaling.long_factor to be a list of 4 positive numbers, got [1,2,3,0]",
    ],
    [
      { ...LLAMA, partial_rotary_factor: 0.5 },
      "partial_rotary_factor to be 1: the family rotates whole heads, got 0.5",
    ],
    [
      { ...SIZES, model_type: "phi", partial_rotary_factor: 0.4 },
      "partial_rotary_factor to be a factor that rotates an even count of 8 numbers, got 0.4",
    ],
    [
      { ...SIZES, model_type: "phi", partial_rotary_factor: 1.5 },
      "partial_rotary_factor to be a factor that rotates an even count of 8 numbers, got 1.5",
    ],
    [
      {
        ...{ model_type: "gptj", vocab_size: 64, n_embd: 32, n_layer: 2, n_head: 4 },
        rotary_dim: 10,
      },
      "rotary_dim to be an even number of at most 8, got 10",
    ],
    [
      { ...LLAMA, rope_parameters: { full_attention: { rope_theta: 1e4 } } },
      'rope_parameters to be one set of values for all layers, got {"full_attention":{"rope_theta":10000}}',
    ],
    [
      { ...GEMMA3, rope_parameters: { rope_theta: 1e4 } },
      'rope_parameters to be values for full_attention and sliding_attention, got {"rope_theta":10000}',
    ],
    [
      { ...LLAMA, head_dim: 7 },
      "head_dim to be a value that gives heads of even width, not 7, got 7",
    ],
    [
      { ...LLAMA, hidden_size: 12 },
      "hidden_size to be a value that gives heads of even width, not 3, got 12",
    ],
  ];
  for (const [config, expected] of cases) {
    assert.throws(
      () => readArchitecture(config, "a/config.json"),
      new CheckpointError(`Cannot read "a/config.json": expected ${expected}`),
    );
  }
});
