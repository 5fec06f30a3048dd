/**
 * HTTP server of the project for a page: every module at its path, with its types stripped, on
 * 127.0.0.1 only.
 *
 * @module
 */
import { stripTypeScriptTypes } from "node:module";

const ROOT = new URL("../../../", import.meta.url);

/** Headers that make a page cross-origin isolated, so that it may share memory with workers. */
const ISOLATED = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

/** A server that runs until it is disposed. */
export interface ProjectServer extends AsyncDisposable {
  /** URL of an empty page that is cross-origin isolated. */
  readonly isolated: string;
  /** URL of an empty page that is not. */
  readonly plain: string;
}

/**
 * Serves the project. WebGPU needs a secure context, and a loopback address is one.
 * @param bundle scripts to serve in `/bundle/`, by name.
 * @param isIsolated whether scripts are sent with the headers of an isolated page.
 */
export function serveProject(
  bundle: ReadonlyMap<string, string> = new Map(),
  isIsolated = true,
): ProjectServer {
  const server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen() {} },
    (request) => {
      const [, name] = /^\/bundle\/(.*)$/.exec(new URL(request.url).pathname) ?? [];
      const text = bundle.get(name);
      return text === undefined ? respond(request) : script(text, isIsolated ? ISOLATED : {});
    },
  );
  const url = (name: string) => `http://127.0.0.1:${server.addr.port}/${name}`;
  return {
    isolated: url("isolated.html"),
    plain: url("plain.html"),
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}

async function respond({ url }: Request): Promise<Response> {
  const { pathname } = new URL(url);
  const html = { "Content-Type": "text/html" };
  if (pathname === "/plain.html") return new Response("<!DOCTYPE html>", { headers: html });
  if (pathname === "/isolated.html") {
    return new Response("<!DOCTYPE html>", { headers: { ...html, ...ISOLATED } });
  }
  try {
    const file = new URL(`.${pathname}`, ROOT);
    if (pathname.endsWith(".ts")) {
      const code = stripTypeScriptTypes(await Deno.readTextFile(file), { mode: "transform" });
      return script(code);
    }
    return new Response(await Deno.readFile(file), { headers: ISOLATED });
  } catch (error) {
    return new Response(String(error), { status: 404 });
  }
}

function script(code: string, headers: Readonly<Record<string, string>> = ISOLATED): Response {
  return new Response(code, { headers: { "Content-Type": "text/javascript", ...headers } });
}
