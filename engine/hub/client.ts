/**
 * HTTP client for the Hugging Face hub: listing, download, retries, and the sentence for each
 * refusal.
 *
 * Redirects are followed by hand: large files are on other hosts, which must not get the token.
 *
 * @module
 */
import { CheckpointError, messageOf } from "../errors.ts";
import { isRecord } from "../json.ts";

/** How long things may take, in milliseconds, and by whose clock. */
export interface HubTimes {
  /** Before the second try; doubles from try to try. */
  readonly retryMs: number;
  /** The longest wait that a hub may ask for. */
  readonly maxWaitMs: number;
  /** How long a connection may be silent. */
  readonly stallMs: number;
  /** Between two looks at a lock that another process holds. */
  readonly pollMs: number;
  /** Waits, until the signal if that comes first. @throws the signal's reason. */
  readonly pause: (ms: number, signal?: AbortSignal) => Promise<void>;
}

/** What is asked, and of whom. */
export interface HubTarget {
  /** URL without a slash at its end. */
  readonly endpoint: string;
  readonly token?: string;
  /** `owner/name`, or `name` for the oldest ones. */
  readonly repo: string;
  /** Branch, tag or commit. */
  readonly revision: string;
}

/** A file of a repository. */
export interface HubFile {
  /** Within the repository, with slashes. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Name of its blob: the sha256 of a large file, the git sha1 of any other. */
  readonly etag: string;
}

/** Where the bytes of a file go. */
export interface Sink {
  /** How many bytes it has; a download goes on from there. */
  readonly position: number;
  write(chunk: Uint8Array): Promise<void>;
  /** Forgets what it has. */
  restart(): Promise<void>;
}

/** What came is not the file that the listing promised. */
export class WrongContent extends Error {}

/** What may go better when it is tried again; `waitMs` where the hub says when. */
class Transient extends Error {
  constructor(message: string, readonly advice: string, readonly waitMs = 0) {
    super(message);
  }
}

/** What has come of a file stays on the disk. */
const RESUME = "run it again to go on from there";

const TRIES = 5;
const MAX_REDIRECTS = 10;
const REDIRECTS = [301, 302, 303, 307, 308];
/** Largest answer that is taken for a listing. */
const MAX_LISTING_BYTES = 100_000_000;

/** An answer and the connection that its body still comes over. */
interface Answer {
  readonly response: Response;
  readonly stall: StallTimeout;
  /** Whether the endpoint itself gave it, and no other host before it. */
  readonly own: boolean;
}

/** Asks one hub about one repository. */
export class HubClient {
  readonly #origin: string;

  constructor(readonly target: HubTarget, readonly times: HubTimes) {
    this.#origin = new URL(target.endpoint).origin;
  }

  /** An error about the repository; never with the token, or with a URL that is signed. */
  fail(message: string): CheckpointError {
    const { repo, token } = this.target;
    const shown = message.replace(/(https?:\/\/[^\s?#]*)[?#]\S*/g, "$1");
    return new CheckpointError(
      `Cannot open "hf:${repo}": ${token ? shown.replaceAll(token, "…") : shown}`,
    );
  }

  /** What the hub tells of a revision: its commit, and its files with their sizes and hashes. */
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
        // said below
      }
      throw this.fail(`expected a listing in JSON from ${url}; is HF_ENDPOINT that of a hub?`);
    });
  }

  /**
   * Brings a file, from where the sink stands to its end.
   * @throws {WrongContent} when its size is not the listing's.
   */
  async download(file: HubFile, commit: string, sink: Sink, signal?: AbortSignal): Promise<void> {
    let furthest = sink.position;
    const attempt = async () => {
      if (sink.position < file.size) await this.#downloadRest(file, commit, sink, signal);
    };
    // A server that only ever sends the same beginning is not waited for without end.
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
      "accept-encoding": "identity", // a part of a compressed file could not be continued
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
      throw this.fail(`expected "${path}" as it is, got it compressed; is there a proxy between?`);
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

  /** Tries up to `TRIES` times; a try that `advanced` counts as the first. */
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
          throw this.fail(`${message} and asks to wait ${seconds} s; try again after that`);
        }
        if (tries === TRIES) throw this.fail(`${message}, ${TRIES} times; ${advice}`);
        // Spread, so that many clients that were refused together do not come back together.
        const wait = waitMs || retryMs * 2 ** (tries - 1) * (0.5 + Math.random());
        await pause(wait, signal);
      }
    }
  }

  /**
   * One GET with its redirects. Only the endpoint's origin gets the token, until a redirect leaves
   * it.
   */
  async #get(
    url: string,
    headers: Readonly<Record<string, string>>,
    signal?: AbortSignal,
  ): Promise<Answer> {
    const { token } = this.target;
    const stall = new StallTimeout(this.times.stallMs, signal);
    let at = new URL(url);
    let own = true;
    for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
      own &&= at.origin === this.#origin;
      const sent = new Headers({ ...headers });
      if (token && own) sent.set("authorization", `Bearer ${token}`);
      let response: Response;
      try {
        response = await stall.for(fetch(at, {
          headers: sent,
          redirect: "manual",
          signal: stall.signal,
        }));
      } catch (error) {
        stall.throwIfAborted();
        const why = stall.isOver ? "no answer" : reasonOf(error);
        const { endpoint } = this.target;
        throw new Transient(
          `cannot reach ${
            own ? endpoint : `${at.origin}, where ${endpoint} sends for the file`
          } (${why})`,
          "check the connection; --offline uses what is in the cache",
        );
      }
      if (!REDIRECTS.includes(response.status)) return { response, stall, own };
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

  async *#body({ response, stall, own }: Answer): AsyncGenerator<Uint8Array> {
    const reader = response.body?.getReader();
    if (!reader) return;
    try {
      while (true) {
        let next: ReadableStreamReadResult<Uint8Array>;
        try {
          next = await stall.for(reader.read());
        } catch (error) {
          stall.throwIfAborted();
          const host = own ? this.target.endpoint : "the host of the files";
          throw new Transient(
            stall.isOver
              ? `${host} fell silent for ${this.times.stallMs / 1000} s`
              : `the connection to ${host} broke (${reasonOf(error)})`,
            RESUME,
          );
        }
        if (next.done) return;
        yield next.value;
      }
    } finally {
      await reader.cancel().catch(() => {}); // what broke is told above
    }
  }

  /** What an answer other than success means, and what to do about it. */
  async #refusal({ response, own }: Answer, path?: string): Promise<Error> {
    await response.body?.cancel();
    const { status, headers } = response;
    const { endpoint, repo, revision, token } = this.target;
    const code = headers.get("x-error-code");
    // The message of another host may hold the signature of the requested URL.
    const said = own ? headers.get("x-error-message")?.slice(0, 300) : undefined;
    const host = own ? endpoint : `the host of the files of ${endpoint}`;
    if (status === 408 || status === 429 || status >= 500) {
      const what = status === 429 ? "too many requests" : said;
      return new Transient(
        `${host} answered ${status}${what ? ` (${what})` : ""}`,
        "try again later",
        waitOf(headers),
      );
    }
    if (own && code === "GatedRepo") {
      return this.fail(
        `it is gated: accept its terms at ${endpoint}/${repo}, and set HF_TOKEN to a token of ${
          token ? "the account that did; the one given has no access" : "that account"
        }`,
      );
    }
    if (own && status === 401 && !token) {
      return this.fail(
        `it is private, or there is no such repository at ${endpoint}; ` +
          "check the name, or set HF_TOKEN",
      );
    }
    if (own && (status === 401 || status === 403)) {
      return this.fail(
        `${endpoint} answered ${status}${
          said ? ` (${said})` : ""
        }: the token is not valid, or has no access to it; set HF_TOKEN to one that has`,
      );
    }
    if (code === "RevisionNotFound") {
      return this.fail(
        `it has no revision "${revision}"; name a branch, tag or commit with --repo-revision`,
      );
    }
    if (code === "RepoNotFound" || own && status === 404 && path === undefined) {
      return this.fail(
        token
          ? `there is no such repository at ${endpoint}, or the token has no access to it; ` +
            "check the name and HF_TOKEN"
          : `there is no such repository at ${endpoint}; check the name`,
      );
    }
    const asked = path === undefined ? "" : ` for "${path}"`;
    if (code === "EntryNotFound") {
      return this.fail(`its listing at ${endpoint} has "${path}", but the file is not there`);
    }
    return this.fail(
      `${host} answered ${status}${asked}${said ? ` (${said})` : ""}; try again later`,
    );
  }
}

/** A timeout for each piece of an answer: ends a connection that is silent for too long. */
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

/** `HubTimes.pause` by the real clock. */
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

/** Whether a part of a file is the one that was asked for. */
function continues(headers: Headers, from: number, size: number): boolean {
  const [, start, total] = headers.get("content-range")?.match(/^bytes (\d+)-\d+\/(\d+|\*)$/) ?? [];
  return Number(start) === from && (total === "*" || Number(total) === size);
}

/**
 * Milliseconds to wait that an answer asks for: `Retry-After` in seconds or as a date, else the
 * hub's `RateLimit`.
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
