/// <reference lib="dom" />
/**
 * Conversation with the model, streamed; continuation of a text where it has no chat template.
 *
 * @module
 */
import type { ChatMessage, GenerateOptions, Model } from "../mod.ts";
import { byId, make, sentence, show } from "./dom.ts";
import type { Session } from "./session.ts";

const messages: ChatMessage[] = [];
let running: AbortController | null = null;

/** Connects the panel "Chat". */
export function connectChat(session: Session): void {
  const prompt = byId<HTMLTextAreaElement>("prompt");
  byId("chat-form").addEventListener("submit", (event) => {
    event.preventDefault();
    void send(session, prompt);
  });
  prompt.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    void send(session, prompt);
  });
  byId("stop").addEventListener("click", () => running?.abort());
  byId("clear").addEventListener("click", () => {
    clear();
    prompt.focus();
  });
  let last: Model | null = null;
  session.onChange(({ model, isBusy }) => {
    if (model !== last) {
      clear();
      const isChat = model !== null && canChat(model);
      byId("prompt-label").textContent = model && !isChat ? "Beginning of a text" : "Message";
      byId("chat-empty").textContent = model === null
        ? "Load a model, and the conversation begins here."
        : isChat
        ? "Write a message. Enter sends it, Shift + Enter makes a new line."
        : "This model has no chat template: it continues the text that you begin.";
      prompt.value = model && !isChat ? "ROMEO:" : "";
    }
    last = model;
    prompt.disabled = model === null;
    byId<HTMLButtonElement>("send").disabled = model === null || isBusy;
    byId<HTMLButtonElement>("stop").disabled = running === null;
    byId<HTMLButtonElement>("clear").disabled = model === null || isBusy;
  });
}

/** Whether a model has a chat template. */
function canChat(model: Model): boolean {
  try {
    return model.tokenizer.applyChatTemplate([{ role: "user", content: "Hi" }]) !== "";
  } catch {
    return false;
  }
}

function clear(): void {
  messages.length = 0;
  byId("chat-log").replaceChildren();
  show(byId("chat-log"), false);
  show(byId("chat-empty"), true);
  show(byId("chat-error"), false);
  byId("chat-rate").textContent = "";
}

function options(signal: AbortSignal): GenerateOptions {
  const number = (id: string) => Number(byId<HTMLInputElement>(id).value);
  const seed = byId<HTMLInputElement>("seed").value;
  return {
    maxNewTokens: number("max-tokens"),
    temperature: number("temperature"),
    topK: number("top-k"),
    ...seed !== "" && { seed: Number(seed) },
    signal,
  };
}

async function send(session: Session, prompt: HTMLTextAreaElement): Promise<void> {
  const text = prompt.value;
  if (!session.model || session.isBusy || text.trim() === "") return;
  running = new AbortController();
  const { signal } = running;
  await session.run(async (model) => {
    show(byId("chat-error"), false);
    show(byId("chat-empty"), false);
    const isChat = canChat(model);
    if (isChat) {
      messages.push({ role: "user", content: text });
      addTurn("user", "You", text);
      prompt.value = "";
    }
    const { turn, body } = addTurn("model busy", isChat ? "Model" : "Text", isChat ? "" : text);
    try {
      const tokens = isChat
        ? model.chat(messages, { ...options(signal), reusePrompt: "all" })
        : model.generate(text, options(signal));
      const answer = await stream(tokens, body);
      if (isChat) messages.push({ role: "assistant", content: answer });
    } catch (error) {
      if (isChat) messages.pop();
      byId("chat-error").textContent = sentence(error);
      show(byId("chat-error"), true);
    } finally {
      turn.classList.remove("busy");
      running = null;
    }
  });
  prompt.focus();
}

/** Appends tokens as they arrive; returns the text. */
async function stream(tokens: ReturnType<Model["generate"]>, body: HTMLElement): Promise<string> {
  const log = byId("chat-log");
  const start = performance.now();
  let text = "";
  let count = 0;
  for await (const { id, text: piece, finishReason } of tokens) {
    if (id !== undefined) count++;
    text += piece;
    body.append(piece);
    log.scrollTop = log.scrollHeight;
    const rate = count / (performance.now() - start) * 1000;
    const end = finishReason === "aborted" ? ", stopped" : finishReason ? `, ${finishReason}` : "";
    byId("chat-rate").textContent = `${count} tokens, ${rate.toFixed(1)} per second${end}`;
  }
  return text;
}

function addTurn(kind: string, who: string, text: string) {
  const body = make("p", {}, text);
  const turn = make("div", { class: `turn ${kind}` }, make("b", {}, who), body);
  const log = byId("chat-log");
  show(log, true);
  log.append(turn);
  log.scrollTop = log.scrollHeight;
  return { turn, body };
}
