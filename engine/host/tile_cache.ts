/**
 * Keeps which kernels were the fastest on a GPU, from one run to the next: a file in the user's folder of caches.
 *
 * @module
 */
import type { TileStore } from "../../kernels/mod.ts";

/**
 * A file for each key, so that no adapter and no version takes another's place. A run that cannot read or write its file measures again,
 * which costs it two seconds at most.
 */
export const TILE_STORE: TileStore = {
  load: async (key) => {
    try {
      return await Deno.readTextFile(pathOf(key));
    } catch {
      return null; // no such file yet, or no permission: a cache is no condition
    }
  },
  save: async (key, text) => {
    try {
      const path = pathOf(key);
      await Deno.mkdir(path.replace(/[^/\\]*$/, ""), { recursive: true });
      const temporary = `${path}.${crypto.randomUUID().slice(0, 8)}.tmp`;
      await Deno.writeTextFile(temporary, text);
      await Deno.rename(temporary, path); // nobody finds half of it
    } catch {
      // as above
    }
  },
};

/** Keys have an adapter's name in them, with whatever its maker put there. */
function pathOf(key: string): string {
  return `${cacheFolder()}/wgslm/tiles/${key.replace(/[^\w.]+/g, "-").slice(0, 200)}.json`;
}

/** The user's folder of caches, by the system's custom. */
function cacheFolder(): string {
  const env = (name: string) => Deno.env.get(name);
  const home = env("HOME") ?? env("USERPROFILE");
  if (!home) throw new Error("no home"); // and no place for a cache
  if (Deno.build.os === "windows") return env("LOCALAPPDATA") ?? home;
  return Deno.build.os === "darwin"
    ? `${home}/Library/Caches`
    : env("XDG_CACHE_HOME") || `${home}/.cache`;
}
