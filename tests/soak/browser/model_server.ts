/**
 * HTTP server of a folder with a model, at an origin of its own. It can misbehave as real ones do.
 *
 * @module
 */

/** How the server behaves; tests change it between loads. */
export interface Behaviour {
  /** Whether pages of other origins may read. */
  cors: boolean;
  /** Bytes after which each answer with a body breaks; Infinity for none. */
  breakAfter: number;
  /** Bytes after which each answer with a body waits for ever; Infinity for none. */
  stallAfter: number;
  /** Answers of single files in place of their content, by name. */
  readonly answers: Map<string, () => Response>;
}

/** A server that runs until it is disposed of. */
export interface ModelServer extends AsyncDisposable {
  /** URL of the folder. */
  readonly url: string;
  readonly behaviour: Behaviour;
  /** Requests so far: method, name and range. */
  readonly requests: string[];
}

/** Serves the files of a folder, with ranges. */
export function serveModel(folder: URL, port = 0): ModelServer {
  const behaviour: Behaviour = {
    cors: true,
    breakAfter: Infinity,
    stallAfter: Infinity,
    answers: new Map(),
  };
  const requests: string[] = [];
  const server = Deno.serve(
    { port, hostname: "127.0.0.1", onListen() {} },
    async (request) => {
      const name = decodeURIComponent(new URL(request.url).pathname.slice(1));
      requests.push(`${request.method} ${name} ${request.headers.get("range") ?? ""}`.trim());
      const response = behaviour.answers.get(name)?.() ??
        await fileResponse(new URL(name, folder), request, behaviour);
      if (behaviour.cors) response.headers.set("Access-Control-Allow-Origin", "*");
      return response;
    },
  );
  return {
    url: `http://127.0.0.1:${server.addr.port}/`,
    behaviour,
    requests,
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}

async function fileResponse(
  file: URL,
  request: Request,
  { breakAfter, stallAfter }: Behaviour,
): Promise<Response> {
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = await Deno.readFile(file);
  } catch {
    return new Response("no such file", { status: 404 });
  }
  const [, from] = /^bytes=(\d+)-/.exec(request.headers.get("range") ?? "") ?? [];
  const isPart = from !== undefined && request.method === "GET";
  const rest = isPart ? bytes.subarray(Number(from)) : bytes;
  const headers = {
    "Content-Length": String(rest.length),
    ...isPart && { "Content-Range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` },
  };
  const body = request.method === "HEAD"
    ? null
    : rest.length > breakAfter
    ? broken(rest.subarray(0, breakAfter))
    : rest.length > stallAfter
    ? new ReadableStream({ start: (body) => body.enqueue(rest.subarray(0, stallAfter)) })
    : rest;
  return new Response(body, { status: isPart ? 206 : 200, headers });
}

/** A body that ends with an error. */
function broken(bytes: Uint8Array<ArrayBuffer>): ReadableStream<Uint8Array> {
  return new ReadableStream({
    async start(controller) {
      controller.enqueue(bytes);
      // The bytes are sent before the connection breaks.
      await new Promise((resolve) => setTimeout(resolve, 200));
      controller.close(); // before the promised length: Deno breaks the connection
    },
  });
}
