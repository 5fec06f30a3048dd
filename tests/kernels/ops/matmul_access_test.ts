/** Sectors and banks that the WGSL matmul touches, by the index expressions of its shaders. */
import assert from "node:assert/strict";
import { panelWords } from "../../../kernels/formats/wgsl.ts";
import { wgslOf } from "../../../kernels/formats/mod.ts";
import { matmulAccesses } from "../matmul_accesses.ts";
import { type Tile, TILES } from "../../../kernels/ops/matmul/tiles.ts";
import { matmulWgsl } from "../../../kernels/ops/matmul/wgsl.ts";
import { type Access, indicesOf } from "../wgsl/access.ts";

/** Bytes fetched in sectors of 32 by those wanted, over loads of lanes `first` to `end`. */
function fetched(accesses: readonly Access[], first = 0, end = Infinity): number {
  const [sectors, wanted] = [new Set<number>(), new Set<number>()];
  for (const access of accesses) {
    for (const index of indicesOf(access).slice(first, end)) {
      for (let byte = 0; byte < access.bytes; byte += 4) {
        const address = index * access.bytes + byte;
        sectors.add(Math.floor(address / 32));
        wanted.add(address / 4);
      }
    }
  }
  return 32 * sectors.size / (4 * wanted.size);
}

/**
 * Turns that 32 banks of four bytes take for a warp's 16-byte accesses, a quarter of it at a time,
 * and the least: a turn per quarter. One word serves every lane that reads it.
 */
function turns(access: Access, warp: number): { turns: number; least: number } {
  const indices = indicesOf(access).slice(32 * warp, 32 * warp + 32);
  let [sum, least] = [0, 0];
  for (let first = 0; first < indices.length; first += 8) {
    const banks = new Map<number, Set<number>>();
    for (const index of indices.slice(first, first + 8)) {
      for (let word = 4 * index; word < 4 * index + 4; word++) {
        banks.set(word % 32, (banks.get(word % 32) ?? new Set()).add(word));
      }
    }
    sum += Math.max(...Array.from(banks.values(), (words) => words.size));
    least++;
  }
  return { turns: sum, least };
}

/** Each tile for a GPU, with each format. */
function* cases(): Generator<[what: string, tile: Tile, accesses: Access[]]> {
  for (const tile of [...TILES.decode, ...TILES.prefill]) {
    for (const dtype of ["F32", "BF16"] as const) {
      const { inputs } = wgslOf(dtype);
      const K = 2048;
      const words = panelWords(wgslOf(dtype), K);
      const accesses = matmulAccesses(tile, { K, words, inputs });
      if (accesses.length) yield [`${dtype} ${JSON.stringify(tile)}`, tile, accesses];
    }
  }
}

/** Accesses by array and phase. */
const byArray = (accesses: readonly Access[]) =>
  Map.groupBy(accesses, ({ what }) => what.replace(/ \d+/, ""));

Deno.test("matmul() fetches at most 1.1 bytes for each one wanted when its tile is for a GPU", () => {
  let loads = 0;
  for (const [what, _tile, accesses] of cases()) {
    const storage = accesses.filter(({ memory }) => memory === "storage");
    for (const [array, group] of byArray(storage)) {
      // Warps read the same few x, one after another: from the cache.
      assert.ok(fetched(group) <= 1.1, `${what}, ${array}`);
      loads++;
      if (!array.startsWith("weight")) continue;
      // Each load of each warp uses its sectors of the weight at once.
      for (const access of group) {
        for (let first = 0; first < access.lanes; first += 32) {
          assert.equal(fetched([access], first, first + 32), 1, `${what}, ${access.what}`);
          loads++;
        }
      }
    }
  }
  assert.ok(loads > 100, `${loads}`);
});

Deno.test("matmul() has no bank conflict when its tiles are in workgroup memory", () => {
  let seen = 0;
  for (const [what, _tile, accesses] of cases()) {
    for (const access of accesses.filter(({ memory }) => memory === "workgroup")) {
      for (let warp = 0; warp < Math.ceil(access.lanes / 32); warp++) {
        const { turns: taken, least } = turns(access, warp);
        assert.equal(taken, least, `${what}, ${access.what}, warp ${warp}`);
        seen++;
      }
    }
  }
  assert.ok(seen > 500, `${seen}`);
});

Deno.test("matmulAccesses() has the expressions of the shaders", () => {
  const squeezed = (text: string) => text.replace(/\s+/g, "");
  for (const tile of TILES.prefill.filter(({ kind }) => kind === "shared")) {
    const { wgsl } = matmulWgsl({ N: 2048, K: 2048, dtype: "BF16", tile, options: {} });
    const { inputs } = wgslOf("BF16");
    const accesses = matmulAccesses(tile, { K: 2048, words: 256, inputs });
    const stores = accesses.filter(({ what }) => /^tile_.*store$/.test(what));
    assert.equal(stores.length, inputs + 4);
    for (const { what, index } of stores) {
      const array = what.slice(0, 6);
      const unit = `${array.slice(-1)}_unit_0`;
      const text = squeezed(index.replace(/\bunit\b/g, unit));
      assert.ok(squeezed(wgsl).includes(`+${text}]=`), `${what}: ${text}`);
    }
  }
});

Deno.test("indicesOf() computes as WGSL does, and refuses what is no expression of its names", () => {
  const access = (index: string): Access => ({
    what: "x",
    memory: "storage",
    bytes: 16,
    index,
    lane: "lane",
    lanes: 4,
    names: { t: 7 },
  });
  assert.deepEqual(indicesOf(access("(lane ^ 2u) * 3u + t / 2u + lane % 2u")), [9, 13, 3, 7]);
  for (const index of ["n + lane", "process.exit()", "lane; t", "lane + t.x"]) {
    assert.throws(() => indicesOf(access(index)), SyntaxError);
  }
});
