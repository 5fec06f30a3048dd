/**
 * Bundles of the library by esbuild: for pages, and for Node and Bun.
 *
 *     mod.ts, kernels/mod.ts ──▶ mod.js, kernels.js ──▶ chunk-….js   GPT-2's ranks, when used
 *     kernels/wasm/worker.ts ──▶ worker.js                           started as a thread
 *     engine/page/worker.ts  ──▶ engine.js                           runs the model of a page
 *
 * All files are in one folder, so that `new URL("./worker.js", import.meta.url)` holds in each.
 *
 * @module
 */
// deno-lint-ignore no-import-prefix -- an entry in deno.json would make every user download it
import { build, type Plugin, stop } from "npm:esbuild@0.28.2";

const ROOT = new URL("../", import.meta.url);

/** Platform of a bundle. */
export type Platform = "browser" | "node";

/** Options of `bundle`. */
export interface BundleOptions {
  /** Source of each file of the bundle, from the root of the project, by name without `.js`. */
  readonly entries: Readonly<Record<string, string>>;
  /** Folder that the files are written to. */
  readonly folder: string;
  readonly platform: Platform;
  /** Whether to shorten names and remove blanks; for pages. */
  readonly minify?: boolean;
}

/** Entries of the library for pages. */
export const LIBRARY: Readonly<Record<string, string>> = {
  mod: "mod.ts",
  kernels: "kernels/mod.ts",
  worker: "kernels/wasm/worker.ts",
  engine: "engine/page/worker.ts",
};

/** Entries of the library and the program for Node and Bun. */
export const NODE_LIBRARY: Readonly<Record<string, string>> = {
  mod: "mod.ts",
  kernels: "kernels/mod.ts",
  worker: "build/node/worker.ts",
  bin: "build/node/bin.ts",
};

/** URLs of workers in sources, and their files in a bundle. */
const WORKERS: readonly (readonly [source: RegExp, url: string, file: string])[] = [
  [/[/\\]kernels[/\\]host\.ts$/, "./wasm/worker.ts", "./worker.js"],
  [/[/\\]engine[/\\]page[/\\]link\.ts$/, "./worker.ts", "./engine.js"],
];

/** Oldest runtimes of a bundle: `using` is lowered for them. */
const TARGETS: Readonly<Record<Platform, string[]>> = {
  browser: ["chrome111", "firefox115", "safari17"],
  node: ["node22"],
};

/** Modules whose exports take the place of globals. */
const INJECTED: Readonly<Record<Platform, string[]>> = {
  browser: ["build/globals.ts"],
  node: ["build/globals.ts", "build/node/globals.ts"],
};

/**
 * A file of a bundle, with the files that it loads at once. The files that it loads later, when
 * they are used, are not among them.
 */
export interface BundledFile {
  readonly name: string;
  readonly imports: readonly string[];
}

/**
 * Writes a bundle.
 * @returns the written files.
 * @throws {Error} If a source cannot be bundled.
 */
export async function bundle(
  { entries, folder, platform, minify = false }: BundleOptions,
): Promise<BundledFile[]> {
  const { metafile } = await build({
    absWorkingDir: pathOf(ROOT),
    entryPoints: Object.entries(entries).map(([out, path]) => ({ in: path, out })),
    outdir: folder,
    bundle: true,
    splitting: true,
    format: "esm",
    platform,
    target: TARGETS[platform],
    chunkNames: "chunk-[hash]",
    inject: INJECTED[platform],
    minify,
    charset: "utf8",
    legalComments: "none",
    metafile: true,
    logLevel: "silent", // errors are thrown
    define: { "import.meta.main": "false" },
    plugins: [...platform === "node" ? [NODE_PLATFORM] : [WORKER_URL, WITHOUT_RUNTIME], PACKAGES],
  });
  await stop();
  return Object.entries(metafile.outputs).map(([path, { imports }]) => ({
    name: nameOf(path),
    imports: imports.filter(({ kind }) => kind === "import-statement")
      .map((file) => nameOf(file.path)),
  }));
}

/** Names of a file and of all that it loads at once. */
export function loadedWith(name: string, files: readonly BundledFile[]): string[] {
  const byName = new Map(files.map((file) => [file.name, file]));
  const loaded = new Set([name]);
  for (const file of loaded) byName.get(file)?.imports.forEach((other) => loaded.add(other));
  return [...loaded];
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

function pathOf(url: URL): string {
  return decodeURIComponent(url.pathname).replace(/^\/([A-Za-z]:)/, "$1");
}

/** The workers' files beside the bundle. esbuild does not follow their URLs. */
const WORKER_URL: Plugin = {
  name: "worker URL",
  setup({ onLoad }) {
    for (const [filter, url, file] of WORKERS) {
      onLoad({ filter }, async ({ path }) => {
        const source = await Deno.readTextFile(path);
        const contents = source.replace(JSON.stringify(url), JSON.stringify(file));
        if (contents === source) throw new Error(`Cannot bundle "${path}": expected "${url}"`);
        return { contents, loader: "ts" };
      });
    }
  },
};

/** Files of the engine for a runtime with files, which a page never loads. */
const RUNTIME = /[/\\]engine[/\\](host[/\\](system|runtime)|hub[/\\]cache)\.ts$/;

/** A page's engine names no built-in module, and has no file for another runtime. */
const WITHOUT_RUNTIME: Plugin = {
  name: "without a runtime",
  setup({ onLoad }) {
    onLoad({ filter: RUNTIME }, () => ({ contents: "export {};", loader: "ts" }));
    onLoad({ filter: /[/\\]engine[/\\]host[/\\]\w+\.ts$/ }, async ({ path }) => {
      const source = await Deno.readTextFile(path);
      return { contents: source.replace(/\bbuiltin\("node:\w+"\)/g, "undefined"), loader: "ts" };
    });
  },
};

/** Threads and GPU of Node and Bun, in place of those of a page. */
const NODE_PLATFORM: Plugin = {
  name: "platform of Node",
  setup({ onLoad }) {
    onLoad({ filter: /[/\\]kernels[/\\]host\.ts$/ }, () => ({
      contents: 'export { WEB_HOST } from "./compute.ts";',
      resolveDir: pathOf(new URL("build/node/", ROOT)),
    }));
  },
};

/** Packages, from Deno's cache, in the versions of `deno.json`. */
const PACKAGES: Plugin = {
  name: "packages",
  setup({ onResolve }) {
    onResolve({ filter: /^[@a-z][^:]*$/ }, async ({ path, kind }) => {
      if (kind === "entry-point") return;
      await import(path); // Deno downloads it now
      return { path: pathOf(new URL(import.meta.resolve(path))) };
    });
  },
};
