/// <reference lib="dom" />
/**
 * Choice and loading of a model: the demo, an address, files; files kept in the browser.
 *
 * @module
 */
import {
  cachedModels,
  cacheSpace,
  loadModel,
  type LoadOptions,
  type LoadProgress,
  type Model,
  removeCachedModel,
} from "../mod.ts";
import { byId, bytes, count, make, sentence, show } from "./dom.ts";
import type { Session } from "./session.ts";

type Source = Parameters<typeof loadModel>[0];

/** Folder of the demo, beside the page. */
const DEMO = "demo/";

let loading: AbortController | null = null;

/** Connects the section "Model". */
export function connectModel(session: Session): void {
  const load = (source: Source) => void loadFrom(session, source);
  const source = byId<HTMLInputElement>("source");
  byId("load-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const address = source.value.trim();
    if (address) load(address);
    else fail("Enter an address such as hf:owner/name, or load the demo.");
  });
  byId("demo").addEventListener("click", () => load(DEMO));
  for (const [button, id] of [["pick-files", "files"], ["pick-folder", "folder"]]) {
    const input = byId<HTMLInputElement>(id);
    byId(button).addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      if (input.files?.length) load([...input.files]);
      input.value = ""; // the same files can be chosen again
    });
  }
  connectDrop(load);
  byId("cancel").addEventListener("click", () => loading?.abort());
  byId("unload").addEventListener("click", () => void session.use(null).then(() => source.focus()));
  session.onChange(({ model, isBusy }) => {
    show(byId("loaded"), model !== null);
    byId<HTMLButtonElement>("unload").disabled = isBusy;
    if (model) showModel(model);
  });
  byId("stored").addEventListener("toggle", () => void listStored());
}

function connectDrop(load: (source: Source) => void): void {
  const drop = byId("drop");
  const mark = (isOver: boolean) => drop.classList.toggle("over", isOver);
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    mark(true);
  });
  drop.addEventListener("dragleave", () => mark(false));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(false);
    const { items, files } = event.dataTransfer!;
    // A folder has a handle, where the browser knows handles; its entry among the files is empty.
    const item = items[0] as DataTransferItem & {
      getAsFileSystemHandle?(): Promise<FileSystemHandle | null>;
    };
    const dropped = [...files];
    const handle = items.length === 1 ? item.getAsFileSystemHandle?.() : undefined;
    void Promise.resolve(handle).then((found) =>
      load(found?.kind === "directory" ? found as FileSystemDirectoryHandle : dropped)
    );
  });
}

/** The settings of the form. */
function settings(): LoadOptions {
  const value = (id: string) => byId<HTMLInputElement | HTMLSelectElement>(id).value;
  const number = (id: string) => value(id) === "" ? undefined : Number(value(id));
  return {
    device: value("device") as LoadOptions["device"],
    dtype: value("dtype") as LoadOptions["dtype"],
    contextLength: number("context"),
    threads: number("threads"),
    cache: byId<HTMLInputElement>("keep").checked ? "opfs" : false,
  };
}

async function loadFrom(session: Session, source: Source): Promise<void> {
  if (loading || session.isBusy) return;
  loading = new AbortController();
  const { signal } = loading;
  fail(null);
  setLoading(true);
  await session.use(null);
  progress("Preparing …");
  try {
    const options = { ...settings(), signal, onProgress: showProgress };
    await session.use(await loadModel(source, options));
    byId("loaded").focus();
  } catch (error) {
    fail(signal.aborted ? null : sentence(error));
  } finally {
    loading = null;
    setLoading(false);
    void listStored();
  }
}

function setLoading(isLoading: boolean): void {
  show(byId("loading"), isLoading);
  for (const id of ["load", "demo", "pick-files", "pick-folder"]) {
    byId<HTMLButtonElement>(id).disabled = isLoading;
  }
}

function fail(message: string | null): void {
  const error = byId("load-error");
  error.textContent = message ?? "";
  show(error, message !== null);
}

function progress(text: string, share?: number): void {
  const line = byId("loading-text");
  if (line.textContent !== text) line.textContent = text;
  const bar = byId<HTMLProgressElement>("loading-bar");
  if (share === undefined) bar.removeAttribute("value");
  else bar.value = share;
}

function showProgress({ stage, file, loaded, total }: LoadProgress): void {
  const name = file?.replace(/^.*\//, "") ?? "files";
  const what = stage === "download" ? `Downloading ${name}` : "Reading the weights";
  const of = total ? ` of ${bytes(total)}` : "";
  const isReady = stage === "weights" && loaded === total;
  progress(
    isReady ? "Preparing the kernels …" : `${what}: ${bytes(loaded)}${of}`,
    isReady || !total ? undefined : loaded / total,
  );
}

function showModel(model: Model): void {
  const { backend, config } = model;
  byId("loaded-title").textContent = model.id.replace(/^files:\//, "").replace(/\/$/, "");
  const device = backend.name === "webgpu"
    ? `WebGPU, ${backend.description}`
    : `${backend.name === "wasm" ? "WebAssembly" : "JavaScript"}, ${
      backend.threads === 1 ? "one thread" : `${backend.threads} threads`
    }`;
  byId("facts").replaceChildren(...facts([
    ["Device", device],
    ["Family", config.family],
    ["Parameters", count(model.parameters)],
    ["Layers", String(config.nLayer)],
    ["Weights", `${model.dtype}, ${bytes(model.weightsBytes)}`],
    ["Memory", bytes(model.memory.current)],
    ["Context", `${count(model.contextLength)} tokens`],
    ["Loaded in", `${(model.loadMs / 1000).toFixed(1)} s`],
  ]));
  const notes = byId("notes");
  notes.replaceChildren(...model.notes.map((note) => make("li", {}, note)));
  show(notes, model.notes.length > 0);
}

/** Terms and values of a description list. */
export function facts(pairs: readonly (readonly [string, string])[]): HTMLElement[] {
  return pairs.map(([term, value]) => make("div", {}, make("dt", {}, term), make("dd", {}, value)));
}

async function listStored(): Promise<void> {
  const list = byId("stored-list");
  try {
    const [models, { free }] = await Promise.all([cachedModels(), cacheSpace()]);
    byId("stored-space").textContent = models.length
      ? `The browser grants ${bytes(free)} more.`
      : `No files are kept. The browser grants ${bytes(free)}.`;
    list.replaceChildren(...models.map(({ source, bytes: size, isPartial }) => {
      const remove = make("button", { type: "button", "aria-label": `Remove ${source}` }, "Remove");
      remove.addEventListener("click", () => void removeCachedModel(source).then(listStored));
      const text = `${source} (${bytes(size)}${isPartial ? ", not complete" : ""})`;
      return make("li", {}, make("span", {}, text), remove);
    }));
  } catch (error) {
    byId("stored-space").textContent = sentence(error);
    list.replaceChildren();
  }
}
