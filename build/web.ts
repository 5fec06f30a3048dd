/**
 * Static page of `web/`, for any server of files, and a server of it.
 *
 *     deno task build:web          writes web/dist/
 *     deno task web [--port 8000]  and serves it on 127.0.0.1
 *
 * @module
 */
import { parseArgs } from "node:util";
import { bundle, LIBRARY } from "./bundle.ts";

const ROOT = new URL("../", import.meta.url);
const DIST = new URL("web/dist/", ROOT);

/** Files of the demo, which the page loads by their folder. */
const DEMO = ["config.json", "tokenizer.json", "model.safetensors"];

/** Headers of every file: the page may share memory between threads, and loads nothing foreign. */
const HEADERS: Readonly<Record<string, string>> = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; " +
    "connect-src *; img-src 'self' data:; style-src 'self' 'unsafe-inline'; base-uri 'none'",
  "X-Content-Type-Options": "nosniff",
  "Cache-Control": "no-cache",
};

const TYPES: Readonly<Record<string, string>> = {
  html: "text/html; charset=utf-8",
  css: "text/css; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  json: "application/json",
};

/** Writes the page into a folder. */
export async function buildWeb(folder: URL = DIST): Promise<void> {
  await Deno.remove(folder, { recursive: true }).catch(() => {}); // it may not exist
  await Deno.mkdir(new URL("demo/", folder), { recursive: true });
  const { worker, engine } = LIBRARY;
  await bundle({
    entries: { app: "web/app.ts", worker, engine },
    folder: decodeURIComponent(folder.pathname),
    platform: "browser",
    minify: true,
  });
  for (const name of ["index.html", "style.css"]) {
    await Deno.copyFile(new URL(`web/${name}`, ROOT), new URL(name, folder));
  }
  for (const name of DEMO) {
    await Deno.copyFile(new URL(`bench/demo/${name}`, ROOT), new URL(`demo/${name}`, folder));
  }
}

/** Serves the page on 127.0.0.1. */
export function serveWeb(port: number, folder: URL = DIST): Deno.HttpServer<Deno.NetAddr> {
  return Deno.serve({ port, hostname: "127.0.0.1", onListen() {} }, async ({ url, method }) => {
    const path = new URL(url).pathname.slice(1) || "index.html";
    const file = new URL(path, folder);
    if (!file.href.startsWith(folder.href)) return new Response("no such file", { status: 404 });
    try {
      const type = TYPES[path.slice(path.lastIndexOf(".") + 1)] ?? "application/octet-stream";
      const bytes = await Deno.readFile(file);
      return new Response(method === "HEAD" ? null : bytes, {
        headers: { ...HEADERS, "Content-Type": type, "Content-Length": String(bytes.length) },
      });
    } catch {
      return new Response("no such file", { status: 404, headers: HEADERS });
    }
  });
}

if (import.meta.main) {
  const { values } = parseArgs({
    args: Deno.args,
    options: { serve: { type: "boolean" }, port: { type: "string", default: "8000" } },
  });
  await buildWeb();
  if (values.serve) {
    const { port } = serveWeb(Number(values.port)).addr;
    console.log(`http://127.0.0.1:${port}/`);
  } else console.log(decodeURIComponent(DIST.pathname));
}
