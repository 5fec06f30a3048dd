/** Sizes and contents of the bundles for pages. */
import assert from "node:assert/strict";
import { gzipSync } from "node:zlib";
import { bundle, type BundledFile, LIBRARY, loadedWith } from "../../build/bundle.ts";
import { inTempFolder } from "../safetensors.ts";

/** Most bytes of a page's program, compressed: what it downloads before it can load a model. */
const MOST_BYTES = 250_000;

/** Bytes of GPT-2's merge ranks, compressed, at least: by them their file is recognised. */
const RANKS_BYTES = 200_000;

interface Bundle {
  readonly files: readonly BundledFile[];
  readonly texts: ReadonlyMap<string, string>;
}

function bundlePage(entries: Readonly<Record<string, string>>): Promise<Bundle> {
  return inTempFolder(async (folder) => {
    const files = await bundle({ entries, folder, platform: "browser", minify: true });
    const texts = files.map(({ name }) => [name, Deno.readTextFileSync(`${folder}/${name}`)]);
    return { files, texts: new Map(texts as [string, string][]) };
  });
}

const compressed = (text: string) => gzipSync(text).length;

Deno.test("a page with loadModel and WebGPU loads at most 250 KB, without GPT-2's ranks", async () => {
  const { files, texts } = await bundlePage({ page: "tests/build/load_model.ts" });
  const loaded = loadedWith("page.js", files);
  const bytes = loaded.reduce((sum, name) => sum + compressed(texts.get(name)!), 0);
  assert.ok(bytes > 50_000, `${bytes} bytes`);
  assert.ok(bytes <= MOST_BYTES, `${bytes} bytes`);
  const code = loaded.map((name) => texts.get(name)).join("");
  assert.ok(code.includes("@workgroup_size"), "the kernels are in it");
  const ranks = files.filter(({ name }) => compressed(texts.get(name)!) > RANKS_BYTES);
  assert.equal(ranks.length, 1);
  assert.ok(!loaded.includes(ranks[0].name));
});

Deno.test("the library's bundle has its worker beside it, and no `using`", async () => {
  const { files, texts } = await bundlePage(LIBRARY);
  const names = files.map(({ name }) => name);
  for (const name of ["mod.js", "kernels.js", "worker.js"]) assert.ok(names.includes(name), name);
  const code = [...texts.values()].join("\n");
  assert.match(code, /new URL\("\.\/worker\.js",\s*import\.meta\.url\)/);
  assert.doesNotMatch(code, /\busing\s+\w+\s*=/);
  assert.deepEqual(code.match(/.{0,40}(?:\bDeno\.|["'`]node:).{0,40}/g), null);
});
