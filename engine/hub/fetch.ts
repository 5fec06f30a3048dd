/**
 * Models from the Hugging Face hub, through the cache that Python's huggingface_hub uses too.
 *
 * One request lists the commit, the files, their sizes and hashes. A complete cache costs that one
 * request; offline there is none.
 *
 * @module
 */
import { DEFAULTS } from "../defaults.ts";
import { CheckpointError, messageOf } from "../errors.ts";
import { readShardIndex } from "../checkpoint/shards.ts";
import { hostFor } from "../host/choose.ts";
import { exists, openFile } from "../host/files.ts";
import { isRecord } from "../json.ts";
import type { HubCache } from "./cache.ts";
import { HubClient, type HubFile, type HubTimes, pause, WrongContent } from "./client.ts";
import { checkNames, isCommit, isSafePath } from "./names.ts";

/** How a repository is fetched. */
export interface HubOptions {
  /** Branch, tag or commit; default "main". */
  readonly revision?: string;
  /**
   * Default `HF_TOKEN`, else the file `HF_TOKEN_PATH`, else the file `token` in `HF_HOME`; "" is
   * none.
   */
  readonly token?: string;
  /** Default `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else in `~/.cache/huggingface`. */
  readonly cacheDir?: string;
  /** Uses the cache and makes no network requests; default `HF_HUB_OFFLINE`. */
  readonly offline?: boolean;
  /** Called as bytes arrive. A total counts all files to fetch, and comes once those are known. */
  readonly onProgress?: (progress: HubProgress) => void;
  /** Stops the download; partial files are kept. */
  readonly signal?: AbortSignal;
}

/** Progress of a download. */
export interface HubProgress {
  /** Always this. */
  readonly stage: "download";
  /** The file that the new bytes belong to. */
  readonly file?: string;
  /** Bytes of all files so far. */
  readonly loaded: number;
  /** Bytes in all. */
  readonly total?: number;
}

/** Environment, clock and hooks of a fetch; tests replace them. */
export interface HubEnvironment extends HubTimes {
  /** An environment variable. */
  readonly env: (name: string) => string | undefined;
  /** Checks the small files of a snapshot before the weights are requested; it may refuse. */
  readonly beforeWeights: (folder: string) => void | Promise<void>;
}

const ENVIRONMENT: Omit<HubEnvironment, "env"> = {
  beforeWeights: () => {},
  retryMs: 500,
  maxWaitMs: 120_000,
  stallMs: 30_000,
  pollMs: 100,
  pause,
};

const DEFAULT_ENDPOINT = "https://huggingface.co";

/** Files that are fetched beside the weights, if a repository has them. */
const SMALL_FILES = [
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
  "meta.json",
];

/**
 * The older forms of a tokenizer.json. The last is not read, but a message names it: such a
 * repository has a tokenizer.
 */
const OLD_TOKENIZER = ["vocab.json", "merges.txt", "tokenizer.model"];

/**
 * Files of weights in order of preference: the safe format before pickles, one file before shards.
 */
export const WEIGHTS: readonly string[] = [
  "model.safetensors",
  "model.safetensors.index.json",
  "pytorch_model.bin",
  "pytorch_model.bin.index.json",
];

/** Endings of files of weights, unsupported ones among them. */
const ENDINGS = /\.(safetensors|bin|pt|pth|ckpt|gguf|onnx|h5|msgpack|npz|tflite)$/i;

/** Number of files that are fetched at once. */
const PARALLEL = 4;

/**
 * Loads the files of a model into the cache: its configuration, tokenizer and weights, and no other
 * file of the repository.
 * @param repo `owner/name`, or `name` alone for the oldest ones.
 * @returns the folder of the snapshot: `{cacheDir}/models--{owner}--{name}/snapshots/{commit}`.
 * @throws {CheckpointError} If the hub refuses or cannot be reached, a file is damaged, or the
 *   cache is incomplete and `offline` is set.
 * @throws the signal's reason, if it is aborted.
 */
export async function fetchRepository(
  repo: string,
  options: HubOptions = {},
  environment: Partial<HubEnvironment> = {},
): Promise<string> {
  const { revision = DEFAULTS.revision, signal } = options;
  signal?.throwIfAborted();
  checkNames(repo, revision);
  const { env } = await hostFor(`open "hf:${repo}"`);
  // The cache uses the runtime's files, so it is imported only where there is a host.
  const { HubCache, isSystemError, readToken } = await import("./cache.ts");
  const around = { ...ENVIRONMENT, env, ...environment };
  const folder = cacheFolder(options, around.env);
  const links = !isOn(around.env("HF_HUB_DISABLE_SYMLINKS"));
  const cache = new HubCache(folder, repo, links, around);
  try {
    if (options.offline ?? isOn(around.env("HF_HUB_OFFLINE"))) {
      return await findOffline(cache, repo, revision);
    }
    const endpoint = endpointOf(repo, around.env);
    const token = await tokenOf(repo, options, around.env, readToken);
    const client = new HubClient({ endpoint, token, repo, revision }, around);
    return await new Fetch(cache, client, options, around.beforeWeights).run();
  } catch (error) {
    signal?.throwIfAborted();
    if (!isSystemError(error)) throw error;
    throw new CheckpointError(
      `Cannot open "hf:${repo}": the cache at "${folder}" cannot be used (${
        messageOf(error)
      }); make room or get access, or set HF_HUB_CACHE to another folder`,
    );
  }
}

/** One fetch of a repository, by the network. */
class Fetch {
  #loaded = 0;
  #total: number | undefined;

  constructor(
    readonly cache: HubCache,
    readonly client: HubClient,
    readonly options: HubOptions,
    readonly beforeWeights: HubEnvironment["beforeWeights"],
  ) {}

  async run(): Promise<string> {
    const { cache, client } = this;
    const { revision } = client.target;
    const listing = new Listing(await client.listing(this.options.signal), client);
    const { commit } = listing;
    const small = listing.small();
    const known = listing.weights(); // refuses a repository without any
    const whole = known.path.endsWith(".json") ? undefined : [...small, known];
    if (whole) this.#total = await this.#missingBytes(commit, whole);
    // The small files first: a cache that has the weights has them too.
    await this.#ensure(commit, small);
    await this.beforeWeights(cache.snapshot(commit));
    const weights = await this.#weights(listing, known);
    this.#total ??= this.#loaded + await this.#missingBytes(commit, weights);
    await this.#ensure(commit, weights);
    if (!isCommit(revision)) await cache.writeRef(revision, commit);
    return cache.snapshot(commit);
  }

  /** The files of the weights. An index is fetched first: before that the total is not known. */
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
    return (await this.#missing(commit, files)).reduce((sum, { size }) => sum + size, 0);
  }

  /** Loads the files that are missing, a few at a time. The first that fails stops the others. */
  async #ensure(commit: string, files: readonly HubFile[]): Promise<void> {
    const { signal: caller } = this.options;
    const stop = new AbortController();
    const signal = caller ? AbortSignal.any([caller, stop.signal]) : stop.signal;
    const queue = (await this.#missing(commit, files)).values();
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
    caller?.throwIfAborted(); // before any file was begun
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
        `"${file.path}" came damaged twice: ${error.message}; ` +
          "what was wrong is not kept, try again",
      );
    }
  }
}

/** The hub's listing of a revision, and which of its files are needed. Every field is checked. */
class Listing {
  readonly commit: string;
  readonly #files = new Map<string, Record<string, unknown>>();

  constructor({ sha, siblings }: Record<string, unknown>, readonly client: HubClient) {
    const { endpoint, revision } = client.target;
    if (typeof sha !== "string" || !isCommit(sha)) {
      throw client.fail(`expected a commit of 40 hexadecimal digits from ${endpoint}`);
    }
    if (isCommit(revision) && sha !== revision) {
      throw client.fail(`expected commit ${revision} from ${endpoint}, got ${sha}`);
    }
    this.commit = sha;
    for (const file of Array.isArray(siblings) ? siblings : []) {
      if (isRecord(file) && typeof file.rfilename === "string") {
        this.#files.set(file.rfilename, file);
      }
    }
  }

  /** The files that are needed beside the weights. */
  small(): HubFile[] {
    if (!this.#files.has("config.json")) {
      throw this.client.fail("it has no config.json, which tells what the model is");
    }
    const old = this.#files.has("tokenizer.json") ? [] : OLD_TOKENIZER;
    return [...SMALL_FILES, ...old].filter((name) => this.#files.has(name))
      .map((name) => this.file(name));
  }

  /** The weights, or their index. */
  weights(): HubFile {
    const name = WEIGHTS.find((name) => this.#files.has(name));
    if (name !== undefined) return this.file(name);
    const others = [...this.#files.keys()].filter((name) => ENDINGS.test(name));
    const shown = others.slice(0, 8).map((name) => name.slice(0, 100)).join(", ");
    const rest = others.length > 8 ? ` and ${others.length - 8} more` : "";
    throw this.client.fail(
      `expected a model.safetensors, its index, or a pytorch_model.bin, got ${
        others.length ? `no weights but ${shown}${rest}` : "no weights at all"
      }`,
    );
  }

  /** A file that an index names. */
  shard(name: string, index: string): HubFile {
    if (this.#files.has(name)) return this.file(name);
    throw this.client.fail(
      `${index} names ${JSON.stringify(name)}, which is not in the repository`,
    );
  }

  /** A file with its size and hash. */
  file(path: string): HubFile {
    const { lfs, size, blobId } = this.#files.get(path) ?? {};
    const large = isRecord(lfs);
    const etag = large ? lfs.sha256 : blobId;
    const bytes = large ? lfs.size ?? size : size;
    const isHash = typeof etag === "string" &&
      (large ? /^[0-9a-f]{64}$/ : /^[0-9a-f]{40}$/).test(etag);
    if (isSafePath(path) && isHash && Number.isSafeInteger(bytes) && Number(bytes) >= 0) {
      return { path, size: Number(bytes), etag };
    }
    throw this.client.fail(
      `expected a plain name, a size and a hash of ${
        JSON.stringify(path)
      } from ${this.client.target.endpoint}`,
    );
  }
}

/** Names of the files that an index of weights on disk leads to. */
async function shardsOf(path: string): Promise<readonly string[]> {
  using index = await openFile(path);
  return (await readShardIndex(index)).files;
}

/** The snapshot in the cache, if it has all files of a model. */
async function findOffline(cache: HubCache, repo: string, revision: string): Promise<string> {
  const commit = isCommit(revision) ? revision : await cache.readRef(revision);
  const missing = commit === undefined
    ? `revision "${revision}"`
    : await findMissing(cache.snapshot(commit));
  if (commit !== undefined && missing === undefined) return cache.snapshot(commit);
  const flag = revision === "main" ? "" : ` --repo-revision ${revision}`;
  throw new CheckpointError(
    `Cannot open "hf:${repo}": ${missing} is not in the cache at "${cache.folder}"; ` +
      "fetch it, with HF_HUB_OFFLINE not set, by: " +
      `deno run -A cli.ts inspect hf:${repo}${flag}`,
  );
}

/** The first file that a snapshot lacks, by the rules of a fetch. */
async function findMissing(folder: string): Promise<string | undefined> {
  const isThere = (name: string) => exists(`${folder}/${name}`);
  if (!await isThere("config.json")) return "config.json";
  for (const name of WEIGHTS) {
    if (!await isThere(name)) continue;
    if (!name.endsWith(".json")) return undefined;
    for (const file of await shardsOf(`${folder}/${name}`)) {
      if (!await isThere(file)) return file;
    }
    return undefined;
  }
  return WEIGHTS[0];
}

function isOn(value: string | undefined): boolean {
  return /^(1|true|yes|on)$/i.test(value ?? "");
}

/** A path from the environment, as Python reads it: with `~` and `$NAME`. */
function pathOf(value: string, env: HubEnvironment["env"]): string {
  const home = env("HOME") ?? env("USERPROFILE") ?? "";
  return value.replace(/^~(?=[/\\]|$)/, home)
    .replace(/\$(?:(\w+)|\{(\w+)\})/g, (all, plain, braced) => env(plain ?? braced) ?? all);
}

/** The folder of Python's hub cache and token. */
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
  if (!token && given === undefined) {
    const named = env("HF_TOKEN_PATH");
    const path = named ? pathOf(named, env) : `${hubHome(env)}/token`;
    try {
      token = await readToken(path);
    } catch (error) {
      return fail(`the token at "${path}" cannot be read (${messageOf(error)}); set HF_TOKEN`);
    }
  }
  // Other characters cannot be sent, and the error of fetch() would show the token.
  if (!/^[\x21-\x7e]*$/.test(token)) {
    return fail("the token has characters that no token has; set HF_TOKEN to it and nothing else");
  }
  return token || undefined;
}
