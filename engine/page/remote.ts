/**
 * Model of a page: the engine runs in a worker, and this end of it has the same members.
 *
 *     page                                worker (worker.ts)
 *     RemoteModel ──▶ EngineLink ──────▶ Model ──▶ backend ──▶ GPU, or threads
 *     tokenizer, for encode and decode    tokenizer, for generate and chat
 *
 * @module
 */
import { Memory } from "../../kernels/memory.ts";
import { checkGenerate, type GeneratedToken, type GenerateOptions } from "../generate.ts";
import { checkOptions, checkSource, type LoadOptions } from "../load_options.ts";
import { Model, type ModelBackend, remoteCalls } from "../model.ts";
import { copyIds, expectType } from "../options.ts";
import { openRecord } from "../tokenizer/load.ts";
import type { ChatMessage, Tokenizer } from "../tokenizer/tokenizer.ts";
import { EngineLink } from "./link.ts";
import { isFolder, type OpenedModel, type PageSource } from "./messages.ts";

/** As `loadModel`, in a page. */
export async function loadRemote(source: unknown, options: LoadOptions): Promise<Model> {
  checkOptions(options);
  const sent = sourceOf(source);
  const link = new EngineLink(nameOf(sent));
  try {
    const opened = await link.call<OpenedModel>("load", [sent], options);
    const { tokenizer } = opened;
    const own = typeof tokenizer === "string" ? tokenizer : await openRecord(tokenizer);
    return new RemoteModel(link, opened, own);
  } catch (error) {
    link.end(new Error("Cannot load the model: it failed before"));
    throw error;
  }
}

/** A source that can be sent: URLs are resolved against the page's. */
function sourceOf(source: unknown): PageSource {
  if (isFolder(source)) return source;
  if (isList(source)) {
    const files = [...source];
    const areFiles = files.every((file) => file instanceof File);
    expectType("Cannot load: expected a list", "of files", areFiles, files);
    return files as File[];
  }
  if (!(source instanceof URL)) checkSource(source, true);
  if (typeof source !== "string" && !(source instanceof URL)) return source as PageSource;
  const text = String(source);
  if (text.startsWith("hf:")) return text;
  const base = (globalThis as { document?: { baseURI: string } }).document?.baseURI ??
    globalThis.location?.href;
  const url = URL.parse(text, base);
  const isHttp = url?.protocol === "https:" || url?.protocol === "http:";
  if (!url || !isHttp || url.username || url.password) {
    throw new TypeError(
      `Cannot load: expected an http or https URL without a user, hf:owner/name, files, or a ` +
        `folder, got ${JSON.stringify(text.slice(0, 200))}`,
    );
  }
  return repositoryAt(url) ?? url.href;
}

/** `hf:owner/name` of a repository's page at the hub. */
function repositoryAt({ hostname, pathname }: URL): string | undefined {
  if (hostname !== "huggingface.co" && hostname !== "hf.co") return undefined;
  const [, repo] = /^\/([^/]+\/[^/]+?)(?:\/tree\/main)?\/?$/.exec(pathname) ?? [];
  return repo && `hf:${repo}`;
}

/** Whether a source is a list: an array, or an input's `FileList`. */
function isList(source: unknown): source is Iterable<unknown> {
  return typeof source === "object" && source !== null && Symbol.iterator in source;
}

function nameOf(source: PageSource): string {
  if (typeof source === "string") return source.replace(/[?#].*$/, "");
  return isFolder(source) ? source.name : Array.isArray(source) ? "files" : "random weights";
}

/** A model whose engine is in a worker. */
class RemoteModel extends Model {
  readonly #link: EngineLink;
  readonly #opened: OpenedModel;

  constructor(link: EngineLink, opened: OpenedModel, tokenizer: Tokenizer | string) {
    const { shaders } = opened;
    const backend: ModelBackend = {
      ...opened.backend,
      memory: Object.assign(new Memory(), opened.memory),
      ...shaders && { shaders: () => shaders },
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
    super(backend, opened.config, null, tokenizer, {
      ...opened,
      openPlain: () => Promise.reject(new Error("Cannot open a copy in a page")),
    });
    this.#link = link;
    this.#opened = opened;
    link.events = {
      onMemory: (memory) => void Object.assign(backend.memory, memory),
      onReopened: (again) => void Object.assign(backend, again.backend),
    };
    remoteCalls.set(this, (name, args, options) => link.call(name, args, options));
  }

  override get contextLength(): number {
    return this.#opened.contextLength;
  }

  override get kvDtype(): string {
    return this.#opened.kvDtype;
  }

  override generate(
    prompt: string | readonly number[],
    options: GenerateOptions = {},
  ): AsyncIterableIterator<GeneratedToken> {
    checkGenerate(options);
    if (typeof prompt === "string") return this.#generate("text", prompt, options);
    return this.#generate("ids", copyIds(prompt, this.config.vocabSize), options);
  }

  override chat(
    messages: readonly ChatMessage[],
    options: GenerateOptions = {},
  ): AsyncIterableIterator<GeneratedToken> {
    checkGenerate(options);
    return this.#generate("chat", messages, options);
  }

  override async logits(ids: readonly number[]): Promise<Float32Array> {
    return await this.#link.call("logits", [copyIds(ids, this.config.vocabSize)]);
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    this.#link.end(new Error(`Cannot use "${this.id}": it was disposed of`));
    Object.assign(this.memory, new Memory());
    await super[Symbol.asyncDispose]();
  }

  async *#generate(
    kind: "text" | "ids" | "chat",
    input: unknown,
    options: GenerateOptions,
  ): AsyncGenerator<GeneratedToken, void, undefined> {
    const link = this.#link;
    const { id, result } = link.post("start", [kind, input], options);
    using _following = link.follow(id, options.signal ?? undefined);
    await result;
    let isDone = false;
    try {
      while (true) {
        const next = await link.call<IteratorResult<GeneratedToken, void>>("next", [id]);
        if (next.done) {
          isDone = true;
          return;
        }
        yield next.value;
      }
    } finally {
      // Frees the model for the next generation; an ended worker has nothing to free.
      const stopped = link.call("stop", [id]);
      if (isDone) await stopped;
      else await stopped.catch(() => {});
    }
  }
}
