/** Where a user's caches lie, by one system's custom or another's. */
const PLACES = ["HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"];

/** Mesa would put its own cache there, and complain when the folder is gone. */
const MESA = "MESA_SHADER_CACHE_DISABLE";

/** A folder of caches of the test's own, while it is in use. */
export class CacheFolder implements AsyncDisposable {
  readonly #before = [...PLACES, MESA].map((name) => [name, Deno.env.get(name)] as const);

  private constructor(readonly path: string) {
    this.move(path);
    Deno.env.set(MESA, "true");
  }

  static async make(): Promise<CacheFolder> {
    return new CacheFolder(await Deno.makeTempDir());
  }

  /** Another place, which need be no folder. */
  move(path: string): void {
    for (const name of PLACES) Deno.env.set(name, path);
  }

  /** The files that the tuner left, with their whole path. */
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
