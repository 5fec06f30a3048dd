/**
 * HTTP client for the Hugging Face hub: listing, download, error messages.
 *
 * @module
 */
import { CheckpointError } from "../errors.ts";
import { isPage } from "../host/builtin.ts";
import type { ByteSource } from "../host/mod.ts";
import { isRecord } from "../json.ts";
import { type Answer, HttpClient, type HubTimes, type Sink } from "./http.ts";
import { RangeSource } from "./range_source.ts";

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

/** Largest listing that is read. */
const MAX_LISTING_BYTES = 100_000_000;

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
export class HubClient extends HttpClient {
  constructor(readonly target: HubTarget, times: HubTimes) {
    const advice = `check the connection${isPage() ? "" : "; --offline uses the cache"}`;
    super(target.endpoint, target.token, times, advice);
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
    return this.retry(signal, async () => {
      const answer = await this.get(`${url}?blobs=true`, {}, signal);
      if (answer.response.status !== 200) throw await this.refusal(answer);
      const text = new TextDecoder();
      let json = "";
      let size = 0;
      for await (const chunk of this.body(answer)) {
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
    await this.downloadFrom(this.#urlOf(file, commit), file, sink, signal);
  }

  /** Opens a file for reading its first bytes by ranges. */
  open(file: HubFile, commit: string, signal?: AbortSignal): ByteSource {
    const { path } = file;
    return new RangeSource(`hf:${this.target.repo}/${path}`, file, (from, to) => {
      return this.range(this.#urlOf(file, commit), { path, from, to, most: to }, signal);
    });
  }

  #urlOf({ path }: HubFile, commit: string): string {
    const { endpoint, repo } = this.target;
    const escaped = path.split("/").map(encodeURIComponent).join("/");
    return `${endpoint}/${repo}/resolve/${commit}/${escaped}`;
  }

  /** The error for an unsuccessful response: what it means and what to do. */
  protected async refusal({ response, isEndpoint }: Answer, path?: string): Promise<Error> {
    await response.body?.cancel();
    const { status, headers } = response;
    const { endpoint, repo, revision, token } = this.target;
    const code = headers.get("x-error-code");
    // Another host's message may repeat the signature of the requested URL.
    const said = isEndpoint ? headers.get("x-error-message")?.slice(0, 300) : undefined;
    const host = isEndpoint ? endpoint : `the file host of ${endpoint}`;
    const transient = this.transient(response, host, said);
    if (transient) return transient;
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
