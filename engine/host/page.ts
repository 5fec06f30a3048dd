/**
 * Host for pages: URLs, files that the visitor chose, files of the page's origin.
 *
 *     https://host/folder/config.json    a server, by the mount that the load has made
 *     files:/config.json                 a list of files, or a folder, that the visitor chose
 *     opfs:/wgslm/…                      the page's storage
 *
 * @module
 */
import { WEB_HOST } from "../../kernels/host.ts";
import { CheckpointError } from "../errors.ts";
import type { ByteSource, Host, PathKind, Platform } from "./mod.ts";
import { kindOfOpfs, listNames, openOpfs, OPFS, readText, writeText } from "./opfs.ts";

/** Files below a prefix of paths. */
export interface Mount {
  open(path: string): Promise<ByteSource>;
  kindOf(path: string): Promise<PathKind>;
  /** Names in a folder; a server has no list, so that it gives none. */
  list?(folder: string): Promise<string[]>;
}

/** Sentences for the notes of the model that this worker loads. */
export const pageNotes: string[] = [];

const OPFS_MOUNT: Mount = { open: openOpfs, kindOf: kindOfOpfs, list: listNames };

const mounts = new Map<string, Mount>([[OPFS, OPFS_MOUNT]]);

/** Adds files to the paths of this worker; the longest prefix of a path counts. */
export function mount(prefix: string, files: Mount): void {
  mounts.set(prefix, files);
}

function mountOf(path: string): Mount {
  const prefixes = [...mounts.keys()].filter((prefix) => path.startsWith(prefix));
  const longest = prefixes.sort((a, b) => b.length - a.length)[0];
  if (longest !== undefined) return mounts.get(longest)!;
  throw new CheckpointError(
    `Cannot open "${path}": expected a URL, hf:owner/name, or files that were chosen`,
  );
}

/** Cache of fastest tiles, for each adapter; without storage they are measured by each load. */
const TILES: Host["tiles"] = {
  load: async (key) => await readText(tilePath(key)).catch(() => undefined) ?? null,
  save: (key, text) => writeText(tilePath(key), text).catch(() => {}),
};

function tilePath(key: string): string {
  return `${OPFS}wgslm/tiles/${key.replace(/[^\w.]+/g, "-").slice(0, 200)}.json`;
}

async function platform(): Promise<Platform> {
  const { userAgent, userAgentData } = globalThis.navigator;
  const facts = await userAgentData?.getHighEntropyValues(
    ["platform", "platformVersion", "architecture", "bitness"],
  );
  const { brand, version } = userAgentData?.brands.find(({ brand }) => !/Not/.test(brand)) ?? {};
  const { architecture: cpu, bitness } = facts ?? {};
  return {
    os: facts ? `${facts.platform} ${facts.platformVersion}`.trim() : userAgent,
    cpu: cpu ? `${cpu} ${bitness} bit` : "unknown processor",
    versions: {
      deno: null,
      v8: null,
      typescript: null,
      browser: brand ? `${brand} ${version}` : userAgent,
    },
    commit: null,
    v8Flags: null,
  };
}

/** The host for pages. */
export const PAGE_HOST: Host = {
  open: (path) => mountOf(path).open(path),
  kindOf: (path) => mountOf(path).kindOf(path),
  list: async (folder) => await mountOf(folder).list?.(folder) ?? [],
  env: () => undefined,
  tiles: TILES,
  totalMemory: () => Infinity,
  platform,
  activity: () => ({ loadAverage: null, cpuMhz: null, cpu: null, stolenMs: null, ownMs: null }),
  compute: WEB_HOST,
};
