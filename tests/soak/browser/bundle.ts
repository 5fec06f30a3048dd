/**
 * Bundle of the library for pages, made by `deno bundle`. It is esbuild, which Deno downloads
 * itself: the project needs no dependency, and its import map applies.
 *
 * @module
 */
import assert from "node:assert/strict";

const ROOT = new URL("../../../", import.meta.url);

/** Texts of a bundle of `mod.ts`, by file name; dynamic imports are separate files. */
export async function bundleLibrary(): Promise<ReadonlyMap<string, string>> {
  const folder = await Deno.makeTempDir({ prefix: "wgslm-" });
  try {
    const { success, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["bundle", "--platform=browser", "--code-splitting", `--outdir=${folder}`, "mod.ts"],
      cwd: ROOT,
    }).output();
    assert.ok(success, new TextDecoder().decode(stderr));
    const names = [...Deno.readDirSync(folder)].map(({ name }) => name);
    return new Map(names.map((name) => [name, Deno.readTextFileSync(`${folder}/${name}`)]));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
