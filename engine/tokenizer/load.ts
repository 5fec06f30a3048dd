/**
 * Finds and opens a tokenizer, whatever the form it is kept in.
 *
 * @module
 */
import { CheckpointError } from "../errors.ts";
import {
  beside,
  exists,
  folderOf,
  kindOf,
  parentOf,
  readBytes,
  readJsonObject,
  readText,
} from "../host/files.ts";
import { isRecord } from "../json.ts";
import { charTokenizer } from "./char.ts";
import { fromGpt2Files, withGpt2SpecialTokens } from "./gpt2_files.ts";
import { huggingFaceTokenizer } from "./huggingface.ts";
import { isNanogptMeta, MAX_META_BYTES, readMetaJson, readMetaPickle } from "./nanogpt_meta.ts";
import { fillSpecialTokens } from "./special_tokens.ts";
import { GPT2_CONFIG, gpt2File } from "./tiktoken.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** A tokenizer's form: LabCore's characters, GPT-2's BPE, Hugging Face's tokenizer.json. */
export type TokenizerKind = "char" | "bpe" | "hf";

/** Where a model's tokenizer can be; what stands first here is taken first. */
export interface TokenizerPlaces {
  /** The form that it has to be of. "bpe" is GPT-2's own, whatever is found. */
  readonly kind?: TokenizerKind;
  /** Path of a file. */
  readonly meta?: string;
  /** What a checkpoint holds, as LabCore writes it. */
  readonly record?: Record<string, unknown>;
  /** A model of nanoGPT: its data set, under whose name the vocabulary may be, and its ids. */
  readonly nanogpt?: { readonly dataset?: string; readonly vocabSize: number };
  /**
   * A folder: its `tokenizer.json`, else its `meta.json`, else the `vocab.json` and
   * `merges.txt` of GPT-2's form.
   */
  readonly folder?: string;
}

/**
 * Loads a tokenizer.
 * @param source a folder (its `tokenizer.json`, else its `meta.json`, else `vocab.json` and
 * `merges.txt`), one of the first two, or what they hold: LabCore's
 * `{ type: "char", vocab: ["\n", " ", …] }` or `{ type: "bpe", encoding_name: "gpt2" }`, or Hugging
 * Face's form. What lies beside a Hugging Face file (`tokenizer_config.json`,
 * `special_tokens_map.json`, `chat_template.jinja`) is read with it.
 * @throws {CheckpointError} when there is none, it is damaged, or it is of a kind that
 * this version does not read.
 */
export async function loadTokenizer(source: string | Record<string, unknown>): Promise<Tokenizer> {
  const found = typeof source !== "string"
    ? await fromRecord(source, {}, "the tokenizer that was given")
    : await kindOf(source) === "folder"
    ? await findTokenizer({ folder: source })
    : await fromFile(source);
  if (typeof found === "string") throw new CheckpointError(found);
  return found;
}

/**
 * Finds the tokenizer of a model, which a model can do without.
 * @returns the tokenizer, or the sentence that tells why there is none: nothing there, or a kind
 * that this version does not read.
 * @throws {CheckpointError} when it is damaged or of another form than `kind`,
 * or when `meta` is missing.
 */
export async function findTokenizer(places: TokenizerPlaces): Promise<Tokenizer | string> {
  const { kind, meta, record, folder, nanogpt } = places;
  if (kind === "bpe") return await fromRecord({ type: "bpe" }, {}, "GPT-2's ranks");
  if (meta !== undefined) return await fromFile(meta, kind);
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
      // Above the folder, a permission may end; ids work without.
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
    return `"${folder}" has no tokenizer.json, and its tokenizer.model (SentencePiece) is not ` +
      "read by this version; transformers " +
      `makes one: AutoTokenizer.from_pretrained(folder).save_pretrained(folder), or ${NAME_ONE}`;
  }
  return `"${folder}" has no tokenizer${denied}; ${NAME_ONE}`;
}

/** The next step without a tokenizer, on the command line. */
const NAME_ONE = "name one with --meta FILE or --tokenizer bpe, or give ids with --ids";

/**
 * Numbers of ids that mean GPT-2's BPE in nanoGPT: its own, and that rounded
 * up to a multiple of 64.
 */
const GPT2_VOCABULARIES: readonly number[] = [50257, 50304];

/** Folders above a checkpoint in which nanoGPT's data is looked for. */
const MOST_PARENTS = 16;

/** `data/<dataset>/meta.pkl` in the nearest folder above that has one. */
async function nanogptMeta(folder: string, dataset?: string): Promise<string | undefined> {
  // The name is from a file: it may not lead out of the data's folder.
  if (dataset === undefined || !/^[\w.-]+(\/[\w.-]+)*$/.test(dataset)) return undefined;
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

/**
 * What a folder tells of a Hugging Face tokenizer beside the tokenizer itself, as
 * one tokenizer_config.json.
 */
async function readConfig(folder: string): Promise<Record<string, unknown>> {
  const [config, map] = await Promise.all(
    ["tokenizer_config.json", "special_tokens_map.json"].map(async (name) => {
      const path = beside(folder, name);
      return await exists(path) ? await readJsonObject(path) : {};
    }),
  );
  const filled = fillSpecialTokens(config, map);
  const template = beside(folder, "chat_template.jinja");
  // As in transformers, the file of its own is the newer one.
  if (await exists(template)) filled.chat_template = await readText(template, "a chat template");
  return filled;
}

/** @param where names the record in messages. */
async function fromRecord(
  file: Record<string, unknown>,
  config: Record<string, unknown>,
  where: string,
  kind?: TokenizerKind,
): Promise<Tokenizer | string> {
  // A meta.json has the record under a key of its own; told by content, so that
  // a file may have any name.
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
    `Cannot read ${where}: expected a tokenizer of type "char" or "bpe", or Hugging Face's form, got type ${
      show(record.type)
    }`,
  );
}

function show(value: unknown): string {
  return JSON.stringify(value) ?? "none";
}
