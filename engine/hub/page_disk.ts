/**
 * Files of a download in a page: its storage, or none where each load reads them anew.
 *
 * @module
 */
import { mount, pageNotes } from "../host/page.ts";
import { opfsDenied } from "../host/opfs.ts";
import type { HubFile } from "./client.ts";
import type { HubOptions } from "./options.ts";
import type { HubDisk, ModelCache } from "./model_cache.ts";
import { PageCache } from "./page_cache.ts";
import { UrlClient } from "./url_client.ts";
import { UrlFiles } from "./url_files.ts";

/** Options of `loadModel` that concern files in a page. */
type PageOptions = Pick<HubOptions, "cache" | "offline" | "onProgress" | "signal" | "token">;

/** Whether files are kept; if they cannot be, a note says so. */
async function isCached({ cache = "opfs" }: PageOptions): Promise<boolean> {
  if (cache === false) return false;
  const denied = await opfsDenied();
  if (denied !== undefined) pageNotes.push(`Files are not kept for the next load: ${denied}.`);
  return denied === undefined;
}

/** The disk of a repository. */
export async function pageDisk(
  repo: string,
  endpoint: string,
  options: PageOptions,
): Promise<HubDisk> {
  const onUnreachable = ({ message }: Error) =>
    void pageNotes.push(`Loaded from the cache: ${message}.`);
  const isKept = await isCached(options);
  if (!isKept) {
    const { token, signal } = options;
    const client = new UrlClient(`${endpoint}/${repo}`, "", token);
    mount(`${endpoint}/`, new UrlFiles(client, { isCached: false, signal }));
  }
  return {
    cache: isKept ? new PageCache(repo) : new RemoteSnapshots(repo, endpoint),
    isSystemError: (error) => error instanceof DOMException,
    readToken: () => Promise.resolve(""),
    advice: "free space, or load it with cache: false",
    ...isKept && { onUnreachable },
  };
}

/** Commits of branches seen by this worker, by repository and branch. */
const refs = new Map<string, string>();

/** A repository whose files are read at the hub, by ranges. */
class RemoteSnapshots implements ModelCache {
  readonly folder: string;

  constructor(readonly repo: string, readonly endpoint: string) {
    this.folder = `${endpoint}/${repo}`;
  }

  snapshot(commit: string): string {
    return `${this.folder}/resolve/${commit}`;
  }

  readRef(revision: string): Promise<string | undefined> {
    return Promise.resolve(refs.get(`${this.repo}@${revision}`));
  }

  writeRef(revision: string, commit: string): Promise<void> {
    refs.set(`${this.repo}@${revision}`, commit);
    return Promise.resolve();
  }

  has(_commit: string, _file: HubFile): Promise<boolean> {
    return Promise.resolve(true);
  }

  ensure(): Promise<void> {
    return Promise.resolve();
  }
}

/**
 * Makes the files around a URL readable.
 * @param url address of a folder or a file; its query is added to every request.
 * @returns the files, and the path of the source.
 */
export async function mountUrl(
  url: URL,
  options: PageOptions,
): Promise<{ readonly path: string; readonly files: UrlFiles }> {
  const path = url.origin + url.pathname;
  const { offline, onProgress, signal } = options;
  const files = new UrlFiles(new UrlClient(path, url.search, options.token), {
    isCached: await isCached(options),
    offline,
    signal,
    onProgress,
    onNote: (note) => void pageNotes.push(note),
  });
  for (const scheme of ["http://", "https://"]) mount(scheme, files);
  return { path, files };
}
