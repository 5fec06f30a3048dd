/**
 * A server on this machine that answers as the Hugging Face hub does, by what was recorded of it: a
 * second host for large files, relative redirects for small ones, its headers, its errors. It keeps
 * every request, and can be told to misbehave.
 *
 * @module
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { pause } from "../engine/hub/client.ts";
import { fetchRepository, type HubEnvironment, type HubOptions } from "../engine/hub/fetch.ts";
import { CheckpointError } from "../engine/errors.ts";
import { inTempFolder } from "./safetensors.ts";

/** A repository on the server. */
export interface ServedRepository {
  /** A folder, or files by their paths. */
  readonly files: string | Readonly<Record<string, string | Uint8Array>>;
  /** Default 40 times "a". */
  readonly commit?: string;
  /** Branches and tags that are at the commit; default "main". */
  readonly revisions?: readonly string[];
  /** Which files lie on the second host; default the weights and what is over 1 MB. */
  readonly isLarge?: (path: string, size: number) => boolean;
  /** The token without which it does not exist. */
  readonly token?: string;
  /** Whether its terms have to be accepted first, which nobody did. */
  readonly gated?: boolean;
  /** The name that it has now; requests by the old one are redirected. */
  readonly renamedTo?: string;
}

/** A request as it came. */
export interface SeenRequest {
  /** The endpoint, or the host that large files lie on. */
  readonly host: "endpoint" | "storage";
  readonly method: string;
  /** With the query. */
  readonly path: string;
  readonly headers: Headers;
  /** Bytes of the body that were handed out. */
  sent: number;
}

/** Takes the place of an answer, where it gives one. */
export type Misbehaviour = (
  request: SeenRequest,
) => Response | undefined | Promise<Response | undefined>;

interface StoredFile {
  readonly path: string;
  readonly bytes: Uint8Array;
  readonly sha1: string;
  readonly sha256: string;
  readonly large: boolean;
}

interface StoredRepository extends ServedRepository {
  readonly commit: string;
  readonly revisions: readonly string[];
  readonly stored: ReadonlyMap<string, StoredFile>;
}

/** A running server; dispose of it with `await using`. */
export class HubServer implements AsyncDisposable {
  /** What came, in order. */
  readonly requests: SeenRequest[] = [];
  /** Set it to change answers. */
  misbehave: Misbehaviour = () => undefined;
  /** Set it to change bodies, such as to slow them down or to cut them. */
  body: (bytes: Uint8Array<ArrayBuffer>, request: SeenRequest) => BodyInit = (bytes) => bytes;
  readonly #repositories = new Map<string, StoredRepository>();
  readonly #servers: Deno.HttpServer<Deno.NetAddr>[];

  constructor(repositories: Readonly<Record<string, ServedRepository>>) {
    for (const [name, served] of Object.entries(repositories)) this.serve(name, served);
    this.#servers = (["endpoint", "storage"] as const).map((host) =>
      Deno.serve(
        { port: 0, hostname: "127.0.0.1", onListen: () => {} },
        (request) => this.#answer(host, request),
      )
    );
  }

  /** What HF_ENDPOINT is set to. */
  get url(): string {
    return `http://127.0.0.1:${this.#servers[0].addr.port}`;
  }

  /** Where large files lie. */
  get storageUrl(): string {
    return `http://127.0.0.1:${this.#servers[1].addr.port}`;
  }

  /** Puts a repository on the server, or another one in its place. */
  serve(name: string, served: ServedRepository): void {
    const { files, isLarge = isLargeByDefault } = served;
    const contents = typeof files === "string" ? readFolder(files) : Object.entries(files);
    const stored = contents.map(([path, content]): [string, StoredFile] => {
      const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
      const sha1 = createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
      const sha256 = createHash("sha256").update(bytes).digest("hex");
      return [path, { path, bytes, sha1, sha256, large: isLarge(path, bytes.length) }];
    });
    const { commit = "a".repeat(40), revisions = ["main"] } = served;
    this.#repositories.set(name, { ...served, commit, revisions, stored: new Map(stored) });
  }

  /** Requests whose path has a text in it. */
  seen(text: string): SeenRequest[] {
    return this.requests.filter(({ path }) => path.includes(text));
  }

  /** The hash by which a file is named. */
  etag(name: string, path: string): string {
    const { large, sha1, sha256 } = this.#repositories.get(name)!.stored.get(path)!;
    return large ? sha256 : sha1;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#servers.map((server) => server.shutdown()));
  }

  async #answer(host: SeenRequest["host"], request: Request): Promise<Response> {
    const { pathname, search } = new URL(request.url);
    const { method, headers } = request;
    const seen = { host, method, path: pathname + search, headers, sent: 0 };
    this.requests.push(seen);
    const other = await this.misbehave(seen);
    if (other) return other;
    const response = host === "storage" ? this.#storage(seen) : this.#endpoint(seen);
    return method === "HEAD" ? new Response(null, response) : response;
  }

  #endpoint(seen: SeenRequest): Response {
    const path = seen.path.split("?")[0];
    const [, api, kind] = path.match(/^\/api\/models\/(.+?)\/(revision|tree)\//) ?? [];
    const [, resolved] = path.match(/^\/(?!api\/)(.+?)\/resolve\//) ?? [];
    const [, cached] = path.match(/^\/api\/resolve-cache\/models\/(.+?)\/[0-9a-f]{40}\//) ?? [];
    const name = api ?? resolved ?? cached;
    const repository = this.#repositories.get(name ?? "");
    const refused = this.#refuse(seen, repository);
    if (refused) return refused;
    if (!repository) return error(404, "RepoNotFound", "Repository not found");
    if (repository.renamedTo) {
      return redirect(307, seen.path.replace(name, repository.renamedTo));
    }
    const rest = path.slice(path.indexOf(name) + name.length).split("/").slice(2);
    if (cached) return this.#file(seen, repository, path.split(/\/[0-9a-f]{40}\//)[1]);
    const revision = decodeURIComponent(rest[0]);
    if (![...repository.revisions, repository.commit].includes(revision)) {
      return error(404, "RevisionNotFound", `Invalid rev id: ${revision}`);
    }
    if (kind === "revision") return listing(name, repository);
    if (kind === "tree") return tree(repository);
    return this.#resolve(seen, name, repository, rest.slice(1).join("/"));
  }

  /** As the hub: to strangers a private repository is like one that is not there. */
  #refuse({ headers }: SeenRequest, repository?: StoredRepository): Response | undefined {
    const [, token] = headers.get("authorization")?.match(/^Bearer (.+)$/) ?? [];
    if (token === "invalid") {
      return error(401, undefined, "Invalid credentials in Authorization header");
    }
    if (repository?.gated) {
      return error(token ? 403 : 401, "GatedRepo", "Access to model is restricted");
    }
    if (!token && (!repository || repository.token)) {
      return error(401, undefined, "Invalid username or password.");
    }
    if (repository?.token && token !== repository.token) {
      return error(404, "RepoNotFound", "Repository not found");
    }
  }

  #resolve(seen: SeenRequest, name: string, repository: StoredRepository, path: string): Response {
    const file = repository.stored.get(decodeURIComponent(path));
    if (!file) return error(404, "EntryNotFound", "Entry not found");
    const { commit } = repository;
    if (file.large) {
      return redirect(302, `${this.storageUrl}/${name}/${file.sha256}?X-Signature=secret`, {
        "x-linked-etag": `"${file.sha256}"`,
        "x-linked-size": String(file.bytes.length),
        "x-repo-commit": commit,
      });
    }
    if (repository.token) return this.#file(seen, repository, path);
    return redirect(307, `/api/resolve-cache/models/${name}/${commit}/${path}?etag=secret`, {
      "x-repo-commit": commit,
    });
  }

  #storage(seen: SeenRequest): Response {
    const [, name, sha256] = seen.path.match(/^\/(.+)\/([0-9a-f]{64})\?/) ?? [];
    const files = [...this.#repositories.get(name ?? "")?.stored.values() ?? []];
    const file = files.find((file) => file.sha256 === sha256);
    if (!file) return new Response("<Error>NoSuchKey</Error>", { status: 404 });
    // Another value than the hash, and of the same form.
    return this.#ranged(seen, file.bytes, { etag: `"${"0".repeat(64)}"` });
  }

  #file(seen: SeenRequest, { stored, commit }: StoredRepository, path: string): Response {
    const file = stored.get(decodeURIComponent(path));
    if (!file) return error(404, "EntryNotFound", "Entry not found");
    const etag = `"${file.sha1}"`;
    return this.#ranged(seen, file.bytes, { etag, "x-repo-commit": commit });
  }

  #ranged(seen: SeenRequest, all: Uint8Array, extra: Record<string, string>): Response {
    const [, start] = seen.headers.get("range")?.match(/^bytes=(\d+)-$/) ?? [];
    const from = Number(start ?? 0);
    const size = all.length;
    if (start !== undefined && from >= size) {
      return new Response(null, { status: 416, headers: { "content-range": `bytes */${size}` } });
    }
    const headers: Record<string, string> = {
      ...extra,
      "accept-ranges": "bytes",
      "content-length": String(size - from),
      ...start !== undefined && { "content-range": `bytes ${from}-${size - 1}/${size}` },
    };
    const status = start === undefined ? 200 : 206;
    if (seen.method === "HEAD") return new Response(null, { status, headers });
    const bytes = all.slice(from);
    seen.sent = bytes.length;
    return new Response(this.body(bytes, seen), { status, headers });
  }
}

/** A body that ends before its length, as when a connection tears. */
export function cutBody(bytes: Uint8Array<ArrayBuffer>, at: number, seen: SeenRequest): BodyInit {
  seen.sent = at;
  return new ReadableStream({
    async start(controller) {
      controller.enqueue(bytes.slice(0, at));
      await new Promise((done) => setTimeout(done, 30)); // until it has arrived
      controller.close();
    },
  });
}

/** A body that comes in pieces, with a wait before each. */
export function slowBody(bytes: Uint8Array<ArrayBuffer>, pieces: number, ms: number): BodyInit {
  const length = Math.ceil(bytes.length / pieces);
  let at = 0;
  return new ReadableStream({
    async pull(controller) {
      await new Promise((done) => setTimeout(done, ms));
      controller.enqueue(bytes.slice(at, at += length));
      if (at >= bytes.length) controller.close();
    },
  });
}

/** An answer in the hub's way of refusing. */
export function error(status: number, code?: string, message = "", headers = {}): Response {
  const all = { ...headers, ...code && { "x-error-code": code }, "x-error-message": message };
  return Response.json({ error: message }, { status, headers: all });
}

/** An answer that sends elsewhere. */
export function redirect(status: number, location: string, headers = {}): Response {
  return new Response(null, { status, headers: { ...headers, location } });
}

function listing(id: string, { commit, stored }: StoredRepository): Response {
  const siblings = [...stored.values()].map(({ path, bytes, sha1, sha256, large }) => ({
    rfilename: path,
    size: bytes.length,
    blobId: sha1,
    ...large && { lfs: { sha256, size: bytes.length, pointerSize: 134 } },
  }));
  return Response.json({ id, modelId: id, sha: commit, tags: [], siblings });
}

function tree({ stored }: StoredRepository): Response {
  return Response.json(
    [...stored.values()].map(({ path, bytes, sha1, sha256, large }) => ({
      type: "file",
      path,
      size: bytes.length,
      oid: sha1,
      ...large && { lfs: { oid: sha256, size: bytes.length, pointerSize: 134 } },
    })),
  );
}

function isLargeByDefault(path: string, size: number): boolean {
  return size > 1_000_000 || /\.(safetensors|bin)$/.test(path);
}

function readFolder(folder: string, prefix = ""): [string, Uint8Array][] {
  return [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }): [string, Uint8Array][] =>
    isDirectory
      ? readFolder(`${folder}/${name}`, `${prefix}${name}/`)
      : [[prefix + name, Deno.readFileSync(`${folder}/${name}`)]]
  );
}

/** The token of the tests; no message may show it. */
export const TOKEN = "hf_unspeakable";

/**
 * A server, a cache that is empty at first, and an environment in which nothing else is set,
 * and no token to be found.
 */
export class HubVisit {
  readonly env: Record<string, string>;
  /** Waits that were asked for between tries, in milliseconds; none of them is really taken. */
  readonly waits: number[] = [];
  /** Overrides of what is around a fetch. */
  around: Partial<HubEnvironment> = {};

  constructor(readonly server: HubServer, readonly cacheDir: string) {
    this.env = { HF_ENDPOINT: server.url, HF_HUB_CACHE: cacheDir, HF_HOME: `${cacheDir}-home` };
  }

  /** Fetches "owner/name" or another. */
  fetch(options: HubOptions = {}, repo = "owner/name"): Promise<string> {
    return fetchRepository(repo, options, {
      env: (name) => this.env[name],
      pollMs: 0,
      pause: (ms, signal) => {
        if (ms > 0) this.waits.push(ms);
        return pause(1, signal);
      },
      ...this.around,
    });
  }

  /** The message with which a fetch fails, which never shows a secret. */
  async refusal(options: HubOptions = {}, repo = "owner/name"): Promise<string> {
    try {
      await this.fetch(options, repo);
    } catch (error) {
      assert.ok(error instanceof CheckpointError, String(error));
      const shown = `${Deno.inspect(error)} ${error.message}`;
      assert.doesNotMatch(shown, new RegExp(`${TOKEN}|secret`));
      assert.ok(error.message.startsWith(`Cannot open "hf:${repo}": `), error.message);
      return error.message;
    }
    throw new assert.AssertionError({ message: `expected "${repo}" to be refused` });
  }

  /** Path of a blob. */
  blob(path: string, repo = "owner/name"): string {
    return `${this.cacheDir}/models--${repo.replace("/", "--")}/blobs/${
      this.server.etag(repo, path)
    }`;
  }
}

/** Runs a test with a server of its own and a cache of its own. */
export function withHub(
  repositories: ServedRepository | Readonly<Record<string, ServedRepository>>,
  test: (visit: HubVisit) => Promise<void>,
): Promise<void> {
  return inTempFolder(async (folder) => {
    const named = "files" in repositories ? { "owner/name": repositories } : repositories;
    await using server = new HubServer(named as Record<string, ServedRepository>);
    await test(new HubVisit(server, `${folder}/hub`));
  });
}

/** Bytes that differ from place to place. */
export function someBytes(count: number, seed = 1): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(count);
  for (let i = 0, x = seed; i < count; i++) bytes[i] = (x = Math.imul(x, 48271) + 11) >>> 16;
  return bytes;
}

/** Every file, folder and link below a folder, with sizes, targets and times of change. */
export function inventory(folder: string, prefix = ""): Record<string, string> {
  const found: Record<string, string> = {};
  for (const { name } of Deno.readDirSync(folder)) {
    const path = `${folder}/${name}`;
    const { isDirectory, isSymlink, size, mtime } = Deno.lstatSync(path);
    found[prefix + name] = isSymlink
      ? `→ ${Deno.readLinkSync(path)}`
      : `${size} ${mtime?.getTime()}`;
    if (isDirectory) Object.assign(found, inventory(path, `${prefix}${name}/`));
  }
  return found;
}
