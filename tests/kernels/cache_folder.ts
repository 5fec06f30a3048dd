/** Environment variables that locate a user's caches on some system. */
const PLACES = ["HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"];

/** Mesa would put its cache there, and complain once the folder is removed. */
const MESA = "MESA_SHADER_CACHE_DISABLE";

/** A cache folder of the test, while in use. */
export class CacheFolder implements AsyncDisposable {
  readonly #before = [...PLACES, MESA].map((name) => [name, Deno.env.get(name)] as const);

  private constructor(readonly path: string) {
    this.move(path);
    Deno.env.set(MESA, "true");
  }

  static async make(): Promise<CacheFolder> {
    return new CacheFolder(await Deno.makeTempDir());
  }

  /** Another place, not necessarily a folder. */
  move(path: string): void {
    for (const name of PLACES) Deno.env.set(name, path);
  }

  /** Full paths of the tuner's files. */
  async tiles(): Promise<string[]> {
    for (const place of [`${this.path}/wgslm/tiles`, `${this.path}/Library/Caches/wgslm/tiles`]) {
      const files = Array.fromAsync(Deno.readDir(place), ({ name }) => `${place}/${name}`);
      const found = await files.catch(() => []);
      if (found.length) return found;
    }
    return [];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const [name, value] of this.#before) {
      if (value === undefined) Deno.env.delete(name);
      else Deno.env.set(name, value);
    }
    await Deno.remove(this.path, { recursive: true });
  }
}
