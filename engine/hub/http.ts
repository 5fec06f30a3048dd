/**
 * HTTP downloads: resume by ranges, retries, stalled connections, redirects.
 *
 * Redirects are followed by hand: large files are on other hosts, which must not get the token. A
 * page cannot do that; its `fetch` follows them, and drops the token at another origin.
 *
 * @module
 */
import { type CheckpointError, messageOf } from "../errors.ts";
import { isPage } from "../host/builtin.ts";
import type { Range } from "./range_source.ts";

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

/** `HubTimes` of every download but those of tests. */
export const TIMES: HubTimes = {
  retryMs: 500,
  maxWaitMs: 120_000,
  stallMs: 30_000,
  pollMs: 100,
  pause,
};

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

/** A failure that a retry may cure; `waitMs` is the delay that the server asks for, 0 if none. */
export class Transient extends Error {
  constructor(message: string, readonly advice: string, readonly waitMs = 0) {
    super(message);
  }
}

/** No connection to a server. */
export class Unreachable extends Transient {}

/** Advice after a broken download: the partial file is kept. */
const RESUME = "run it again to resume";

const TRIES = 5;
const MAX_REDIRECTS = 10;
const REDIRECTS = [301, 302, 303, 307, 308];

/** A response whose body is still arriving. */
export interface Answer {
  readonly response: Response;
  readonly stall: StallTimeout;
  /** Whether the endpoint sent it and no redirect went through another host. */
  readonly isEndpoint: boolean;
}

/** A server and the wording of its errors. */
export abstract class HttpClient {
  readonly #origin: string;

  /**
   * @param host URL of the server; also its name in messages.
   * @param token sent to this server alone.
   * @param advice next step when the server cannot be reached.
   */
  constructor(
    readonly host: string,
    readonly token: string | undefined,
    readonly times: HubTimes,
    readonly advice: string,
  ) {
    this.#origin = new URL(host).origin;
  }

  /** An error about the model that the client is for. */
  abstract fail(message: string): CheckpointError;

  /** The error for an unsuccessful response. */
  protected abstract refusal(answer: Answer, path?: string): Promise<Error>;

  /**
   * Downloads a file from the sink's position to its end.
   * @param url address of the file.
   * @param file its name for messages, and its size if known.
   * @throws {WrongContent} If its size differs.
   */
  protected async downloadFrom(
    url: string,
    file: { readonly path: string; readonly size?: number },
    sink: Sink,
    signal?: AbortSignal,
  ): Promise<void> {
    const { path, size = Infinity } = file;
    let furthest = sink.position;
    const attempt = async () => {
      if (sink.position < size) await this.#downloadRest(url, path, size, sink, signal);
    };
    // Only new bytes reset the count of tries: a server that resends the same beginning must not
    // keep the download alive forever.
    await this.retry(signal, attempt, () => {
      if (sink.position <= furthest) return false;
      furthest = sink.position;
      return true;
    });
  }

  async #downloadRest(
    url: string,
    path: string,
    size: number,
    sink: Sink,
    signal?: AbortSignal,
  ): Promise<void> {
    const from = sink.position;
    // A range of a compressed file cannot be resumed. A page may not set accept-encoding, but its
    // fetch asks for no compression if there is a range.
    const answer = await this.get(url, {
      "accept-encoding": "identity",
      ...(from > 0 || isPage()) && { range: `bytes=${from}-` },
    }, signal);
    const { response } = answer;
    const { status, headers } = response;
    if (from > 0 && (status === 416 || status === 206 && !continues(headers, from, size))) {
      await response.body?.cancel();
      await sink.restart();
      return await this.#downloadRest(url, path, size, sink, signal);
    }
    const isPart = status === 206 && (from > 0 || isPage());
    // A range of an empty file cannot be satisfied.
    if (status === 416 && isPage() && !(size > 0 && size < Infinity)) return;
    if (status !== 200 && !isPart) throw await this.refusal(answer, path);
    if ((headers.get("content-encoding") ?? "identity") !== "identity") {
      await response.body?.cancel();
      throw this.fail(`expected "${path}" uncompressed, got it compressed; is a proxy in between?`);
    }
    const length = headers.get("content-length");
    if (status === 200 && length !== null && size < Infinity && Number(length) !== size) {
      await response.body?.cancel();
      throw new WrongContent(`expected ${size} bytes, got ${Number(length)}`);
    }
    if (status === 200 && from > 0) await sink.restart();
    for await (const chunk of this.body(answer)) {
      if (sink.position + chunk.length > size) {
        throw new WrongContent(`expected ${size} bytes, got more`);
      }
      await sink.write(chunk);
    }
    if (sink.position < size && size < Infinity) {
      throw new Transient(
        `the connection broke at byte ${sink.position} of ${size} of "${path}"`,
        RESUME,
      );
    }
  }

  /**
   * The bytes `from` … `to` of a file. If the server knows no ranges: of the file's first `most`
   * bytes, all.
   */
  protected range(
    url: string,
    { path, from, to, most = Infinity }: {
      readonly path: string;
      readonly from: number;
      readonly to: number;
      readonly most?: number;
    },
    signal?: AbortSignal,
  ): Promise<Range> {
    return this.retry(signal, async () => {
      const answer = await this.get(url, { range: `bytes=${from}-${to - 1}` }, signal);
      const { status } = answer.response;
      if (status !== 200 && status !== 206) throw await this.refusal(answer, path);
      const isWhole = status === 200;
      let left = isWhole ? most : to - from;
      const chunks: Uint8Array<ArrayBuffer>[] = [];
      for await (const chunk of this.body(answer)) {
        chunks.push(chunk as Uint8Array<ArrayBuffer>);
        if ((left -= chunk.length) <= 0) break;
      }
      return { isWhole, blob: new Blob(chunks) };
    });
  }

  /** Tries up to `TRIES` times; a try after which `advanced()` is true counts as the first. */
  protected async retry<T>(
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
        if (tries === TRIES) {
          const failure = this.fail(`${message}, ${TRIES} times; ${advice}`);
          if (error instanceof Unreachable) failure.cause = error;
          throw failure;
        }
        // Random, so that clients that were refused together do not retry together.
        const wait = waitMs || retryMs * 2 ** (tries - 1) * (0.5 + Math.random());
        await pause(wait, signal);
      }
    }
  }

  /**
   * One request with its redirects. Only the endpoint's origin gets the token, and only until the
   * first redirect to another origin.
   */
  protected async get(
    url: string,
    headers: Readonly<Record<string, string>>,
    signal?: AbortSignal,
    method: "GET" | "HEAD" = "GET",
  ): Promise<Answer> {
    const { token } = this;
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
          method,
          headers: sent,
          redirect: isPage() ? "follow" : "manual",
          signal: stall.signal,
        }));
      } catch (error) {
        stall.throwIfAborted();
        throw await this.#noAnswer(error, at, isEndpoint, stall);
      }
      if (response.redirected) isEndpoint &&= new URL(response.url).origin === this.#origin;
      if (!REDIRECTS.includes(response.status)) return { response, stall, isEndpoint };
      await response.body?.cancel();
      at = this.#follow(at, response.headers.get("location"));
    }
    throw this.fail(
      `${this.host} redirects more than ${MAX_REDIRECTS} times; is its address right?`,
    );
  }

  /** The error for a request that got no response. */
  async #noAnswer(
    error: unknown,
    at: URL,
    isEndpoint: boolean,
    stall: StallTimeout,
  ): Promise<Error> {
    // A denied permission stays denied; its message names the flag.
    if (error instanceof Error && error.name === "NotCapable") return this.fail(error.message);
    if (!stall.isOver && isPage() && await isReachable(at)) {
      return this.fail(
        `${at.origin} does not allow this page to read it (CORS); it must send ` +
          `Access-Control-Allow-Origin: ${globalThis.location?.origin ?? "*"}`,
      );
    }
    const why = stall.isOver ? "no answer" : reasonOf(error);
    const { host } = this;
    return new Unreachable(
      `cannot reach ${
        isEndpoint ? host : `${at.origin}, the host that ${host} redirects to`
      } (${why})`,
      this.advice,
    );
  }

  #follow(from: URL, location: string | null): URL {
    const to = location === null ? null : URL.parse(location, from);
    const allowed = from.protocol === "https:" ? ["https:"] : ["http:", "https:"];
    if (to && allowed.includes(to.protocol)) return to;
    const got = to ? to.protocol : "none";
    throw this.fail(`expected ${this.host} to redirect to ${allowed.join(" or ")}, got ${got}`);
  }

  protected async *body({ response, stall, isEndpoint }: Answer): AsyncGenerator<Uint8Array> {
    const reader = response.body?.getReader();
    if (!reader) return;
    try {
      while (true) {
        let next: ReadableStreamReadResult<Uint8Array>;
        try {
          next = await stall.for(reader.read());
        } catch (error) {
          stall.throwIfAborted();
          const host = isEndpoint ? this.host : "the file host";
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

  /** A response that a later try may replace; undefined for any other. */
  protected transient({ status, headers }: Response, host: string, said?: string) {
    if (status !== 408 && status !== 429 && status < 500) return undefined;
    const what = status === 429 ? "too many requests" : said;
    return new Transient(
      `${host} answered ${status}${what ? ` (${what})` : ""}`,
      "try again later",
      waitOf(headers),
    );
  }
}

/**
 * Whether a server answers at all. A page's fetch reports a refusal by CORS and a missing
 * connection as the same error.
 */
async function isReachable(url: URL): Promise<boolean> {
  try {
    const signal = AbortSignal.timeout(10_000);
    await fetch(url, { method: "HEAD", mode: "no-cors", credentials: "omit", signal });
    return true;
  } catch {
    return false;
  }
}

/** A timeout for each piece of a response: aborts a connection that sends nothing for too long. */
export class StallTimeout {
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

/** Resolves after `ms` on the real clock. @throws the signal's reason, if it aborts first. */
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

/**
 * Whether a partial response begins at byte `from` of a file of `size` bytes. A server may hide
 * Content-Range from a page of another origin; then the length of the rest has to fit.
 */
function continues(headers: Headers, from: number, size: number): boolean {
  const range = headers.get("content-range");
  if (range === null) return Number(headers.get("content-length") ?? NaN) === size - from;
  const [, start, total] = range.match(/^bytes (\d+)-\d+\/(\d+|\*)$/) ?? [];
  return Number(start) === from && (total === "*" || size === Infinity || Number(total) === size);
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
