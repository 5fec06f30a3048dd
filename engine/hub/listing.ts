/**
 * The hub's listing of a revision, and the choice of the files of a model in it.
 *
 * @module
 */
import { isRecord } from "../json.ts";
import type { HubClient, HubFile } from "./client.ts";
import { chooseGguf, type HubName } from "./gguf.ts";
import { isCommit, isSafePath } from "./names.ts";

/** Files fetched besides the weights, if a repository has them. */
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
 * Tokenizer files before tokenizer.json. tokenizer.model is fetched only so that the error can say
 * that this tokenizer is not supported.
 */
const OLD_TOKENIZER = ["vocab.json", "merges.txt", "tokenizer.model"];

/** Weight files in order of preference: safetensors before pickles, one file before shards. */
export const WEIGHTS: readonly string[] = [
  "model.safetensors",
  "model.safetensors.index.json",
  "pytorch_model.bin",
  "pytorch_model.bin.index.json",
];

/** Extensions of weight files, supported or not. */
const ENDINGS = /\.(safetensors|bin|pt|pth|ckpt|gguf|onnx|h5|msgpack|npz|tflite)$/i;

/** The hub's listing of a revision, checked field by field, and the choice of files to fetch. */
export class Listing {
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

  /** The files to fetch besides the weights. */
  small(): HubFile[] {
    if (!this.#files.has("config.json")) {
      throw this.client.fail("it has no config.json, which describes the model");
    }
    const old = this.#files.has("tokenizer.json") ? [] : OLD_TOKENIZER;
    return [...SMALL_FILES, ...old].filter((name) => this.#files.has(name))
      .map((name) => this.file(name));
  }

  /** All parts of the GGUF that is named, or that a repository without other weights has. */
  gguf(wanted: HubName): HubFile[] | undefined {
    const isNamed = wanted.tag !== undefined || wanted.file !== undefined;
    if (!isNamed && this.#weightName() !== undefined) return undefined;
    const fail = (expected: string) => {
      throw this.client.fail(expected);
    };
    return chooseGguf([...this.#files.keys()], wanted, fail)?.map((path) => this.file(path));
  }

  #weightName(): string | undefined {
    return WEIGHTS.find((name) => this.#files.has(name));
  }

  /** The weight file, or the index of the shards. */
  weights(): HubFile {
    const name = this.#weightName();
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

  /** A shard, by its name in the index. */
  shard(name: string, index: string): HubFile {
    if (this.#files.has(name)) return this.file(name);
    throw this.client.fail(
      `${index} names ${JSON.stringify(name)}, which is not in the repository`,
    );
  }

  /** A file of the listing, with its size and hash. */
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
      `expected a plain name, a size and a hash for ${
        JSON.stringify(path)
      } from ${this.client.target.endpoint}`,
    );
  }
}
