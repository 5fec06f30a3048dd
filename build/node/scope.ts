/**
 * The global functions of a page's worker, for a thread of Node or Bun.
 *
 * @module
 */
import { parentPort } from "node:worker_threads";

type Listener = (event: { readonly data: unknown }) => void;

Object.assign(globalThis, {
  addEventListener: (_type: "message", listener: Listener) =>
    parentPort!.on("message", (data: unknown) => listener({ data })),
  postMessage: (message: unknown) => parentPort!.postMessage(message),
  close: () => parentPort!.close(),
});
