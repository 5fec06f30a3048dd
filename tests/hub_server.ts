/**
 * Mock Hugging Face hub: a local server with the hub's recorded headers, redirects and errors.
 *
 *     endpoint ─┬─▶ small file: relative redirect to /api/resolve-cache/…
 *               └─▶ large file: redirect to a signed URL on the second server (storage)
 *
 * It records every request, and tests can replace its answers.
 *
 * @module
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { pause } from "../engine/hub/http.ts";
import { fetchRepository, type HubEnvironment } from "../engine/hub/fetch.ts";
import type { HubOptions } from "../engine/hub/options.ts";
import { CheckpointError } from "../engine/errors.ts";
import { inTempFolder } from "./safetensors.ts";

// A proxy of the machine must not get the requests for these servers.
for (const name of ["NO_PROXY", "no_proxy"]) Deno.env.set(name, "127.0.0.1");

/** A repository on the server. */
export interface ServedRepository {
  /** A folder, or contents by path. */
  readonly files: string | Readonly<Record<string, string | Uint8Array>>;
  /** Default 40 times "a". */
  readonly commit?: string;
  /** Branches and tags that point to the commit; default "main". */
  readonly revisions?: readonly string[];
  /** Which files are on the second host; default weights, and files over 1 MB. */
  readonly isLarge?: (path: string, size: number) => boolean;
  /** The token that a private repository needs; without it the repository does not exist. */
  readonly token?: string;
  /** Whether its terms must be accepted first; no token has accepted them. */
  readonly gated?: boolean;
  /** Its new name; requests for the old name are redirected. */
  readonly renamedTo?: string;
}

/** A received request. */
export interface SeenRequest {
  /** The endpoint, or the host of large files. */
  readonly host: "endpoint" | "storage";
  readonly method: string;
  /** With the query. */
  readonly path: string;
  readonly headers: Headers;
  /** Bytes of the response body that were sent. */
  sent: number;
}

/** Replaces a response, unless it returns undefined. */
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

/** A running mock hub; dispose of it with `await using`. */
export class HubServer implements AsyncDisposable {
  /** All requests, in order. */
  readonly requests: SeenRequest[] = [];
  /** Replaces responses; set by tests. */
  misbehave: Misbehaviour = () => undefined;
  /** Changes bodies, such as to slow them down or cut them off; set by tests. */
  body: (bytes: Uint8Array<ArrayBuffer>, request: SeenRequest) => BodyInit = (bytes) => bytes;
  /** Whether files can be read by ranges. */
  hasRanges = true;
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

  /** URL for HF_ENDPOINT. */
  get url(): string {
    return `http://127.0.0.1:${this.#servers[0].addr.port}`;
  }

  /** URL of the host of large files. */
  get storageUrl(): string {
    return `http://127.0.0.1:${this.#servers[1].addr.port}`;
  }

  /** Adds or replaces a repository. */
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

  /** Requests whose path contains a text. */
  seen(text: string): SeenRequest[] {
    return this.requests.filter(({ path }) => path.includes(text));
  }

  /** Hash of a file: the name of its blob. */
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

  /** Without its token a private repository looks like a missing one, as on the hub. */
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
    // Not the hash, but of the same form, as on the real host.
    return this.#ranged(seen, file.bytes, { etag: `"${"0".repeat(64)}"` });
  }

  #file(seen: SeenRequest, { stored, commit }: StoredRepository, path: string): Response {
    const file = stored.get(decodeURIComponent(path));
    if (!file) return error(404, "EntryNotFound", "Entry not found");
    const etag = `"${file.sha1}"`;
    return this.#ranged(seen, file.bytes, { etag, "x-repo-commit": commit });
  }

  #ranged(seen: SeenRequest, all: Uint8Array, extra: Record<string, string>): Response {
    const { hasRanges } = this;
    const [, start, last] = (hasRanges ? seen.headers.get("range") : null)
      ?.match(/^bytes=(\d+)-(\d*)$/) ?? [];
    const from = Number(start ?? 0);
    const size = all.length;
    const end = last ? Math.min(size, Number(last) + 1) : size;
    if (start !== undefined && from >= size) {
      return new Response(null, { status: 416, headers: { "content-range": `bytes */${size}` } });
    }
    const headers: Record<string, string> = {
      ...extra,
      "accept-ranges": "bytes",
      "content-length": String(end - from),
      ...start !== undefined && { "content-range": `bytes ${from}-${end - 1}/${size}` },
    };
    const status = start === undefined ? 200 : 206;
    if (seen.method === "HEAD") return new Response(null, { status, headers });
    const bytes = all.slice(from, end);
    seen.sent = bytes.length;
    return new Response(this.body(bytes, seen), { status, headers });
  }
}

/** A body that ends before its content-length, as when a connection breaks. */
export function cutBody(bytes: Uint8Array<ArrayBuffer>, at: number, seen: SeenRequest): BodyInit {
  seen.sent = at;
  let isTaken = false;
  return new ReadableStream({
    async pull(controller) {
      if (!isTaken) {
        controller.enqueue(bytes.slice(0, at));
        isTaken = true;
        return;
      }
      // The server asks for more: it has the bytes, and sends them in this time.
      await new Promise((done) => setTimeout(done, 30));
      controller.close();
    },
  }, { highWaterMark: 0 });
}

/** A body that is sent when something has happened. */
export function bodyAfter(event: Promise<unknown>, bytes: Uint8Array<ArrayBuffer>): BodyInit {
  return new ReadableStream({
    async start(controller) {
      await event;
      controller.enqueue(bytes);
      controller.close();
    },
  });
}

/** The beginning of a body whose rest never comes. */
export function endlessBody(bytes: Uint8Array<ArrayBuffer>): BodyInit {
  return new ReadableStream({ start: (controller) => controller.enqueue(bytes) });
}

/** A body in pieces, with a delay of `ms` before each. */
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

/** An error response in the hub's form. */
export function error(status: number, code?: string, message = "", headers = {}): Response {
  const all = { ...headers, ...code && { "x-error-code": code }, "x-error-message": message };
  return Response.json({ error: message }, { status, headers: all });
}

/** A redirect. */
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

/** The token of the tests; no error message may contain it. */
export const TOKEN = "hf_unspeakable";

/** A mock hub, an empty cache, and an environment with these two and no token. */
export class HubFixture {
  readonly env: Record<string, string>;
  /** Delays between tries in milliseconds; recorded, not waited for. */
  readonly waits: number[] = [];
  /** Overrides of the environment. */
  overrides: Partial<HubEnvironment> = {};

  constructor(readonly server: HubServer, readonly cacheDir: string) {
    this.env = { HF_ENDPOINT: server.url, HF_HUB_CACHE: cacheDir, HF_HOME: `${cacheDir}-home` };
  }

  /** Fetches a repository. */
  fetch(options: HubOptions = {}, repo = "owner/name"): Promise<string> {
    return fetchRepository(repo, options, {
      env: (name) => this.env[name],
      pollMs: 0,
      pause: (ms, signal) => {
        if (ms > 0) this.waits.push(ms);
        return pause(1, signal);
      },
      ...this.overrides,
    });
  }

  /** The error message of a failed fetch; asserts that it contains no secret. */
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

/** Runs a test with a new mock hub and a new cache. */
export function withHub(
  repositories: ServedRepository | Readonly<Record<string, ServedRepository>>,
  test: (hub: HubFixture) => Promise<void>,
): Promise<void> {
  return inTempFolder(async (folder) => {
    const named = "files" in repositories ? { "owner/name": repositories } : repositories;
    await using server = new HubServer(named as Record<string, ServedRepository>);
    await test(new HubFixture(server, `${folder}/hub`));
  });
}

/** Pseudo-random bytes. */
export function someBytes(count: number, seed = 1): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(count);
  for (let i = 0, x = seed; i < count; i++) bytes[i] = (x = Math.imul(x, 48271) + 11) >>> 16;
  return bytes;
}

/** Every file, folder and link below a folder, with its size, target and modification time. */
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
