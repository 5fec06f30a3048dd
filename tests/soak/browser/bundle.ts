/**
 * The library as a bundle for pages, made by Deno's own bundler: esbuild, which Deno gets from npm
 * by itself, so that the project needs no further dependency, and which reads the project's import
 * map.
 *
 * @module
 */
import assert from "node:assert/strict";

const ROOT = new URL("../../../", import.meta.url);

/**
 * The files of a bundle of `mod.ts`: their names and texts; what is imported later has a file of
 * its own.
 */
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
