/** HTTP client of the hub: token, redirects, retries and error messages, against a mock hub. */
import assert from "node:assert/strict";
import { withoutToken } from "../../../engine/hub/client.ts";
import { pause } from "../../../engine/hub/http.ts";
import {
  cutBody,
  endlessBody,
  error,
  type HubServer,
  redirect,
  type ServedRepository,
  someBytes,
  TOKEN,
  withHub,
} from "../../hub_server.ts";
import { PATIENCE_MS, until, within } from "../../patience.ts";

const WEIGHTS = someBytes(200_000);
const FILES = { "config.json": "{}", "model.safetensors": WEIGHTS };
const PRIVATE: ServedRepository = { files: FILES, token: TOKEN };
const ENDLESS: Misbehaviour = () => error(503);

type Misbehaviour = HubServer["misbehave"];

/** Misbehaves for the first `times` requests only. */
function firstTimes(times: number, misbehave: Misbehaviour): Misbehaviour {
  return (request) => times-- > 0 ? misbehave(request) : undefined;
}

/** Misbehaves only for requests of the weights. */
function forWeights(misbehave: Misbehaviour): Misbehaviour {
  return (request) => request.host === "storage" ? misbehave(request) : undefined;
}

const authorization = ({ headers }: { headers: Headers }) => headers.get("authorization");

Deno.test("fetchRepository() sends the token to the endpoint only", async () => {
  await withHub(PRIVATE, async (hub) => {
    await hub.fetch({ token: TOKEN });
    const [endpoint, storage] = (["endpoint", "storage"] as const)
      .map((host) => hub.server.requests.filter((request) => request.host === host));
    assert.deepEqual(endpoint.map(authorization), Array(3).fill(`Bearer ${TOKEN}`));
    assert.deepEqual(storage.map(authorization), [null]);
  });
});

Deno.test("fetchRepository() sends no token after a redirect through another host", async () => {
  await withHub(PRIVATE, async (hub) => {
    const { server } = hub;
    server.misbehave = ({ host, path }) => {
      if (host === "storage") return redirect(302, `${server.url}/collect`);
      return path === "/collect" ? new Response("no", { status: 418 }) : undefined;
    };
    assert.match(await hub.refusal({ token: TOKEN }), /the file host of .* answered 418/);
    assert.deepEqual(server.seen("/collect").map(authorization), [null]);
    // The listing itself redirects to another host.
    server.misbehave = ({ host }) =>
      host === "endpoint" ? redirect(307, `${server.storageUrl}/stolen`) : undefined;
    await hub.refusal({ token: TOKEN });
    assert.deepEqual(server.seen("/stolen").map(authorization), [null]);
  });
});

Deno.test("fetchRepository() finds the token that Python saved", async () => {
  await withHub(PRIVATE, async (hub) => {
    const { env } = hub;
    await Deno.mkdir(`${hub.cacheDir}/home`, { recursive: true });
    await Deno.writeTextFile(`${hub.cacheDir}/home/token`, `${TOKEN}\n`);
    await Deno.writeTextFile(`${hub.cacheDir}/elsewhere`, `  ${TOKEN}-2\r\n`);
    const wrong = `${TOKEN}-3`;
    const cases: [Record<string, string>, string | undefined, string | null][] = [
      [{ HF_TOKEN: wrong }, TOKEN, TOKEN],
      [{ HF_TOKEN: ` ${TOKEN}\n`, HF_HOME: "/nowhere" }, undefined, TOKEN],
      [{ HF_HOME: `${hub.cacheDir}/home` }, undefined, TOKEN],
      [{ HF_HOME: `${hub.cacheDir}/home`, HF_TOKEN: " " }, undefined, TOKEN],
      [{ HF_TOKEN_PATH: `${hub.cacheDir}/elsewhere` }, undefined, `${TOKEN}-2`],
      [{ HF_HOME: "/nowhere" }, undefined, null],
      [{ HF_TOKEN: TOKEN }, "", null],
    ];
    for (const [given, token, expected] of cases) {
      hub.overrides = { env: (name) => ({ ...env, ...given })[name] };
      hub.server.requests.length = 0;
      await hub.fetch({ token }).catch(() => {});
      assert.equal(authorization(hub.server.requests[0]), expected && `Bearer ${expected}`);
    }
    hub.overrides = {};
    for (const token of ["hf_a\nb", "hf_secret é", "two words secret"]) {
      assert.match(await hub.refusal({ token }), /the token has characters that no token has/);
    }
    hub.env.HF_TOKEN_PATH = hub.cacheDir; // a folder
    assert.match(await hub.refusal(), /the token at ".*" cannot be read \(.*\); set HF_TOKEN/);
  });
});

Deno.test("fetchRepository() follows a renamed repository and caches the old name", async () => {
  await withHub({ "o/old": { files: {}, renamedTo: "o/new" }, "o/new": PRIVATE }, async (hub) => {
    const folder = await hub.fetch({ token: TOKEN }, "o/old");
    assert.match(folder, /models--o--old\/snapshots\/a{40}$/);
    assert.equal(hub.server.seen("/api/models/o/").length, 2);
  });
});

Deno.test("fetchRepository() refuses circular redirects and other protocols", async () => {
  await withHub({ files: FILES }, async (hub) => {
    hub.server.misbehave = ({ path }) => redirect(302, path);
    assert.match(await hub.refusal(), /redirects more than 10 times/);
    assert.equal(hub.server.requests.length, 11);
    for (const location of ["file:///etc/passwd", "ftp://x/y", "data:,x", "http://"]) {
      hub.server.misbehave = () => redirect(307, location);
      assert.match(await hub.refusal(), /to redirect to http: or https:, got (file|ftp|data|none)/);
    }
    hub.server.misbehave = () => new Response(null, { status: 302 });
    assert.match(await hub.refusal(), /got none/);
  });
});

Deno.test("fetchRepository() uses HTTPS by default and refuses a redirect to HTTP", async () => {
  await withHub({ files: FILES }, async (hub) => {
    delete hub.env.HF_ENDPOINT;
    const requested: URL[] = [];
    const original = globalThis.fetch;
    globalThis.fetch = (input) => {
      requested.push(new URL(String(input)));
      return Promise.resolve(redirect(302, `${hub.server.url}/plain`));
    };
    try {
      assert.match(await hub.refusal({ token: TOKEN }), /to redirect to https:, got http:/);
    } finally {
      globalThis.fetch = original;
    }
    assert.deepEqual(requested.map(({ protocol }) => protocol), ["https:"]);
    assert.equal(hub.server.requests.length, 0);
  });
});

Deno.test("fetchRepository() explains each refusal and what to do", async () => {
  const cases: [number, string | undefined, string, RegExp][] = [
    [401, undefined, "", /it is private, or there is no such repository at .*; check the name, or/],
    [401, undefined, TOKEN, /answered 401 .*: the token is not valid or has no access; set/],
    [403, undefined, TOKEN, /answered 403 .*: the token is not valid or has no access/],
    [
      401,
      "GatedRepo",
      "",
      /it is gated: accept its terms at http.*\/owner\/name, and set HF_TOKEN/,
    ],
    [
      403,
      "GatedRepo",
      TOKEN,
      /it is gated: .* the account that did; the given token has no access/,
    ],
    [
      404,
      "RepoNotFound",
      TOKEN,
      /there is no such repository at http.*, or the token has no access/,
    ],
    [
      404,
      "RevisionNotFound",
      "",
      /it has no revision "v2"; name a branch, .* with --repo-revision/,
    ],
    [404, undefined, "", /there is no such repository/],
    [418, "Teapot", "", /answered 418 \(said .*\); try again later/],
  ];
  await withHub({ files: FILES }, async (hub) => {
    for (const [status, code, token, message] of cases) {
      hub.server.requests.length = 0;
      const said = `said\tto ${token} at http://h/x?sig=secret ${"x".repeat(999)}`;
      hub.server.misbehave = () => error(status, code, said);
      const refusal = await hub.refusal({ token, revision: "v2" });
      assert.match(refusal, message);
      assert.ok(refusal.length < 600, refusal);
      assert.equal(hub.server.requests.length, 1);
    }
  });
});

Deno.test("fetchRepository() explains the refusals that the mock hub sends", async () => {
  const gated = { files: FILES, gated: true };
  await withHub(
    { "o/private": PRIVATE, "o/gated": gated, "o/n": { files: FILES } },
    async (hub) => {
      assert.match(await hub.refusal({}, "o/private"), /it is private, or there is no such/);
      assert.match(await hub.refusal({}, "o/absent"), /it is private, or there is no such/);
      assert.match(await hub.refusal({ token: TOKEN }, "o/absent"), /there is no such repository/);
      assert.match(await hub.refusal({ token: "invalid" }, "o/n"), /the token is not valid/);
      assert.match(await hub.refusal({}, "o/gated"), /it is gated/);
      assert.match(await hub.refusal({ revision: "v9" }, "o/n"), /it has no revision "v9"/);
      hub.server.misbehave = ({ path }) =>
        path.includes("/resolve/") ? error(404, "EntryNotFound", "no") : undefined;
      assert.match(await hub.refusal({}, "o/n"), /names "config\.json", but there is no such file/);
      hub.server.misbehave = forWeights(() => new Response("<Error/>", { status: 403 }));
      assert.match(
        await hub.refusal({}, "o/n"),
        /the file host of .* 403 for "model\.safetensors"/,
      );
    },
  );
});

Deno.test("fetchRepository() retries 5xx, 408 and 429 with growing delays", async () => {
  for (const status of [500, 502, 503, 504, 408, 429]) {
    await withHub({ files: FILES }, async (hub) => {
      hub.server.misbehave = firstTimes(4, () => error(status));
      await hub.fetch();
      assert.equal(hub.waits.length, 4);
      hub.waits.forEach((ms, i) => assert.ok(ms >= 250 * 2 ** i && ms <= 750 * 2 ** i, `${ms}`));
    });
  }
});

Deno.test("fetchRepository() gives up after five tries and says why", async () => {
  await withHub({ files: FILES }, async (hub) => {
    hub.server.misbehave = ENDLESS;
    assert.match(await hub.refusal(), /answered 503, 5 times; try again later$/);
    assert.equal(hub.server.requests.length, 5);
    hub.server.misbehave = forWeights(() => error(429));
    assert.match(
      await hub.refusal(),
      /answered 429 \(too many requests\), 5 times; try again later$/,
    );
  });
});

Deno.test("fetchRepository() waits as long as the hub asks, up to a limit", async () => {
  const asks: [Record<string, string>, number][] = [
    [{ "retry-after": "7" }, 7000],
    [{ "retry-after": new Date(Date.now() + 60_000).toUTCString() }, 60_000],
    [{ "ratelimit": '"api";r=0;t=55' }, 55_000],
    [{ "retry-after": "3", "ratelimit": '"api";r=0;t=55' }, 3000],
    [{ "ratelimit": '"api";r=12;t=55' }, 500], // requests are left: not the reason
    [{ "retry-after": "soon" }, 500],
    [{ "retry-after": new Date(0).toUTCString() }, 500],
  ];
  for (const [headers, expected] of asks) {
    await withHub({ files: FILES }, async (hub) => {
      hub.server.misbehave = firstTimes(1, () => error(429, undefined, "", headers));
      await hub.fetch();
      assert.equal(hub.waits.length, 1);
      const [wait] = hub.waits;
      // Between a date and its use, time passes; without it, the wait would be 500 ms.
      const [least, most] = expected === 60_000
        ? [1000, 60_000]
        : expected === 500
        ? [249, 751]
        : [expected, expected];
      assert.ok(wait >= least && wait <= most, `${wait} for ${expected}`);
    });
  }
  await withHub({ files: FILES }, async (hub) => {
    hub.server.misbehave = () => error(429, undefined, "", { "retry-after": "3600" });
    assert.match(
      await hub.refusal(),
      /answered 429 .* and asks for a wait of 3600 s; try again after that$/,
    );
    assert.deepEqual(hub.waits, []);
  });
});

Deno.test("fetchRepository() reports an unreachable host and suggests --offline", async () => {
  await withHub({ files: FILES }, async (hub) => {
    await hub.fetch();
    const closed = Deno.listen({ port: 0, hostname: "127.0.0.1" });
    const endpoint = `http://127.0.0.1:${closed.addr.port}`;
    closed.close();
    hub.env.HF_ENDPOINT = endpoint;
    const message = await hub.refusal({ token: TOKEN });
    assert.match(
      message,
      /cannot reach http:\/\/127[^ ]* \(client error.*refused.*\), 5 times; check the connection/,
    );
    assert.match(message, /--offline uses the cache$/);
    await hub.fetch({ offline: true });
    // The file host, whose URLs are signed.
    hub.env.HF_ENDPOINT = hub.server.url;
    hub.server.misbehave = ({ path }) =>
      path.includes("/resolve/") ? redirect(302, `${endpoint}/secret?sig=secret`) : undefined;
    const cacheDir = `${hub.cacheDir}/2`;
    const storage = new RegExp(`cannot reach ${endpoint}, the host that http.* redirects to`);
    assert.match(await hub.refusal({ cacheDir }), storage);
  });
});

Deno.test("fetchRepository() resumes a broken connection and repeats no byte", async () => {
  await withHub({ files: FILES }, async (hub) => {
    let cuts = 0;
    // More failures than `TRIES`: each try brings new bytes.
    hub.server.body = (bytes, request) =>
      request.host === "storage" && cuts++ < 7 ? cutBody(bytes, 20_000, request) : bytes;
    const folder = await hub.fetch();
    assert.deepEqual(Deno.readFileSync(`${folder}/model.safetensors`), WEIGHTS);
    const parts = hub.server.requests.filter(({ host }) => host === "storage");
    assert.deepEqual(
      parts.map(({ headers }) => headers.get("range")),
      [null, ...Array.from({ length: 7 }, (_, i) => `bytes=${20_000 * (i + 1)}-`)],
    );
    assert.equal(parts.reduce((sum, { sent }) => sum + sent, 0), WEIGHTS.length);
    assert.equal(hub.server.seen("/resolve/").length, 1 + 8); // a new signed URL for each try
  });
});

Deno.test("fetchRepository() restarts if a server cannot resume", async () => {
  const range = (headers: Record<string, string>, bytes = WEIGHTS) =>
    new Response(bytes, { status: 206, headers });
  const whole = () => new Response(WEIGHTS);
  const answers: [string, () => Response, number][] = [
    ["the whole file", whole, 2],
    ["416", () => new Response(null, { status: 416 }), 5],
    ["another part", () => range({ "content-range": "bytes 5-9/200000" }), 5],
    ["another size", () => range({ "content-range": "bytes 20000-29999/30000" }), 5],
    ["no range", () => range({}), 5],
  ];
  for (const [what, answer, requests] of answers) {
    await withHub({ files: FILES }, async (hub) => {
      let cuts = 2;
      hub.server.body = (bytes, request) => {
        if (request.host !== "storage" || cuts-- <= 0) return bytes;
        return cutBody(bytes, 20_000, request);
      };
      hub.server.misbehave = forWeights(({ headers }) =>
        headers.has("range") ? answer() : undefined
      );
      const loaded: number[] = [];
      const folder = await hub.fetch({ onProgress: (progress) => loaded.push(progress.loaded) });
      assert.deepEqual(Deno.readFileSync(`${folder}/model.safetensors`), WEIGHTS, what);
      assert.equal(loaded.at(-1), WEIGHTS.length + 2, what);
      assert.equal(hub.server.requests.filter(({ host }) => host === "storage").length, requests);
    });
  }
});

Deno.test("fetchRepository() gives up on a server that resends the same beginning", async () => {
  await withHub({ files: FILES }, async (hub) => {
    hub.server.misbehave = forWeights((seen) =>
      new Response(cutBody(WEIGHTS, 1000, seen), { headers: { "content-length": "200000" } })
    );
    assert.match(
      await hub.refusal(),
      /the connection to .* broke .*, 5 times; run it again to resume$/,
    );
    assert.ok(hub.server.seen("/resolve/").length < 9);
  });
});

Deno.test("fetchRepository() requests identity encoding and refuses compressed files", async () => {
  await withHub({ files: FILES }, async (hub) => {
    await hub.fetch();
    const bodies = hub.server.requests.filter(({ path }) => !path.startsWith("/api/models/"));
    assert.ok(bodies.every(({ headers }) => headers.get("accept-encoding") === "identity"));
    await Deno.remove(hub.cacheDir, { recursive: true });
    hub.server.misbehave = forWeights(() =>
      new Response("x", { headers: { "content-encoding": "gzip" } })
    );
    assert.match(
      await hub.refusal(),
      /expected "model\.safetensors" uncompressed, got it compressed/,
    );
  });
});

/** Timers of one delay, which fire when the test says so. */
class HeldTimers implements Disposable {
  readonly waiting = new Map<number, () => void>();
  readonly #set = globalThis.setTimeout;
  readonly #clear = globalThis.clearTimeout;

  constructor(ms: number) {
    globalThis.setTimeout = ((call: () => void, delay?: number) => {
      const id = this.#set(call, delay);
      if (delay === ms) this.waiting.set(Number(id), call);
      return id;
    }) as typeof setTimeout;
    globalThis.clearTimeout = ((id?: number) => {
      this.waiting.delete(Number(id));
      this.#clear(id);
    }) as typeof clearTimeout;
  }

  fire(): void {
    for (const call of this.waiting.values()) call();
  }

  [Symbol.dispose](): void {
    Object.assign(globalThis, { setTimeout: this.#set, clearTimeout: this.#clear });
  }
}

Deno.test("fetchRepository() aborts a stalled connection and resumes", async () => {
  const stallMs = 2 * PATIENCE_MS;
  using timers = new HeldTimers(stallMs);
  await withHub({ files: FILES }, async (hub) => {
    hub.overrides = { stallMs };
    const ranges = () =>
      hub.server.requests.filter(({ host }) => host === "storage")
        .map(({ headers }) => headers.get("range"));
    const end = Promise.withResolvers<Response>();
    hub.server.misbehave = ({ host }) =>
      host === "storage" && ranges().length === 1 ? end.promise : undefined;
    hub.server.body = (bytes, { host }) =>
      host === "storage" && ranges().length === 2 ? endlessBody(bytes.slice(0, 9000)) : bytes;
    const partial = `${hub.blob("model.safetensors")}.wgslm.incomplete`;
    const size = () => Deno.stat(partial).then(({ size }) => size, () => 0);
    const stall = async (requests: number, bytes: number) => {
      await until(
        `request ${requests} to wait after ${bytes} bytes`,
        async () =>
          ranges().length === requests && await size() === bytes && timers.waiting.size === 1,
      );
      timers.fire();
    };
    const fetching = hub.fetch();
    await stall(1, 0);
    await stall(2, 9000);
    const folder = await fetching;
    end.resolve(new Response("late"));
    assert.deepEqual(Deno.readFileSync(`${folder}/model.safetensors`), WEIGHTS);
    assert.deepEqual(ranges(), [null, null, "bytes=9000-"]);
  });
});

Deno.test("fetchRepository() stops at once at a signal and keeps the partial file", async () => {
  await withHub({ files: FILES }, async (hub) => {
    const reason = new Error("enough");
    await assert.rejects(hub.fetch({ signal: AbortSignal.abort(reason) }), reason);
    assert.equal(hub.server.requests.length, 0);
    // While bytes arrive.
    hub.server.body = (bytes, { host }) =>
      host === "storage" ? endlessBody(bytes.slice(0, 20_000)) : bytes;
    const stop = new AbortController();
    const onProgress = ({ file }: { file?: string }) => {
      if (file === "model.safetensors") stop.abort(reason);
    };
    await within(
      "the end at a signal",
      () => assert.rejects(hub.fetch({ signal: stop.signal, onProgress }), reason),
    );
    const { size } = Deno.statSync(`${hub.blob("model.safetensors")}.wgslm.incomplete`);
    assert.ok(size > 0 && size <= 20_000, `${size}`);
    // Between two tries.
    const later = new AbortController();
    const retryMs = 4 * PATIENCE_MS;
    const pauseThenStop = (ms: number, signal?: AbortSignal) => {
      setTimeout(() => later.abort(reason), 0);
      return pause(ms, signal);
    };
    hub.overrides = { retryMs, pause: pauseThenStop };
    hub.server.misbehave = ENDLESS;
    await within(
      "the end of a pause at a signal",
      () => assert.rejects(hub.fetch({ signal: later.signal }), reason),
    );
  });
});

Deno.test("withoutToken() masks a token as it is, percent-encoded, and in Base64 at any offset", () => {
  const whole = "hf_abcDEF+/012345678901234567";
  for (let length = 16; length <= whole.length; length++) {
    const token = whole.slice(0, length);
    const encoded = encodeURIComponent(token);
    assert.equal(withoutToken(`${token} ${encoded} end`, token), "… … end");
    for (const before of ["", "u", "us", "Bearer ", "user:"]) {
      for (const after of ["", ":", "\n\n", "xyz"]) {
        const base64 = btoa(before + token + after);
        for (const form of [base64, base64.replaceAll("+", "-").replaceAll("/", "_")]) {
          const shown = withoutToken(`got ${form} end`, token);
          // A character at each side may hold bits of both the token and its neighbour; then "==".
          const rest = btoa(before).length + btoa(after).length + 4;
          assert.match(shown, /^got .*….* end$/, form);
          assert.ok(shown.length - "got … end".length <= rest, `${form}: ${shown}`);
        }
      }
    }
  }
  assert.equal(withoutToken("no secret", whole), "no secret");
});
