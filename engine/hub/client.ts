/**
 * HTTP client for the Hugging Face hub: listing, resumable download, retries, error messages.
 *
 * Redirects are followed by hand: large files are on other hosts, which must not get the token.
 *
 * @module
 */
import { CheckpointError, messageOf } from "../errors.ts";
import { isRecord } from "../json.ts";

/** Timeouts and delays in milliseconds, and the clock that measures them. */
export interface HubTimes {
  /** Delay before the second try; doubles with each further try. */
  readonly retryMs: number;
  /** Longest delay that a hub may ask for; a longer one ends the download. */
  readonly maxWaitMs: number;
  /** Longest time without a byte on a connection. */
  readonly stallMs: number;
  /** Delay between two attempts to take a lock that another process holds. */
  readonly pollMs: number;
  /** Resolves after `ms`. @throws the signal's reason, if it aborts first. */
  readonly pause: (ms: number, signal?: AbortSignal) => Promise<void>;
}

/** Address, credentials and repository of every request. */
export interface HubTarget {
  /** URL without a trailing slash. */
  readonly endpoint: string;
  readonly token?: string;
  /** `owner/name`; only `name` for the oldest repositories. */
  readonly repo: string;
  /** Branch, tag or commit. */
  readonly revision: string;
}

/** A file of a repository. */
export interface HubFile {
  /** Relative to the repository, separated by slashes. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Name of its blob: the sha256 of a large file, the git sha1 of any other. */
  readonly etag: string;
}

/** Destination of a file's bytes. */
export interface Sink {
  /** Bytes received so far; a download resumes there. */
  readonly position: number;
  write(chunk: Uint8Array): Promise<void>;
  /** Discards all bytes. */
  restart(): Promise<void>;
}

/** The received bytes are not the file that the listing describes. */
export class WrongContent extends Error {}

/** A failure that a retry may cure; `waitMs` is the delay that the hub asks for, 0 if none. */
class Transient extends Error {
  constructor(message: string, readonly advice: string, readonly waitMs = 0) {
    super(message);
  }
}

/** Advice after a broken download: the partial file stays on disk. */
const RESUME = "run it again to resume";

const TRIES = 5;
const MAX_REDIRECTS = 10;
const REDIRECTS = [301, 302, 303, 307, 308];
/** Largest listing that is read. */
const MAX_LISTING_BYTES = 100_000_000;

/** A response whose body is still arriving. */
interface Answer {
  readonly response: Response;
  readonly stall: StallTimeout;
  /** Whether the endpoint sent it and no redirect went through another host. */
  readonly isEndpoint: boolean;
}

/** Masks a token, as it is, percent-encoded, or in Base64 (of a whole header too). */
export function withoutToken(message: string, token: string): string {
  const forms = [token, encodeURIComponent(token)];
  // Base64 packs 3 bytes into 4 characters, so that a text has three forms by its offset. The first
  // and the last character of a form may hold bits of its neighbours.
  for (const before of ["", "x", "xx"]) {
    const form = btoa(before + token).replace(/=+$/, "").slice(before.length && before.length + 1);
    const sure = (before.length + token.length) % 3 ? form.slice(0, -1) : form;
    if (sure.length >= 8) forms.push(sure, sure.replaceAll("+", "-").replaceAll("/", "_"));
  }
  return forms.reduce((text, form) => text.replaceAll(form, "…"), message);
}

/** Client for one repository on one hub. */
export class HubClient {
  readonly #origin: string;

  constructor(readonly target: HubTarget, readonly times: HubTimes) {
    this.#origin = new URL(target.endpoint).origin;
  }

  /** An error about the repository, with the token and the signatures of URLs removed. */
  fail(message: string): CheckpointError {
    const { repo, token } = this.target;
    const shown = message.replace(/(https?:\/\/[^\s?#]*)[?#]\S*/g, "$1");
    return new CheckpointError(
      `Cannot open "hf:${repo}": ${token ? withoutToken(shown, token) : shown}`,
    );
  }

  /** The listing of a revision as JSON: its commit, and its files with sizes and hashes. */
  listing(signal?: AbortSignal): Promise<Record<string, unknown>> {
    const { endpoint, repo, revision } = this.target;
    const url = `${endpoint}/api/models/${repo}/revision/${encodeURIComponent(revision)}`;
    return this.#retry(signal, async () => {
      const answer = await this.#get(`${url}?blobs=true`, {}, signal);
      if (answer.response.status !== 200) throw await this.#refusal(answer);
      const text = new TextDecoder();
      let json = "";
      let size = 0;
      for await (const chunk of this.#body(answer)) {
        if ((size += chunk.length) > MAX_LISTING_BYTES) {
          throw this.fail(`expected a listing of at most ${MAX_LISTING_BYTES} bytes from ${url}`);
        }
        json += text.decode(chunk, { stream: true });
      }
      try {
        const value: unknown = JSON.parse(json);
        if (isRecord(value)) return value;
      } catch {
        // reported below
      }
      throw this.fail(`expected a listing in JSON from ${url}; is HF_ENDPOINT the URL of a hub?`);
    });
  }

  /**
   * Downloads a file from the sink's position to its end.
   * @throws {WrongContent} If its size differs from the listing's.
   */
  async download(file: HubFile, commit: string, sink: Sink, signal?: AbortSignal): Promise<void> {
    let furthest = sink.position;
    const attempt = async () => {
      if (sink.position < file.size) await this.#downloadRest(file, commit, sink, signal);
    };
    // Only new bytes reset the count of tries: a server that resends the same beginning must not
    // keep the download alive forever.
    await this.#retry(signal, attempt, () => {
      if (sink.position <= furthest) return false;
      furthest = sink.position;
      return true;
    });
  }

  async #downloadRest(
    file: HubFile,
    commit: string,
    sink: Sink,
    signal?: AbortSignal,
  ): Promise<void> {
    const { endpoint, repo } = this.target;
    const { path, size } = file;
    const escaped = path.split("/").map(encodeURIComponent).join("/");
    const from = sink.position;
    const answer = await this.#get(`${endpoint}/${repo}/resolve/${commit}/${escaped}`, {
      "accept-encoding": "identity", // a range of a compressed file cannot be resumed
      ...from > 0 && { range: `bytes=${from}-` },
    }, signal);
    const { response } = answer;
    const { status, headers } = response;
    if (from > 0 && (status === 416 || status === 206 && !continues(headers, from, size))) {
      await response.body?.cancel();
      await sink.restart();
      return await this.#downloadRest(file, commit, sink, signal);
    }
    if (status !== 200 && !(status === 206 && from > 0)) throw await this.#refusal(answer, path);
    if ((headers.get("content-encoding") ?? "identity") !== "identity") {
      await response.body?.cancel();
      throw this.fail(`expected "${path}" uncompressed, got it compressed; is a proxy in between?`);
    }
    const length = headers.get("content-length");
    if (status === 200 && length !== null && Number(length) !== size) {
      await response.body?.cancel();
      throw new WrongContent(`expected ${size} bytes, got ${Number(length)}`);
    }
    if (status === 200 && from > 0) await sink.restart();
    for await (const chunk of this.#body(answer)) {
      if (sink.position + chunk.length > size) {
        throw new WrongContent(`expected ${size} bytes, got more`);
      }
      await sink.write(chunk);
    }
    if (sink.position < size) {
      throw new Transient(
        `the connection broke at byte ${sink.position} of ${size} of "${path}"`,
        RESUME,
      );
    }
  }

  /** Tries up to `TRIES` times; a try after which `advanced()` is true counts as the first. */
  async #retry<T>(
    signal: AbortSignal | undefined,
    attempt: () => Promise<T>,
    advanced: () => boolean = () => false,
  ): Promise<T> {
    const { retryMs, maxWaitMs, pause } = this.times;
    for (let tries = 1;; tries++) {
      try {
        return await attempt();
      } catch (error) {
        if (!(error instanceof Transient)) throw error;
        if (advanced()) tries = 1;
        const { message, advice, waitMs } = error;
        if (waitMs > maxWaitMs) {
          const seconds = Math.ceil(waitMs / 1000);
          throw this.fail(`${message} and asks for a wait of ${seconds} s; try again after that`);
        }
        if (tries === TRIES) throw this.fail(`${message}, ${TRIES} times; ${advice}`);
        // Random, so that clients that were refused together do not retry together.
        const wait = waitMs || retryMs * 2 ** (tries - 1) * (0.5 + Math.random());
        await pause(wait, signal);
      }
    }
  }

  /**
   * One GET with its redirects. Only the endpoint's origin gets the token, and only until the first
   * redirect to another origin.
   */
  async #get(
    url: string,
    headers: Readonly<Record<string, string>>,
    signal?: AbortSignal,
  ): Promise<Answer> {
    const { token } = this.target;
    const stall = new StallTimeout(this.times.stallMs, signal);
    let at = new URL(url);
    let isEndpoint = true;
    for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
      isEndpoint &&= at.origin === this.#origin;
      const sent = new Headers({ ...headers });
      if (token && isEndpoint) sent.set("authorization", `Bearer ${token}`);
      let response: Response;
      try {
        response = await stall.for(fetch(at, {
          headers: sent,
          redirect: "manual",
          signal: stall.signal,
        }));
      } catch (error) {
        stall.throwIfAborted();
        // A denied permission stays denied; its message names the flag.
        if (error instanceof Error && error.name === "NotCapable") throw this.fail(error.message);
        const why = stall.isOver ? "no answer" : reasonOf(error);
        const { endpoint } = this.target;
        throw new Transient(
          `cannot reach ${
            isEndpoint ? endpoint : `${at.origin}, the host that ${endpoint} redirects to`
          } (${why})`,
          "check the connection; --offline uses the cache",
        );
      }
      if (!REDIRECTS.includes(response.status)) return { response, stall, isEndpoint };
      await response.body?.cancel();
      at = this.#follow(at, response.headers.get("location"));
    }
    throw this.fail(
      `${this.target.endpoint} redirects more than ${MAX_REDIRECTS} times; is HF_ENDPOINT right?`,
    );
  }

  #follow(from: URL, location: string | null): URL {
    const to = location === null ? null : URL.parse(location, from);
    const allowed = from.protocol === "https:" ? ["https:"] : ["http:", "https:"];
    if (to && allowed.includes(to.protocol)) return to;
    const got = to ? to.protocol : "none";
    throw this.fail(
      `expected ${this.target.endpoint} to redirect to ${allowed.join(" or ")}, got ${got}`,
    );
  }

  async *#body({ response, stall, isEndpoint }: Answer): AsyncGenerator<Uint8Array> {
    const reader = response.body?.getReader();
    if (!reader) return;
    try {
      while (true) {
        let next: ReadableStreamReadResult<Uint8Array>;
        try {
          next = await stall.for(reader.read());
        } catch (error) {
          stall.throwIfAborted();
          const host = isEndpoint ? this.target.endpoint : "the file host";
          throw new Transient(
            stall.isOver
              ? `${host} sent nothing for ${this.times.stallMs / 1000} s`
              : `the connection to ${host} broke (${reasonOf(error)})`,
            RESUME,
          );
        }
        if (next.done) return;
        yield next.value;
      }
    } finally {
      await reader.cancel().catch(() => {}); // the failure is reported above
    }
  }

  /** The error for an unsuccessful response: what it means and what to do. */
  async #refusal({ response, isEndpoint }: Answer, path?: string): Promise<Error> {
    await response.body?.cancel();
    const { status, headers } = response;
    const { endpoint, repo, revision, token } = this.target;
    const code = headers.get("x-error-code");
    // Another host's message may repeat the signature of the requested URL.
    const said = isEndpoint ? headers.get("x-error-message")?.slice(0, 300) : undefined;
    const host = isEndpoint ? endpoint : `the file host of ${endpoint}`;
    if (status === 408 || status === 429 || status >= 500) {
      const what = status === 429 ? "too many requests" : said;
      return new Transient(
        `${host} answered ${status}${what ? ` (${what})` : ""}`,
        "try again later",
        waitOf(headers),
      );
    }
    if (isEndpoint && code === "GatedRepo") {
      return this.fail(
        `it is gated: accept its terms at ${endpoint}/${repo}, and set HF_TOKEN to a token of ${
          token ? "the account that did; the given token has no access" : "that account"
        }`,
      );
    }
    if (isEndpoint && status === 401 && !token) {
      return this.fail(
        `it is private, or there is no such repository at ${endpoint}; ` +
          "check the name, or set HF_TOKEN",
      );
    }
    if (isEndpoint && (status === 401 || status === 403)) {
      return this.fail(
        `${endpoint} answered ${status}${
          said ? ` (${said})` : ""
        }: the token is not valid or has no access; set HF_TOKEN to one that has`,
      );
    }
    if (code === "RevisionNotFound") {
      return this.fail(
        `it has no revision "${revision}"; name a branch, tag or commit with --repo-revision`,
      );
    }
    if (code === "RepoNotFound" || isEndpoint && status === 404 && path === undefined) {
      return this.fail(
        token
          ? `there is no such repository at ${endpoint}, or the token has no access to it; ` +
            "check the name and HF_TOKEN"
          : `there is no such repository at ${endpoint}; check the name`,
      );
    }
    const forPath = path === undefined ? "" : ` for "${path}"`;
    if (code === "EntryNotFound") {
      return this.fail(`its listing at ${endpoint} names "${path}", but there is no such file`);
    }
    return this.fail(
      `${host} answered ${status}${forPath}${said ? ` (${said})` : ""}; try again later`,
    );
  }
}

/** A timeout for each piece of a response: aborts a connection that sends nothing for too long. */
class StallTimeout {
  readonly #silence = new AbortController();
  readonly signal: AbortSignal;

  constructor(readonly ms: number, readonly caller?: AbortSignal) {
    this.signal = caller ? AbortSignal.any([caller, this.#silence.signal]) : this.#silence.signal;
  }

  get isOver(): boolean {
    return this.#silence.signal.aborted;
  }

  /** @throws the caller's reason, if the caller has aborted. */
  throwIfAborted(): void {
    this.caller?.throwIfAborted();
  }

  async for<T>(work: Promise<T>): Promise<T> {
    const timer = setTimeout(() => this.#silence.abort(), this.ms);
    try {
      return await work;
    } finally {
      clearTimeout(timer);
    }
  }
}

/** `HubTimes.pause` on the real clock. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Whether a partial response begins at byte `from` of a file of `size` bytes. */
function continues(headers: Headers, from: number, size: number): boolean {
  const [, start, total] = headers.get("content-range")?.match(/^bytes (\d+)-\d+\/(\d+|\*)$/) ?? [];
  return Number(start) === from && (total === "*" || Number(total) === size);
}

/**
 * Milliseconds that a response asks to wait: `Retry-After` in seconds or as a date, else the hub's
 * `RateLimit`; 0 if neither is set.
 */
function waitOf(headers: Headers): number {
  const after = headers.get("retry-after")?.trim();
  if (after) {
    const ms = /^\d+$/.test(after) ? Number(after) * 1000 : Date.parse(after) - Date.now();
    if (ms > 0) return ms;
  }
  const [, seconds] = headers.get("ratelimit")?.match(/\br=0\b.*?\bt=(\d+)/) ?? [];
  return seconds ? Number(seconds) * 1000 : 0;
}

/** Why a connection failed, without the URL, which may be signed. */
function reasonOf(error: unknown): string {
  const cause = error instanceof Error && error.cause ? error.cause : error;
  return messageOf(cause).replace(/^.*?\bhttps?:\/\/\S*\s*/, "").replace(/\bhttps?:\/\/\S*/g, "…");
}
