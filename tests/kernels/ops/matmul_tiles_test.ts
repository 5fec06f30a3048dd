import assert from "node:assert/strict";
import { panelWords, WORD_BYTES } from "../../../kernels/formats/wgsl.ts";
import { type WeightDtype, wgslOf } from "../../../kernels/formats/mod.ts";
import {
  bytesInFlight,
  decodeTile,
  partsOf,
  type Tile,
  TILES,
} from "../../../kernels/ops/matmul/tiles.ts";
import { matmulWgsl } from "../../../kernels/ops/matmul/wgsl.ts";

function wordsOf(N: number, K: number, dtype: WeightDtype) {
  const format = wgslOf(dtype);
  const words = panelWords(format, K);
  return { N, words, blockBytes: format.ahead && WORD_BYTES * format.words(K) / words };
}

/** Products of Llama-shaped models of 1 B and 8 B parameters, [N, K]. */
const PRODUCTS = [
  [3072, 2048],
  [2048, 2048],
  [8192, 2048],
  [2048, 8192],
  [128256, 2048],
  [6144, 4096],
  [4096, 4096],
  [14336, 4096],
  [4096, 14336],
  [128256, 4096],
] as const;

Deno.test("decodeTile() keeps 2.2 MB in flight when a model has a billion parameters", () => {
  for (const [N, K] of PRODUCTS) {
    for (const dtype of ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q6_K"] as const) {
      const shape = wordsOf(N, K, dtype);
      const tile = TILES.decode[decodeTile(shape)];
      const bytes = bytesInFlight(tile, shape);
      assert.ok(bytes >= 2.2e6, `${N}×${K} ${dtype}: ${bytes}`);
      assert.equal(partsOf(tile), 1, `${N}×${K} ${dtype}: one dispatch`);
    }
  }
});

Deno.test("decodeTile() shares out K when rows alone cannot keep enough in flight", () => {
  for (const [N, K] of [[64, 1 << 18], [128, 1 << 18]]) {
    const shape = wordsOf(N, K, "BF16");
    const tile = TILES.decode[decodeTile(shape)];
    assert.ok(partsOf(tile) > 1, JSON.stringify(tile));
    const most = Math.max(...TILES.decode.map((tile) => bytesInFlight(tile, shape)));
    assert.equal(bytesInFlight(tile, shape), most);
  }
  // A second dispatch takes longer than a small weight.
  for (const [N, K] of [[64, 512], [576, 1536], [256, 14336]]) {
    assert.equal(partsOf(TILES.decode[decodeTile(wordsOf(N, K, "BF16"))]), 1, `${N}×${K}`);
  }
});

Deno.test("bytesInFlight() counts no more than the weight, and the words that are loaded ahead", () => {
  const tile = TILES.decode[0];
  assert.deepEqual(tile, { kind: "split", outputs: 32, slices: 8, depth: 4 });
  assert.equal(bytesInFlight(tile, { N: 100, words: 1000 }), 100 * 8 * 4 * 16);
  assert.equal(bytesInFlight(tile, { N: 100, words: 5 }), 100 * 5 * 16);
});

/** Bodies of the loops of a shader, each without the loops inside it. */
function loopBodies(wgsl: string): string[] {
  const bodies: string[] = [];
  for (const { index } of wgsl.matchAll(/\bfor \(/g)) {
    let depth = 0;
    let at = wgsl.indexOf("{", index);
    const start = at;
    do {
      if (wgsl[at] === "{") depth++;
      if (wgsl[at] === "}") depth--;
      at++;
    } while (depth > 0);
    bodies.push(wgsl.slice(start, at));
  }
  return bodies;
}

/** Multiply-adds, or sums of shares, of a text. */
const workOf = (text: string) => text.match(/\bfma\(|\bdot\(|\+= share_of/g)?.length ?? 0;

Deno.test("matmul() has no loop without an unrolled body when its tile is for a GPU", () => {
  const norm = { kind: "layer", weight: {}, bias: {}, eps: 1e-5 } as const;
  const shaders: [string, string][] = [];
  const add = (tile: Tile, fused: typeof norm | undefined, subgroups: boolean) => {
    for (const [N, K, dtype] of [[2048, 2048, "BF16"], [66, 1030, "F32"]] as const) {
      const { wgsl } = matmulWgsl({ N, K, dtype, tile, options: {}, norm: fused, subgroups });
      shaders.push([`${JSON.stringify(tile)} ${N}×${K} ${dtype}`, wgsl]);
    }
  };
  for (const subgroups of [false, true]) {
    for (const tile of TILES.decode) {
      for (const fused of [undefined, norm]) add(tile, fused, subgroups);
    }
  }
  for (const tile of TILES.prefill) add(tile, undefined, false);
  for (const [what, wgsl] of shaders) {
    const bodies = loopBodies(wgsl);
    for (const body of bodies) assert.ok(workOf(body) >= 4, `${what}: ${body}`);
    assert.ok(bodies.length <= 2, `${what}: ${bodies.length} loops`);
  }
});

Deno.test("matmul() has no barrier before its first load when a norm is folded into it", () => {
  const norm = { kind: "layer", weight: {}, bias: {}, eps: 1e-5 } as const;
  for (const tile of TILES.decode) {
    for (const subgroups of [false, true]) {
      const common = { N: 2048, K: 2048, dtype: "BF16", tile, options: {}, subgroups } as const;
      const [plain, normed] = [{}, { norm }].map((more) => matmulWgsl({ ...common, ...more }).wgsl);
      const barriers = (text: string) => text.match(/workgroupBarrier/g)?.length ?? 0;
      assert.equal(barriers(normed), barriers(plain));
      assert.ok(normed.indexOf("= weight_word(") < normed.indexOf("workgroupBarrier"));
      if (subgroups) assert.equal(barriers(normed), 1);
    }
  }
});
