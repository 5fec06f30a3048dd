/**
 * HTTP client for a model at a URL: facts of a file, download, ranges.
 *
 * @module
 */
import { CheckpointError } from "../errors.ts";
import type { ByteSource } from "../host/mod.ts";
import { type Answer, HttpClient, type HubTimes, type Sink, TIMES } from "./http.ts";
import { RangeSource } from "./range_source.ts";

/** A file at a server, as its headers describe it; undefined for a header that is not readable. */
export interface RemoteFile {
  /** Bytes. */
  readonly size?: number;
  readonly etag?: string;
  /** Last-Modified. */
  readonly modified?: string;
}

/** Statuses of servers that refuse HEAD, or whose signed URLs are for GET alone. */
const NO_HEAD = [400, 403, 405, 501];

/** Client for the files around one URL. */
export class UrlClient extends HttpClient {
  /**
   * @param source the URL that the caller named, without a query.
   * @param query added to every URL of the same origin, such as a signature.
   * @param token sent to that origin.
   */
  constructor(
    readonly source: string,
    readonly query: string,
    token?: string,
    times: HubTimes = TIMES,
  ) {
    super(
      new URL(source).origin,
      token,
      times,
      "check the address, the connection, and that the server allows this page (CORS)",
    );
  }

  fail(message: string): CheckpointError {
    return new CheckpointError(`Cannot open "${this.source}": ${message}`);
  }

  protected async refusal({ response, isEndpoint }: Answer, path?: string): Promise<Error> {
    await response.body?.cancel();
    const { status } = response;
    const host = isEndpoint ? this.host : "the file host";
    const transient = this.transient(response, host);
    if (transient) return transient;
    if (status === 404 || status === 410) return this.fail(`there is no such file at ${host}`);
    return this.fail(
      `${host} answered ${status}${path === undefined ? "" : ` for "${path}"`}; ` +
        "check the address, and whether it needs a login",
    );
  }

  /**
   * Facts of a file; null if there is none. A page of HTML is none: many servers answer every
   * unknown path with one.
   * @param once whether to give up after one try.
   */
  async stat(url: string, once: boolean, signal?: AbortSignal): Promise<RemoteFile | null> {
    const attempt = async () => {
      // A range asks for no compression, so that the length is that of the file.
      let answer = await this.get(this.#signed(url), { range: "bytes=0-" }, signal, "HEAD");
      if (NO_HEAD.includes(answer.response.status)) {
        answer = await this.get(this.#signed(url), { range: "bytes=0-0" }, signal);
      }
      const { response: { status, headers, body } } = answer;
      await body?.cancel();
      // Stores of objects answer 403 for an object that is missing.
      if ([403, 404, 410].includes(status)) return null;
      if (status !== 200 && status !== 206 && status !== 416) throw await this.refusal(answer, url);
      if (/^text\/html\b/i.test(headers.get("content-type") ?? "")) return null;
      return factsOf(status, headers);
    };
    return once ? await attempt() : await this.retry(signal, attempt);
  }

  /** Downloads a file from the sink's position to its end. */
  async download(url: string, file: RemoteFile, sink: Sink, signal?: AbortSignal): Promise<void> {
    const path = url.slice(url.lastIndexOf("/") + 1);
    await this.downloadFrom(this.#signed(url), { path, size: file.size }, sink, signal);
  }

  /** Opens a file for reading by ranges, without a copy. */
  open(url: string, file: RemoteFile, signal?: AbortSignal): ByteSource {
    return new RangeSource(url, file, (from, to) => {
      return this.range(this.#signed(url), { path: url, from, to }, signal);
    });
  }

  #signed(url: string): string {
    return new URL(url).origin === this.host ? url + this.query : url;
  }
}

function factsOf(status: number, headers: Headers): RemoteFile {
  const range = headers.get("content-range")?.match(/\/(\d+)$/)?.[1];
  const length = status === 200 || range === undefined ? headers.get("content-length") : range;
  return {
    size: length === null || status === 416 ? undefined : Number(length),
    etag: headers.get("etag") ?? undefined,
    modified: headers.get("last-modified") ?? undefined,
  };
}
