/**
 * Texts of the library's bundle for pages.
 *
 * @module
 */
import { bundle, LIBRARY } from "../../../build/bundle.ts";
import { inTempFolder } from "../../safetensors.ts";

let texts: Promise<ReadonlyMap<string, string>> | undefined;

/** Texts of the bundle, by file name; dynamic imports are separate files. Made once. */
export function bundleLibrary(): Promise<ReadonlyMap<string, string>> {
  return texts ??= inTempFolder(async (folder) => {
    const files = await bundle({ entries: LIBRARY, folder, platform: "browser" });
    return new Map(files.map(({ name }) => [name, Deno.readTextFileSync(`${folder}/${name}`)]));
  });
}
