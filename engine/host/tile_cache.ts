/**
 * Cache of a GPU's fastest matmul tiles between runs: files in the user's cache folder.
 *
 * @module
 */
import type { TileStore } from "../../kernels/mod.ts";
import { runtime } from "./runtime.ts";

/**
 * One file per key, which is an adapter and a version. A run that cannot read or write its file
 * measures the tiles again, which takes at most two seconds.
 */
export const TILE_STORE: TileStore = {
  load: async (key) => {
    try {
      return await runtime.readTextFile(pathOf(key));
    } catch {
      return null; // no such file yet, or no permission: the cache is optional
    }
  },
  save: async (key, text) => {
    try {
      const path = pathOf(key);
      await runtime.mkdir(path.replace(/[^/\\]*$/, ""), { recursive: true });
      const temporary = `${path}.${crypto.randomUUID().slice(0, 8)}.tmp`;
      await runtime.writeTextFile(temporary, text);
      await runtime.rename(temporary, path); // no process reads half a file
    } catch {
      // The cache is optional.
    }
  },
};

/** The file of a key. An adapter's name may contain any characters, so they are replaced. */
function pathOf(key: string): string {
  return `${cacheFolder()}/wgslm/tiles/${key.replace(/[^\w.]+/g, "-").slice(0, 200)}.json`;
}

/** The user's cache folder, by the system's convention. */
export function cacheFolder(): string {
  const env = (name: string) => runtime.env.get(name);
  const home = env("HOME") ?? env("USERPROFILE");
  if (!home) throw new Error("no home"); // without a home there is no cache
  if (runtime.build.os === "windows") return env("LOCALAPPDATA") ?? home;
  return runtime.build.os === "darwin"
    ? `${home}/Library/Caches`
    : env("XDG_CACHE_HOME") || `${home}/.cache`;
}
