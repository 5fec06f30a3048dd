/// <reference lib="dom" />
/**
 * Page that loads a model, chats with it and measures it.
 *
 *     app.ts ──▶ model.ts, chat.ts, bench.ts, kernels.ts ──▶ session.ts ──▶ mod.ts
 *
 * @module
 */
import { connectBench } from "./bench.ts";
import { connectChat } from "./chat.ts";
import { byId, show } from "./dom.ts";
import { connectKernels } from "./kernels.ts";
import { connectModel } from "./model.ts";
import { Session } from "./session.ts";

const TABS = ["chat", "bench", "kernels"];

/** Selects a tab. */
function select(name: string): void {
  for (const other of TABS) {
    const tab = byId(`tab-${other}`);
    tab.setAttribute("aria-selected", String(other === name));
    tab.tabIndex = other === name ? 0 : -1;
    show(byId(`panel-${other}`), other === name);
  }
}

/** Tabs by pointer and by arrow keys (WAI-ARIA's pattern). */
function connectTabs(): void {
  const steps: Readonly<Record<string, number>> = { ArrowRight: 1, ArrowLeft: -1 };
  for (const [at, name] of TABS.entries()) {
    const tab = byId(`tab-${name}`);
    tab.addEventListener("click", () => select(name));
    tab.addEventListener("keydown", ({ key }) => {
      const step = steps[key];
      if (step === undefined) return;
      const next = TABS[(at + step + TABS.length) % TABS.length];
      select(next);
      byId(`tab-${next}`).focus();
    });
  }
}

const session = new Session();
connectTabs();
connectModel(session);
connectChat(session);
connectBench(session);
connectKernels(session);
