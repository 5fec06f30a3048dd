/**
 * Options and progress of a download from the hub.
 *
 * @module
 */

/** Options of a download from the hub. */
export interface HubOptions {
  /** Branch, tag or commit; default "main". */
  readonly revision?: string;
  /**
   * Access token; default `HF_TOKEN`, else the file `HF_TOKEN_PATH`, else the file `token` in
   * `HF_HOME`. "" sends no token.
   */
  readonly token?: string;
  /** Cache folder; default `HF_HUB_CACHE`, else `hub` in `HF_HOME` or `~/.cache/huggingface`. */
  readonly cacheDir?: string;
  /**
   * In a page: whether files are kept in the page's storage ("opfs", the default) or read anew by
   * each load (false).
   */
  readonly cache?: "opfs" | false;
  /** Uses the cache and makes no network requests; default `HF_HUB_OFFLINE`. */
  readonly offline?: boolean;
  /** Called as bytes arrive. `total` is absent until the list of files is known. */
  readonly onProgress?: (progress: HubProgress) => void;
  /** Stops the download; partial files are kept. */
  readonly signal?: AbortSignal;
}

/** Progress of a download. */
export interface HubProgress {
  /** Always "download". */
  readonly stage: "download";
  /** The file that the new bytes belong to. */
  readonly file?: string;
  /** Bytes of all files received so far. */
  readonly loaded: number;
  /** Bytes of all files to fetch. */
  readonly total?: number;
}
