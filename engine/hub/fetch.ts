/**
 * Model download from the Hugging Face hub, through the cache of Python's huggingface_hub.
 *
 * One request lists the commit and its files with sizes and hashes. If the cache is complete, that
 * is the only request; offline there is none.
 *
 *     listing ──▶ small files ──▶ beforeWeights() ──▶ index ──▶ weights or shards ──▶ ref
 *       │         (4 at a time)   may refuse          if any    (4 at a time)       ▲
 *       └───────▶ headers of a GGUF ──▶ beforeGguf() ──▶ its parts ─────────────────┘
 *                 by ranges             may refuse
 *
 * @module
 */
import { DEFAULTS } from "../defaults.ts";
import { CheckpointError, messageOf } from "../errors.ts";
import { readShardIndex } from "../checkpoint/shards.ts";
import { findHost } from "../host/choose.ts";
import { exists, kindOf, listFolder, openFile } from "../host/files.ts";
import { isPage } from "../host/builtin.ts";
import type { ByteSource } from "../host/mod.ts";
import { HubClient, type HubFile } from "./client.ts";
import { chooseGguf, type HubName, parseHubName } from "./gguf.ts";
import { type HubTimes, TIMES, Unreachable, WrongContent } from "./http.ts";
import type { HubDisk, ModelCache } from "./model_cache.ts";
import { Listing, WEIGHTS } from "./listing.ts";
import { checkNames, isCommit } from "./names.ts";
import type { HubOptions } from "./options.ts";

/** Environment, clock and hooks of a download; tests replace them. */
export interface HubEnvironment extends HubTimes {
  /** An environment variable. */
  readonly env: (name: string) => string | undefined;
  /** Checks a snapshot's small files before the weights are requested; throws to refuse it. */
  readonly beforeWeights: (folder: string) => void | Promise<void>;
  /** Checks the headers of a GGUF's parts before they are downloaded; throws to refuse them. */
  readonly beforeGguf: (parts: readonly ByteSource[]) => void | Promise<void>;
}

const ENVIRONMENT: Omit<HubEnvironment, "env"> = {
  ...TIMES,
  beforeWeights: () => {},
  beforeGguf: () => {},
};

const DEFAULT_ENDPOINT = "https://huggingface.co";

/** Files downloaded at the same time. */
const PARALLEL = 4;

/**
 * Downloads a model's configuration, tokenizer and weights into the cache, and no other file of the
 * repository. Of a repository with GGUF files it downloads the chosen one alone.
 * @param name `owner/name`, only `name` for the oldest repositories, or a GGUF: see `HubName`.
 * @returns the folder of the snapshot: `{cacheDir}/models--{owner}--{name}/snapshots/{commit}`; the
 *   path of the file for a GGUF.
 * @throws {CheckpointError} If the hub refuses or cannot be reached, a file is damaged, or the
 *   cache is incomplete and `offline` is set.
 * @throws {unknown} The signal's reason, if it is aborted.
 */
export async function fetchRepository(
  name: string,
  options: HubOptions = {},
  environment: Partial<HubEnvironment> = {},
): Promise<string> {
  const wanted = parseHubName(name);
  const { repo } = wanted;
  const { revision = DEFAULTS.revision, signal } = options;
  signal?.throwIfAborted();
  checkNames(repo, revision);
  const { env } = await findHost();
  const settings = { ...ENVIRONMENT, env, ...environment };
  // Imported late: a page has other files than a runtime.
  const disk = isPage()
    ? await (await import("./page_disk.ts")).pageDisk(repo, endpointOf(repo, env), options)
    : await localDisk(repo, options, settings);
  const { cache, readToken } = disk;
  try {
    if (options.offline ?? isOn(settings.env("HF_HUB_OFFLINE"))) {
      return await findOffline(cache, wanted, revision);
    }
    const endpoint = endpointOf(repo, settings.env);
    const token = await tokenOf(repo, options, settings.env, readToken);
    const client = new HubClient({ endpoint, token, repo, revision }, settings);
    return await new Fetch(cache, client, options, settings).run(wanted);
  } catch (error) {
    signal?.throwIfAborted();
    if (
      disk.onUnreachable && error instanceof CheckpointError && error.cause instanceof Unreachable
    ) {
      const path = await findOffline(cache, wanted, revision).catch(() => undefined);
      if (path === undefined) throw error;
      disk.onUnreachable(error.cause);
      return path;
    }
    if (!disk.isSystemError(error)) throw error;
    throw new CheckpointError(
      `Cannot open "hf:${repo}": the cache at "${cache.folder}" cannot be used (${
        messageOf(error)
      }); ${disk.advice}`,
    );
  }
}

async function localDisk(
  repo: string,
  options: HubOptions,
  settings: HubEnvironment,
): Promise<HubDisk> {
  const { HubCache, isSystemError, readToken } = await import("./cache.ts");
  const links = !isOn(settings.env("HF_HUB_DISABLE_SYMLINKS"));
  return {
    cache: new HubCache(cacheFolder(options, settings.env), repo, links, settings),
    isSystemError,
    readToken,
    advice: "free space, fix its permissions, or set HF_HUB_CACHE to another folder",
  };
}

/** One download of a repository. */
class Fetch {
  #loaded = 0;
  #total: number | undefined;

  constructor(
    readonly cache: ModelCache,
    readonly client: HubClient,
    readonly options: HubOptions,
    readonly checks: Pick<HubEnvironment, "beforeWeights" | "beforeGguf">,
  ) {}

  async run(wanted: HubName): Promise<string> {
    const { cache, client } = this;
    const { revision } = client.target;
    const listing = new Listing(await client.listing(this.options.signal), client);
    const { commit } = listing;
    const parts = listing.gguf(wanted);
    if (parts) {
      this.#total = await this.#missingBytes(commit, parts);
      if (this.#total > 0) await this.#checkGguf(commit, parts);
      await this.#ensure(commit, parts);
      if (!isCommit(revision)) await cache.writeRef(revision, commit);
      return `${cache.snapshot(commit)}/${parts[0].path}`;
    }
    const small = listing.small();
    const first = listing.weights(); // throws if there are none
    const isIndex = first.path.endsWith(".json");
    if (!isIndex) {
      const missing = await this.#missing(commit, [...small, first]);
      await cache.expectRoom?.(commit, missing);
      this.#total = bytesOf(missing);
    }
    // Small files first: a cache with weights then always has them too.
    await this.#ensure(commit, small);
    await this.checks.beforeWeights(cache.snapshot(commit));
    const weights = await this.#weights(listing, first);
    this.#total ??= this.#loaded + await this.#missingBytes(commit, weights);
    await this.#ensure(commit, weights);
    if (!isCommit(revision)) await cache.writeRef(revision, commit);
    return cache.snapshot(commit);
  }

  /** Reads the headers: an unknown architecture or type costs no download. */
  async #checkGguf(commit: string, parts: readonly HubFile[]): Promise<void> {
    const { cache, client, options: { signal }, checks } = this;
    using opened = new DisposableStack();
    const sources: ByteSource[] = [];
    for (const part of parts) {
      const source = await cache.has(commit, part)
        ? await openFile(`${cache.snapshot(commit)}/${part.path}`)
        : client.open(part, commit, signal);
      sources.push(opened.use(source));
    }
    await checks.beforeGguf(sources);
  }

  /** The weight files. An index is fetched at once: the total is unknown before. */
  async #weights(listing: Listing, file: HubFile): Promise<HubFile[]> {
    if (!file.path.endsWith(".json")) return [file];
    await this.#ensure(listing.commit, [file]);
    const files = await shardsOf(`${this.cache.snapshot(listing.commit)}/${file.path}`);
    return [file, ...files.map((name) => listing.shard(name, file.path))];
  }

  async #missing(commit: string, files: readonly HubFile[]): Promise<HubFile[]> {
    const missing: HubFile[] = [];
    for (const file of files) if (!await this.cache.has(commit, file)) missing.push(file);
    return missing;
  }

  async #missingBytes(commit: string, files: readonly HubFile[]): Promise<number> {
    return bytesOf(await this.#missing(commit, files));
  }

  /** Downloads the missing files, `PARALLEL` at a time. The first failure stops the others. */
  async #ensure(commit: string, files: readonly HubFile[]): Promise<void> {
    const { signal: caller } = this.options;
    const stop = new AbortController();
    const signal = caller ? AbortSignal.any([caller, stop.signal]) : stop.signal;
    const missing = await this.#missing(commit, files);
    await this.cache.expectRoom?.(commit, missing);
    const queue = missing.values();
    const failures: unknown[] = [];
    const work = async () => {
      for (const file of queue) {
        if (signal.aborted) return;
        try {
          await this.#ensureFile(commit, file, signal);
        } catch (error) {
          failures.push(error);
          stop.abort();
        }
      }
    };
    await Promise.all(Array.from({ length: PARALLEL }, work));
    if (failures.length) throw failures[0];
    caller?.throwIfAborted(); // if it aborted between two files
  }

  async #ensureFile(commit: string, file: HubFile, signal: AbortSignal): Promise<void> {
    const { cache, client, options } = this;
    const onBytes = (count: number) => {
      this.#loaded += count;
      const total = this.#total === undefined ? {} : { total: this.#total };
      options.onProgress?.({
        stage: "download",
        file: file.path,
        loaded: this.#loaded,
        ...total,
      });
    };
    try {
      await cache.ensure(
        commit,
        file,
        (partial) => client.download(file, commit, partial, signal),
        onBytes,
        signal,
      );
    } catch (error) {
      if (!(error instanceof WrongContent)) throw error;
      throw client.fail(
        `"${file.path}" arrived damaged twice: ${error.message}; ` +
          "the damaged copy was deleted, try again",
      );
    }
  }
}

function bytesOf(files: readonly HubFile[]): number {
  return files.reduce((sum, { size }) => sum + size, 0);
}

/** Names of the shards in an index on disk. */
async function shardsOf(path: string): Promise<readonly string[]> {
  using index = await openFile(path);
  return (await readShardIndex(index)).files;
}

/**
 * The snapshot in the cache, or the path of a GGUF in it.
 * @throws {CheckpointError} If a file of the model is missing.
 */
async function findOffline(cache: ModelCache, wanted: HubName, revision: string): Promise<string> {
  const { repo, tag, file } = wanted;
  const commit = isCommit(revision) ? revision : await cache.readRef(revision);
  const flag = revision === "main" ? "" : ` --repo-revision ${revision}`;
  const model = `hf:${repo}${tag === undefined ? "" : `:${tag}`}${file ? `/${file}` : ""}`;
  const absent = (missing: string): never => {
    throw new CheckpointError(
      `Cannot open "hf:${repo}": ${missing} is not in the cache at "${cache.folder}"; ` +
        (isPage()
          ? "load it with a connection"
          : `fetch it without HF_HUB_OFFLINE: deno run -A cli.ts inspect ${model}${flag}`),
    );
  };
  if (commit === undefined) return absent(`revision "${revision}"`);
  const folder = cache.snapshot(commit);
  const missing = await findMissing(folder);
  const isNamed = tag !== undefined || file !== undefined;
  if (missing === undefined && !isNamed) return folder;
  const gguf = chooseGguf(
    await exists(folder) ? await ggufsIn(folder) : [],
    wanted,
    () => absent(file ?? tag ?? "one GGUF"),
  )?.[0];
  return gguf === undefined ? absent(missing!) : `${folder}/${gguf}`;
}

/** Paths of the GGUF files in a snapshot and its folders. */
async function ggufsIn(snapshot: string, below = ""): Promise<string[]> {
  const paths: string[] = [];
  for (const name of (await listFolder(`${snapshot}/${below}`)).sort()) {
    const path = below + name;
    const kind = await kindOf(`${snapshot}/${path}`); // null for a link without its blob
    if (kind === "file") paths.push(path);
    else if (kind && !below) paths.push(...await ggufsIn(snapshot, `${path}/`));
  }
  return paths;
}

/** Name of the first missing file of a snapshot, by the rules of a download. */
async function findMissing(folder: string): Promise<string | undefined> {
  const has = (name: string) => exists(`${folder}/${name}`);
  if (!await has("config.json")) return "config.json";
  for (const name of WEIGHTS) {
    if (!await has(name)) continue;
    if (!name.endsWith(".json")) return undefined;
    for (const file of await shardsOf(`${folder}/${name}`)) {
      if (!await has(file)) return file;
    }
    return undefined;
  }
  return WEIGHTS[0];
}

function isOn(value: string | undefined): boolean {
  return /^(1|true|yes|on)$/i.test(value ?? "");
}

/** Expands `~`, `$NAME` and `${NAME}` in a path, as Python does. */
function pathOf(value: string, env: HubEnvironment["env"]): string {
  const home = env("HOME") || env("USERPROFILE");
  if (!home && /^~([/\\]|$)/.test(value)) {
    throw new CheckpointError(
      `Cannot open "${value}": expected a home folder, got none; set HF_HOME or HOME`,
    );
  }
  return value.replace(/^~(?=[/\\]|$)/, home ?? "")
    .replace(/\$(?:(\w+)|\{(\w+)\})/g, (all, plain, braced) => env(plain ?? braced) ?? all);
}

/** The folder that holds Python's hub cache and token. */
function hubHome(env: HubEnvironment["env"]): string {
  const home = env("HF_HOME") || `${env("XDG_CACHE_HOME") || "~/.cache"}/huggingface`;
  return pathOf(home, env);
}

function cacheFolder({ cacheDir }: HubOptions, env: HubEnvironment["env"]): string {
  const named = env("HF_HUB_CACHE");
  const folder = cacheDir || (named ? pathOf(named, env) : `${hubHome(env)}/hub`);
  return folder.replace(/(?<=[^/\\])[/\\]+$/, "");
}

function endpointOf(repo: string, env: HubEnvironment["env"]): string {
  const endpoint = (env("HF_ENDPOINT") || DEFAULT_ENDPOINT).trim().replace(/\/+$/, "");
  const url = URL.parse(endpoint);
  const isPlain = url && !url.username && !url.password && !/[?#]/.test(endpoint);
  if (isPlain && (url.protocol === "https:" || url.protocol === "http:")) return endpoint;
  throw new CheckpointError(
    `Cannot open "hf:${repo}": expected HF_ENDPOINT to be an http or https URL ` +
      "without a user, a query or a fragment",
  );
}

async function tokenOf(
  repo: string,
  { token: given }: HubOptions,
  env: HubEnvironment["env"],
  readToken: (path: string) => Promise<string>,
): Promise<string | undefined> {
  const fail = (expected: string): never => {
    throw new CheckpointError(`Cannot open "hf:${repo}": ${expected}`);
  };
  let token = (given ?? env("HF_TOKEN"))?.trim() ?? "";
  // Without a home there is no file with a token either.
  const hasFile = ["HF_TOKEN_PATH", "HF_HOME", "XDG_CACHE_HOME", "HOME", "USERPROFILE"].some(env);
  if (!token && given === undefined && hasFile) {
    const named = env("HF_TOKEN_PATH");
    const path = named ? pathOf(named, env) : `${hubHome(env)}/token`;
    try {
      token = await readToken(path);
    } catch (error) {
      return fail(`the token at "${path}" cannot be read (${messageOf(error)}); set HF_TOKEN`);
    }
  }
  // A header cannot hold other characters, and the error of fetch() would print the token.
  if (!/^[\x21-\x7e]*$/.test(token)) {
    return fail("the token has characters that no token has; set HF_TOKEN to the token only");
  }
  return token || undefined;
}
