/// <reference lib="dom" />
/**
 * Kernels of the model: their share of the time, and the text of each shader.
 *
 * @module
 */
import { type Model, profile, type ProfileReport } from "../mod.ts";
import { byId, bytes, make, sentence, show } from "./dom.ts";
import type { Session } from "./session.ts";

/** Connects the panel "Kernels". */
export function connectKernels(session: Session): void {
  byId("kernels-time").addEventListener("click", () => void time(session));
  let last: Model | null = null;
  session.onChange(({ model, isBusy }) => {
    byId<HTMLButtonElement>("kernels-time").disabled = model === null || isBusy;
    if (model === last) return;
    last = model;
    byId("kernels-shares").replaceChildren();
    show(byId("kernels-error"), false);
    showTexts(model);
  });
}

async function time(session: Session): Promise<void> {
  await session.run(async (model) => {
    show(byId("kernels-error"), false);
    byId("kernels-status").textContent = "Timing …";
    try {
      const { decode, prefill } = await profile(model, { length: 128 });
      byId("kernels-shares").replaceChildren(
        table(`One token (${decode.ms.toFixed(2)} ms)`, decode),
        table(`A prompt of ${prefill.rows} tokens (${prefill.ms.toFixed(2)} ms)`, prefill),
      );
    } catch (error) {
      byId("kernels-error").textContent = sentence(error);
      show(byId("kernels-error"), true);
    } finally {
      byId("kernels-status").textContent = "";
    }
  });
}

function table(title: string, { kernels }: ProfileReport["decode"]): HTMLElement {
  const head = ["Kernel", "Calls", "ms", "Share"].map((text) => make("th", { scope: "col" }, text));
  const rows = kernels.toSorted((a, b) => b.share - a.share).map(({ name, calls, ms, share }) => {
    const bar = make("span");
    bar.style.width = `${100 * share}%`;
    return make(
      "tr",
      {},
      make("th", { scope: "row" }, name),
      make("td", {}, String(calls)),
      make("td", {}, ms.toFixed(3)),
      make("td", {}, `${(100 * share).toFixed(1)} %`),
      make("td", { class: "bar", "aria-hidden": "true" }, bar),
    );
  });
  const filler = make("td", { "aria-hidden": "true" });
  return make(
    "div",
    { class: "scroll", tabindex: "0", role: "group", "aria-label": title },
    make(
      "table",
      {},
      make("caption", {}, title),
      make("thead", {}, make("tr", {}, ...head, filler)),
      make("tbody", {}, ...rows),
    ),
  );
}

function showTexts(model: Model | null): void {
  const shaders = model?.backend.shaders?.() ?? [];
  byId("kernels-empty").textContent = model === null
    ? "Load a model to see its kernels."
    : shaders.length
    ? `${shaders.length} shaders in WGSL, as the GPU compiles them.`
    : "Shaders are shown of a model on WebGPU; this one runs on the processor.";
  byId("kernels-texts").replaceChildren(...shaders.map(({ name, calls, text, bytes: size }) =>
    make(
      "details",
      {},
      make("summary", {}, `${name}: ${calls} calls, ${bytes(size)}`),
      make("pre", { tabindex: "0", role: "group", "aria-label": `WGSL of ${name}` }, text),
    )
  ));
}
