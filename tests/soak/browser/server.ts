/**
 * The project as a page's server gives it: every module at its own path, as JavaScript, from this
 * machine alone.
 *
 * @module
 */
import { stripTypeScriptTypes } from "node:module";

const ROOT = new URL("../../../", import.meta.url);

/** What makes a page one that may share memory with its workers. */
const ISOLATED = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

/** Serves until it is disposed of. */
export interface ProjectServer extends AsyncDisposable {
  /** Of an empty page that is cross-origin isolated. */
  readonly isolated: string;
  /** Of one that is not. */
  readonly plain: string;
}

/**
 * Serves the project; `localhost` counts as secure, without which there is no WebGPU.
 * @param bundle scripts to serve below `/bundle/`, by their names.
 */
export function serveProject(bundle: ReadonlyMap<string, string> = new Map()): ProjectServer {
  const server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen() {} },
    (request) => {
      const [, name] = /^\/bundle\/(.*)$/.exec(new URL(request.url).pathname) ?? [];
      const text = bundle.get(name);
      return text === undefined ? respond(request) : script(text);
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

function script(code: string): Response {
  return new Response(code, { headers: { "Content-Type": "text/javascript", ...ISOLATED } });
}
