/**
 * Keeps which kernels were the fastest on a GPU, from one run to the next: a file in the user's folder of caches.
 *
 * @module
 */
import type { TileStore } from "../kernels/mod.ts";

/** The file of choices; a run that cannot read or write it measures again, which costs it two seconds at most. */
export const TILE_STORE: TileStore = {
  load: () => withPath((path) => Deno.readTextFile(path)),
  save: async (text) => {
    await withPath(async (path) => {
      await Deno.mkdir(path.replace(/[^/\\]*$/, ""), { recursive: true });
      const temporary = `${path}.${crypto.randomUUID().slice(0, 8)}.tmp`;
      await Deno.writeTextFile(temporary, text);
      await Deno.rename(temporary, path); // nobody finds half of it
      return text;
    });
  },
};

async function withPath(use: (path: string) => Promise<string>): Promise<string | null> {
  try {
    return await use(`${cacheFolder()}/wgslm/tiles.json`);
  } catch {
    return null; // no such file yet, or no permission: a cache is no condition
  }
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
