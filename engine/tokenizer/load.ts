/**
 * Tokenizer loader: detects the format (tokenizer.json, meta.json, meta.pkl, vocab.json with
 * merges.txt, or a record of a checkpoint) and opens it.
 *
 * @module
 */
import { openGguf } from "../checkpoint/gguf/mod.ts";
import type { Metadata } from "../checkpoint/gguf/metadata.ts";
import { CheckpointError } from "../errors.ts";
import {
  beside,
  exists,
  folderOf,
  kindOf,
  openFile,
  parentOf,
  readBytes,
  readJsonObject,
  readText,
} from "../host/files.ts";
import { isRecord } from "../json.ts";
import { charTokenizer } from "./char.ts";
import { fromGguf } from "./gguf.ts";
import { fromGpt2Files, withGpt2SpecialTokens } from "./gpt2_files.ts";
import { huggingFaceTokenizer } from "./huggingface.ts";
import { isNanogptMeta, MAX_META_BYTES, readMetaJson, readMetaPickle } from "./nanogpt_meta.ts";
import { fillSpecialTokens } from "./special_tokens.ts";
import { GPT2_CONFIG, gpt2File } from "./tiktoken.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** Tokenizer formats: LabCore's characters, GPT-2's BPE, Hugging Face's tokenizer.json. */
export type TokenizerKind = "char" | "bpe" | "hf";

/** Possible sources of a model's tokenizer; `findTokenizer()` states their precedence. */
export interface TokenizerSources {
  /** Required format; any other is an error. "bpe" selects GPT-2's BPE and ignores all sources. */
  readonly kind?: TokenizerKind;
  /** Path of a tokenizer file. */
  readonly meta?: string;
  /** Metadata of the model's GGUF file. */
  readonly gguf?: { readonly metadata: Metadata; readonly path: string };
  /** Tokenizer record of a LabCore checkpoint. */
  readonly record?: Record<string, unknown>;
  /** nanoGPT model: name of its data set (the folder of its meta.pkl) and its number of ids. */
  readonly nanogpt?: { readonly dataset?: string; readonly vocabSize: number };
  /** Folder with a `tokenizer.json`, `meta.json`, `meta.pkl`, or `vocab.json` and `merges.txt`. */
  readonly folder?: string;
}

/**
 * Loads a tokenizer from a folder, a file (a `.gguf` too) or a record. For a Hugging Face
 * tokenizer, also reads `tokenizer_config.json`, `special_tokens_map.json` and
 * `chat_template.jinja` from its folder.
 * @param source path of a folder (its `tokenizer.json`, else `meta.json`, else `meta.pkl`, else
 *   `vocab.json` and `merges.txt`), path of one of the first three files, or the parsed JSON of a
 *   file: Hugging Face's, or LabCore's `{ type: "char", vocab: ["\n", " ", …] }` or
 *   `{ type: "bpe", encoding_name: "gpt2" }`.
 * @returns the tokenizer.
 * @throws {CheckpointError} If the source has no tokenizer, is damaged, or has an unsupported
 *   format.
 * @example
 * ```ts
 * import { loadTokenizer } from "@wgslm/wgslm";
 *
 * const tokenizer = await loadTokenizer({ type: "bpe", encoding_name: "gpt2" });
 * const ids = tokenizer.encode("ROMEO:");
 * console.log(ids, tokenizer.decode(ids)); // [ 33676, 4720, 25 ] ROMEO:
 * ```
 */
export async function loadTokenizer(source: string | Record<string, unknown>): Promise<Tokenizer> {
  const found = typeof source !== "string"
    ? await fromRecord(source, {}, "the given tokenizer")
    : await kindOf(source) === "folder"
    ? await findTokenizer({ folder: source })
    : await fromFile(source);
  if (typeof found === "string") throw new CheckpointError(found);
  return found;
}

/**
 * Finds the tokenizer of a model. A model also works without one, with ids.
 *
 * Precedence: kind "bpe"; `meta`; `gguf`; `record`; the folder's tokenizer.json, meta.json,
 * meta.pkl; the data of `nanogpt`; the folder's vocab.json and merges.txt. The first one found
 * decides, even if its format is unsupported.
 * @returns the tokenizer, or the reason as a sentence: none found, or an unsupported format.
 * @throws {CheckpointError} If a file is damaged, its format is not `kind`, or `meta` is missing.
 */
export async function findTokenizer(sources: TokenizerSources): Promise<Tokenizer | string> {
  const { kind, meta, gguf, record, folder, nanogpt } = sources;
  if (kind === "bpe") return await fromRecord({ type: "bpe" }, {}, "GPT-2's ranks");
  if (meta !== undefined) return await fromFile(meta, kind);
  if (gguf) return await fromMetadata(gguf.metadata, `"${gguf.path}"`, kind);
  if (record) return await fromRecord(record, {}, "the checkpoint's tokenizer", kind);
  if (folder === undefined) {
    return `The model has no tokenizer; ${NAME_ONE}`;
  }
  for (const name of ["tokenizer.json", "meta.json", "meta.pkl"]) {
    const path = beside(folder, name);
    if (await exists(path)) return await fromFile(path, kind);
  }
  let denied = "";
  if (nanogpt) {
    const path = await nanogptMeta(folder, nanogpt.dataset).catch((error) => {
      // Parent folders may be outside of --allow-read, and the model works without its tokenizer.
      if (!(error instanceof CheckpointError)) throw error;
      denied = ` (${error.message})`;
      return undefined;
    });
    if (path !== undefined) return await fromFile(path, kind);
    if (GPT2_VOCABULARIES.includes(nanogpt.vocabSize)) {
      return await fromRecord({ type: "bpe" }, {}, "GPT-2's ranks", kind);
    }
  }
  const [vocab, merges] = ["vocab.json", "merges.txt"].map((name) => beside(folder, name));
  if (await exists(vocab) && await exists(merges)) {
    const config = await readConfig(folder);
    const file = fromGpt2Files(
      await readJsonObject(vocab),
      await readText(merges, "merges"),
      config,
    );
    if (typeof file === "string") {
      return `Cannot read "${vocab}": this version does not read ${file}; ${NAME_ONE}`;
    }
    return await fromRecord(file, withGpt2SpecialTokens(config), `"${vocab}"`, kind);
  }
  if (await exists(beside(folder, "tokenizer.model"))) {
    return `"${folder}" has no tokenizer.json, and this version does not read its ` +
      "tokenizer.model (SentencePiece); convert it with transformers: " +
      `AutoTokenizer.from_pretrained(folder).save_pretrained(folder), or ${NAME_ONE}`;
  }
  return `"${folder}" has no tokenizer${denied}; ${NAME_ONE}`;
}

/** The content of a tokenizer's files, from which another thread can open it again. */
export interface TokenizerRecord {
  readonly file: Record<string, unknown>;
  readonly config: Record<string, unknown>;
  /** Name in errors. */
  readonly where: string;
}

/** Content of the open tokenizers; null if it is not kept: 15 MiB of 49,000 tokens. */
let records: WeakMap<Tokenizer, TokenizerRecord> | null = null;

/** Keeps the content of each tokenizer that is opened from now on. */
export function keepRecords(): void {
  records ??= new WeakMap();
}

/** The content of an open tokenizer's files. Requires `keepRecords`. */
export function recordOf(tokenizer: Tokenizer): TokenizerRecord {
  return records!.get(tokenizer)!;
}

/** Opens a tokenizer by the content of its files. */
export async function openRecord(record: TokenizerRecord): Promise<Tokenizer | string> {
  return await fromRecord(record.file, record.config, record.where);
}

/** Next step of every error about a missing tokenizer, in flags of the command line. */
const NAME_ONE = "name one with --meta FILE or --tokenizer bpe, or give ids with --ids";

/**
 * Vocabulary sizes of nanoGPT models with GPT-2's BPE: 50,257, and the same rounded up to a
 * multiple of 64.
 */
const GPT2_VOCABULARIES: readonly number[] = [50257, 50304];

/** Number of parent folders searched for nanoGPT's data folder. */
const MOST_PARENTS = 16;

/** Path of the nearest `data/<dataset>/meta.pkl` or `.json` in a folder or its parents. */
async function nanogptMeta(folder: string, dataset?: string): Promise<string | undefined> {
  // The name comes from the checkpoint: reject one that escapes the data folder.
  if (dataset === undefined || !/^[^/\\:\p{Cc}][^\\:\p{Cc}]{0,254}$/u.test(dataset)) {
    return undefined;
  }
  if (dataset.split("/").includes("..")) return undefined;
  for (let at = folder, i = 0; i < MOST_PARENTS; i++) {
    for (const name of ["meta.pkl", "meta.json"]) {
      const path = beside(at, `data/${dataset}/${name}`);
      if (await exists(path)) return path;
    }
    const parent = parentOf(at);
    if (parent === at) return undefined;
    at = parent;
  }
}

async function fromFile(path: string, kind?: TokenizerKind): Promise<Tokenizer | string> {
  if (/\.gguf$/i.test(path)) return await fromGgufFile(path, kind);
  if (path.endsWith(".pkl")) {
    const vocab = readMetaPickle(await readBytes(path, "a vocabulary", MAX_META_BYTES), path);
    return await fromRecord({ type: "char", vocab }, {}, `"${path}"`, kind);
  }
  const file = await readJsonObject(path);
  if (isNanogptMeta(file)) {
    const vocab = readMetaJson(file, `"${path}"`);
    return await fromRecord({ type: "char", vocab }, {}, `"${path}"`, kind);
  }
  const config = isRecord(file.model) ? await readConfig(folderOf(path)) : {};
  return await fromRecord(file, config, `"${path}"`, kind);
}

/** The tokenizer of a GGUF file, or of the first of its parts. */
async function fromGgufFile(path: string, kind?: TokenizerKind): Promise<Tokenizer | string> {
  const parts: Disposable[] = [];
  try {
    const { metadata } = await openGguf(path, async (part) => {
      const source = await openFile(part);
      parts.push(source);
      return source;
    });
    return await fromMetadata(metadata, `"${path}"`, kind);
  } finally {
    for (const part of parts) part[Symbol.dispose]();
  }
}

async function fromMetadata(
  metadata: Metadata,
  where: string,
  kind?: TokenizerKind,
): Promise<Tokenizer | string> {
  const converted = fromGguf(metadata, where);
  if (typeof converted === "string") return `${converted}; ${NAME_ONE}`;
  return await fromRecord(converted.file, converted.config, where, kind);
}

/** tokenizer_config.json, filled from special_tokens_map.json and chat_template.jinja. */
async function readConfig(folder: string): Promise<Record<string, unknown>> {
  const [config, map] = await Promise.all(
    ["tokenizer_config.json", "special_tokens_map.json"].map(async (name) => {
      const path = beside(folder, name);
      return await exists(path) ? await readJsonObject(path) : {};
    }),
  );
  const filled = fillSpecialTokens(config, map);
  const template = beside(folder, "chat_template.jinja");
  // As in transformers, chat_template.jinja overrides the older field of the configuration.
  if (await exists(template)) filled.chat_template = await readText(template, "a chat template");
  return filled;
}

/**
 * Opens a parsed tokenizer of any format.
 * @param where name of the record in errors.
 */
async function fromRecord(
  file: Record<string, unknown>,
  config: Record<string, unknown>,
  where: string,
  kind?: TokenizerKind,
): Promise<Tokenizer | string> {
  const tokenizer = await parseRecord(file, config, where, kind);
  if (typeof tokenizer !== "string") records?.set(tokenizer, { file, config, where });
  return tokenizer;
}

async function parseRecord(
  file: Record<string, unknown>,
  config: Record<string, unknown>,
  where: string,
  kind?: TokenizerKind,
): Promise<Tokenizer | string> {
  // A meta.json nests the record under `tokenizer`. The content decides, not the file's name.
  const record = isRecord(file.tokenizer) ? file.tokenizer : file;
  const form = isRecord(record.model) ? "hf" : record.type;
  if (kind && form !== kind) {
    throw new CheckpointError(
      `Cannot read ${where}: expected a tokenizer of kind ${kind}, got ${show(form)}`,
    );
  }
  switch (form) {
    case "hf":
      return await huggingFaceTokenizer(record, config, where);
    case "char":
      return charTokenizer(record.vocab, where);
    case "bpe": {
      const { encoding_name: encoding = "gpt2" } = record;
      if (encoding === "gpt2") {
        return await huggingFaceTokenizer(await gpt2File(), GPT2_CONFIG, "GPT-2's ranks");
      }
      return `Cannot read ${where}: this version reads the encoding "gpt2" only, not ${
        show(encoding)
      }; ${NAME_ONE}`;
    }
  }
  throw new CheckpointError(
    `Cannot read ${where}: expected a tokenizer of type "char" or "bpe", ` +
      `or Hugging Face's form, got type ${show(record.type)}`,
  );
}

function show(value: unknown): string {
  return JSON.stringify(value) ?? "none";
}
