/**
 * Texts of the library's bundle for pages.
 *
 * @module
 */
import { bundle, LIBRARY } from "../../../build/bundle.ts";

/** Texts of the bundle, by file name; dynamic imports are separate files. */
export async function bundleLibrary(): Promise<ReadonlyMap<string, string>> {
  const folder = await Deno.makeTempDir({ prefix: "wgslm-" });
  try {
    const files = await bundle({ entries: LIBRARY, folder, platform: "browser" });
    return new Map(files.map(({ name }) => [name, Deno.readTextFileSync(`${folder}/${name}`)]));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
