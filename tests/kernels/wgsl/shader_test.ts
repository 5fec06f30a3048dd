import assert from "node:assert/strict";
import { embedWgsl } from "../../../kernels/ops/embed.ts";
import { writeKvWgsl } from "../../../kernels/ops/kv_cache/wgsl.ts";
import { SOFTWARE_TILES, TILES } from "../../../kernels/ops/matmul/tiles.ts";
import { matmulWgsl } from "../../../kernels/ops/matmul/wgsl.ts";
import { normWgsl } from "../../../kernels/ops/norm.ts";
import {
  sampleChooseWgsl,
  sampleCutWgsl,
  sampleKeysWgsl,
} from "../../../kernels/ops/sample/wgsl_many.ts";
import { sampleOneWgsl } from "../../../kernels/ops/sample/wgsl_one.ts";
import { type Shader, sumOverLanesWgsl } from "../../../kernels/wgsl/shader.ts";
import { attentionShaders, DEVICES } from "../attention_shaders.ts";

/** Bytes per array element in workgroup memory: "Alignment and size" of the WGSL specification. */
const ELEMENT_BYTES: Readonly<Record<string, number>> = {
  f32: 4,
  u32: 4,
  "atomic<u32>": 4,
  vec2u: 8,
  vec3f: 16,
  vec3u: 16,
  vec4f: 16,
  vec4u: 16,
};

/** Bytes of the `var<workgroup>` declarations in a text; NaN if one cannot be parsed. */
function declaredBytes(text: string): number {
  const constants = new Map(
    Array.from(text.matchAll(/^const (\w+) = (\d+)u;/gm), ([, name, value]) => [name, value]),
  );
  let bytes = 0;
  for (const [, type] of text.matchAll(/var<workgroup> \w+: ([^;]+);/g)) {
    const [, element, extent] = /^array<(.+), (\w+)>$/.exec(type) ?? [, type, "1"];
    const [, members] = new RegExp(`^struct ${element} \\{(.+?)^\\}`, "ms").exec(text) ?? [];
    const types = members === undefined
      ? [element]
      : Array.from(members.matchAll(/^ {2}\w+: ([^,]+),/gm), ([, member]) => member);
    const size = types.reduce((sum, member) => sum + ELEMENT_BYTES[member], 0); // words: no padding
    bytes += size * Number(constants.get(extent) ?? extent);
  }
  return bytes;
}

const LAYER = { kind: "layer", weight: { shape: [66] }, bias: {}, eps: 1e-5 } as const;

/** Shaders of each kernel, over the constants that decide workgroup memory. */
function* shaders(): Generator<[string, Shader]> {
  for (const subgroups of [false, true]) {
    for (const lanes of [32, 64, 256]) {
      for (const type of ["f32", "vec3f", "vec3u"] as const) {
        yield ["sum", sumOverLanesWgsl(lanes, { type, subgroups })];
      }
      const inPlace = lanes === 64;
      yield ["norm", normWgsl({ C: 528, lanes, inPlace, subgroups, options: LAYER })];
      for (const sample of [sampleOneWgsl, sampleKeysWgsl, sampleCutWgsl, sampleChooseWgsl]) {
        yield [sample.name, sample({ V: 65, R: 4, lanes, subgroups })];
      }
      const heads = { H: 4, G: 2, D: 66, S: 9, lanes, rotaryDim: 0, subgroups };
      for (const part of ["q", "kv", "qkv"] as const) {
        for (const options of [{}, { qNorm: LAYER }, { kNorm: LAYER }]) {
          yield [`writeKv ${part}`, writeKvWgsl({ ...heads, part, options })];
        }
      }
    }
  }
  for (const device of DEVICES) {
    for (const [H, D] of [[2, 64], [16, 66], [142, 256], [2, 600]]) {
      yield* attentionShaders({ H, G: 2, D, S: 8192 }, device);
    }
  }
  const one = [...TILES.decode, SOFTWARE_TILES.decode, SOFTWARE_TILES.normed];
  for (const K of [66, 768]) {
    const product = { N: 66, K, dtype: "F16", options: {} } as const;
    for (const tile of [...one, ...TILES.prefill, SOFTWARE_TILES.prefill]) {
      yield [`matmul ${JSON.stringify(tile)}`, matmulWgsl({ ...product, tile })];
    }
    for (const tile of one) {
      const shader = matmulWgsl({ ...product, tile, norm: LAYER });
      yield [`matmul ${JSON.stringify(tile)} normed`, shader];
    }
  }
  const table = { dtype: "F32", first: 0, count: 65 } as const;
  yield ["embed", embedWgsl({ V: 65, C: 66, lanes: 64, table, by: "ids", scale: 1 })];
}

Deno.test("every shader declares the workgroupBytes that it reports", () => {
  let sharing = 0;
  for (const [what, { wgsl, workgroupBytes }] of shaders()) {
    assert.equal(workgroupBytes, declaredBytes(wgsl), what);
    if (workgroupBytes > 0) sharing++;
  }
  assert.ok(sharing > 50, "the texts declare workgroup memory");
});
