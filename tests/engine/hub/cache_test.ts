/** Hub cache on disk: names, links, partial files, locks, concurrent and killed processes. */
import assert from "node:assert/strict";
import { pause } from "../../../engine/hub/http.ts";
import {
  bodyAfter,
  cutBody,
  type HubFixture,
  inventory,
  slowBody,
  someBytes,
  withHub,
} from "../../hub_server.ts";
import { until } from "../../patience.ts";
import { Process } from "../../process.ts";

const COMMIT = "a".repeat(40);
const WEIGHTS = someBytes(200_000);
const FILES = { "config.json": "{}", "model.safetensors": WEIGHTS };
const WRONG = someBytes(200_000, 2);
const unix = { ignore: Deno.build.os === "windows" };

/** Paths of the files and links in a cache, without the locks. */
const filesOf = ({ cacheDir }: HubFixture) =>
  Object.keys(inventory(`${cacheDir}/models--owner--name`)).filter((path) =>
    !Deno.statSync(`${cacheDir}/models--owner--name/${path}`).isDirectory
  ).sort();

/** Requests for the weights. */
const partsOf = ({ server }: HubFixture) =>
  server.requests.filter(({ host }) => host === "storage");

/** Fetches in a separate process, with the default settings. */
function spawnFetch({ env, server }: HubFixture): Process {
  const code = `
    const { fetchRepository } = await import("${new URL(
    "../../../engine/hub/fetch.ts",
    import.meta.url,
  )}");
    console.log(await fetchRepository("owner/name"));
  `;
  return new Process(Deno.execPath(), ["eval", code], {
    env: { ...env, HF_ENDPOINT: server.url },
  });
}

Deno.test(
  "fetchRepository() names blobs by their hashes and links to them from the snapshot",
  unix,
  async () => {
    await withHub({ files: FILES }, async (hub) => {
      const folder = await hub.fetch();
      const [small, large] = ["config.json", "model.safetensors"]
        .map((path) => hub.server.etag("owner/name", path));
      assert.equal(small.length, 40);
      assert.equal(large.length, 64);
      assert.deepEqual(
        filesOf(hub),
        [
          `blobs/${small}`,
          `blobs/${large}`,
          "refs/main",
          `snapshots/${COMMIT}/config.json`,
          `snapshots/${COMMIT}/model.safetensors`,
        ].sort(),
      );
      assert.equal(Deno.readLinkSync(`${folder}/config.json`), `../../blobs/${small}`);
      assert.equal(Deno.readLinkSync(`${folder}/model.safetensors`), `../../blobs/${large}`);
      const locks = [...Deno.readDirSync(`${hub.cacheDir}/.locks/models--owner--name`)];
      assert.deepEqual(
        locks.map(({ name }) => name).sort(),
        [`${small}.lock`, `${large}.lock`].sort(),
      );
      assert.equal(
        Deno.statSync(`${hub.cacheDir}/.locks/models--owner--name/${small}.lock`).mode! & 0o777,
        0o664,
      );
    });
  },
);

Deno.test("fetchRepository() tags a cache folder that it creates, and no other", async () => {
  await withHub({ files: FILES }, async (hub) => {
    await hub.fetch();
    const tag = Deno.readTextFileSync(`${hub.cacheDir}/CACHEDIR.TAG`);
    assert.ok(tag.startsWith("Signature: 8a477f597d28d172789f06886806bc55\n"));
    const cacheDir = `${hub.cacheDir}/mine`;
    await Deno.mkdir(cacheDir);
    await hub.fetch({ cacheDir });
    assert.throws(() => Deno.statSync(`${cacheDir}/CACHEDIR.TAG`), Deno.errors.NotFound);
  });
});

Deno.test("fetchRepository() copies files if links are disabled, and uses the copies", async () => {
  await withHub({ files: FILES }, async (hub) => {
    hub.env.HF_HUB_DISABLE_SYMLINKS = "1";
    const folder = await hub.fetch();
    assert.ok(Deno.lstatSync(`${folder}/model.safetensors`).isFile);
    // Without links, Python moves the blob into the snapshot.
    await Deno.remove(`${hub.cacheDir}/models--owner--name/blobs`, { recursive: true });
    hub.server.requests.length = 0;
    assert.equal(await hub.fetch(), folder);
    assert.equal(await hub.fetch({ offline: true }), folder);
    assert.equal(hub.server.requests.length, 1);
    await Deno.writeTextFile(`${folder}/config.json`, "{} "); // of another size
    await hub.fetch();
    assert.equal(Deno.readTextFileSync(`${folder}/config.json`), "{}");
  });
});

Deno.test("fetchRepository() downloads a damaged file once more", async () => {
  await withHub({ files: FILES }, async (hub) => {
    let first = true;
    hub.server.body = (bytes, { host }) =>
      host === "storage" && first ? (first = false, WRONG) : bytes;
    const folder = await hub.fetch();
    assert.deepEqual(Deno.readFileSync(`${folder}/model.safetensors`), WEIGHTS);
    assert.deepEqual(partsOf(hub).map(({ headers }) => headers.get("range")), [null, null]);
  });
});

Deno.test("fetchRepository() refuses a file that is damaged twice and deletes it", async () => {
  const small = new TextEncoder().encode("[]");
  const cases: [string, () => Response, RegExp][] = [
    [
      "model.safetensors",
      () => new Response(WRONG),
      /expected sha256 [0-9a-f]{64}, got [0-9a-f]{64}/,
    ],
    ["model.safetensors", () => new Response(WRONG.slice(1)), /expected 200000 bytes, got 199999/],
    [
      "model.safetensors",
      () => new Response(someBytes(200_001)),
      /expected 200000 bytes, got 200001/,
    ],
    // A body without content-length.
    [
      "model.safetensors",
      () => new Response(slowBody(someBytes(200_001), 2, 1)),
      /bytes, got more/,
    ],
    ["config.json", () => new Response(small), /expected git sha1 [0-9a-f]{40}, got [0-9a-f]{40}/],
  ];
  for (const [file, answer, message] of cases) {
    await withHub({ files: FILES }, async (hub) => {
      const body = file === "config.json" ? "/api/resolve-cache/" : "X-Signature";
      hub.server.misbehave = ({ path }) => path.includes(body) ? answer() : undefined;
      const refusal = await hub.refusal();
      assert.match(refusal, new RegExp(`"${file}" arrived damaged twice: .*${message.source}`));
      assert.ok(!filesOf(hub).some((path) => path.includes(hub.server.etag("owner/name", file))));
    });
  }
});

Deno.test("fetchRepository() resumes a partial file of an earlier process", async () => {
  await withHub({ files: FILES }, async (hub) => {
    const blob = hub.blob("model.safetensors");
    const leave = async (bytes: Uint8Array) => {
      await Deno.remove(hub.cacheDir, { recursive: true }).catch(() => {});
      await Deno.mkdir(blob.slice(0, blob.lastIndexOf("/")), { recursive: true });
      await Deno.writeFile(`${blob}.wgslm.incomplete`, bytes);
      hub.server.requests.length = 0;
    };
    const ranges = () => partsOf(hub).map(({ headers }) => headers.get("range"));

    await leave(WEIGHTS.slice(0, 150_000));
    const loaded: number[] = [];
    const folder = await hub.fetch({ onProgress: (progress) => loaded.push(progress.loaded) });
    assert.deepEqual(ranges(), ["bytes=150000-"]);
    assert.equal(loaded.find((bytes) => bytes > 2), 150_002); // the partial file counts at once
    assert.equal(loaded.at(-1), 200_002);

    await leave(WEIGHTS); // complete, but killed before the rename
    await hub.fetch();
    assert.deepEqual(ranges(), []);

    await leave(WRONG.slice(0, 150_000));
    await hub.fetch();
    assert.deepEqual(ranges(), ["bytes=150000-", null]);

    await leave(someBytes(300_000));
    await hub.fetch();
    assert.deepEqual(ranges(), [null]);
    assert.deepEqual(Deno.readFileSync(`${folder}/model.safetensors`), WEIGHTS);
    assert.ok(!filesOf(hub).some((path) => /incomplete|tmp/.test(path)));
  });
});

Deno.test("fetchRepository() uses an existing blob, replaces one of the wrong size", async () => {
  await withHub({ files: FILES }, async (hub) => {
    const folder = await hub.fetch();
    await Deno.remove(folder, { recursive: true });
    hub.server.requests.length = 0;
    await hub.fetch();
    assert.equal(hub.server.requests.length, 1);
    await Deno.writeFile(hub.blob("model.safetensors"), WEIGHTS.slice(0, 100));
    await hub.fetch();
    assert.equal(partsOf(hub).length, 1);
    assert.deepEqual(Deno.readFileSync(`${folder}/model.safetensors`), WEIGHTS);
  });
});

Deno.test("fetchRepository() reports a cache that cannot be used", async () => {
  await withHub({ files: FILES }, async (hub) => {
    await Deno.writeTextFile(hub.cacheDir, "a file");
    assert.match(
      await hub.refusal(),
      /the cache at ".*hub" cannot be used \(.*\); free space, fix its permissions/,
    );
    await Deno.remove(hub.cacheDir);
    await Deno.mkdir(hub.blob("config.json"), { recursive: true });
    assert.match(await hub.refusal(), /the cache at ".*hub" cannot be used/);
  });
});

Deno.test("fetchRepository() waits for a lock, then finds the blob; a signal aborts", async () => {
  await withHub({ files: FILES }, async (hub) => {
    const blob = hub.blob("model.safetensors");
    const locks = `${hub.cacheDir}/.locks/models--owner--name`;
    await Deno.mkdir(locks, { recursive: true });
    const name = hub.server.etag("owner/name", "model.safetensors");
    const lock = await Deno.open(`${locks}/${name}.lock`, { create: true, write: true });
    await lock.lock(true);
    const reason = new Error("enough");
    await assert.rejects(hub.fetch({ signal: stopAfter(40, reason) }), reason);
    const waiting = hub.fetch();
    await pause(40);
    await Deno.writeFile(blob, WEIGHTS);
    lock.close();
    await waiting;
    assert.equal(partsOf(hub).length, 0);
  });
});

Deno.test("fetchRepository() stops at a signal between two files", async () => {
  await withHub({ files: FILES }, async (hub) => {
    const folder = await hub.fetch();
    await Deno.remove(folder, { recursive: true });
    await Deno.remove(hub.blob("model.safetensors"));
    const stop = new AbortController();
    const reason = new Error("enough");
    const onProgress = () => stop.abort(reason); // config.json is already linked
    await assert.rejects(hub.fetch({ signal: stop.signal, onProgress }), reason);
    assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name), ["config.json"]);
    assert.equal(partsOf(hub).length, 1);
  });
});

Deno.test("fetchRepository() accepts that another process renames the blob first", async () => {
  await withHub({ files: FILES }, async (hub) => {
    const blob = hub.blob("model.safetensors");
    const total = WEIGHTS.length + 2;
    const onProgress = ({ loaded }: { loaded: number }) => {
      if (loaded === total) Deno.renameSync(`${blob}.wgslm.incomplete`, blob);
    };
    const folder = await hub.fetch({ onProgress });
    assert.deepEqual(Deno.readFileSync(`${folder}/model.safetensors`), WEIGHTS);
  });
});

Deno.test("fetchRepository() downloads a blob once for several files", async () => {
  const files = {
    "config.json": "{}",
    "model.safetensors.index.json": JSON.stringify({
      weight_map: { a: "a.safetensors", b: "b.safetensors" },
    }),
    "a.safetensors": WEIGHTS,
    "b.safetensors": WEIGHTS,
  };
  await withHub({ files }, async (hub) => {
    const folder = await hub.fetch();
    assert.equal(partsOf(hub).length, 1);
    assert.deepEqual(Deno.readFileSync(`${folder}/b.safetensors`), WEIGHTS);
  });
});

Deno.test("fetchRepository() in two processes at once downloads once", async () => {
  await withHub({ files: FILES }, async (hub) => {
    // The weights come once both have the listing.
    const both = () => hub.server.seen("/revision/").length === 2;
    const asked = until("two requests for the listing", both);
    hub.server.body = (bytes, { host }) => host === "storage" ? bodyAfter(asked, bytes) : bytes;
    const results = await Promise.all([1, 2].map(() => spawnFetch(hub).output()));
    await asked;
    for (const { code, stdout, stderr } of results) {
      assert.equal(code, 0, stderr);
      assert.equal(stdout.trim(), `${hub.cacheDir}/models--owner--name/snapshots/${COMMIT}`);
    }
    assert.equal(partsOf(hub).length, 1);
    assert.equal(
      await hub.fetch({ offline: true }).then((folder) =>
        Deno.statSync(`${folder}/model.safetensors`).size
      ),
      200_000,
    );
  });
});

Deno.test("fetchRepository() resumes the download of a killed process", async () => {
  await withHub({ files: FILES }, async (hub) => {
    let first = true;
    hub.server.body = (bytes, request) => {
      if (request.host !== "storage" || !first) return bytes;
      first = false;
      // The rest never arrives.
      return new ReadableStream({ start: (stream) => stream.enqueue(bytes.slice(0, 120_000)) });
    };
    const child = spawnFetch(hub);
    const partial = `${hub.blob("model.safetensors")}.wgslm.incomplete`;
    const isPartial = () => Deno.stat(partial).then(({ size }) => size === 120_000, () => false);
    await until("a partial file of 120000 bytes", isPartial);
    child.kill("SIGKILL");
    await child.output();
    assert.equal(Deno.statSync(partial).size, 120_000);
    assert.match(await hub.refusal({ offline: true }), /revision "main" is not in the cache/);
    const folder = await hub.fetch();
    assert.deepEqual(partsOf(hub).map(({ headers }) => headers.get("range")), [
      null,
      "bytes=120000-",
    ]);
    assert.deepEqual(Deno.readFileSync(`${folder}/model.safetensors`), WEIGHTS);
  });
});

Deno.test("fetchRepository() keeps a partial file if all tries fail, and resumes it", async () => {
  await withHub({ files: FILES }, async (hub) => {
    let first = true;
    hub.server.body = (bytes, request) =>
      request.host === "storage" && first ? cutBody(bytes, 50_000, request) : bytes;
    hub.server.misbehave = ({ host, headers }) =>
      host === "storage" && headers.has("range") && first
        ? new Response("busy", { status: 503 })
        : undefined;
    assert.match(await hub.refusal(), /answered 503, 5 times/);
    first = false;
    hub.server.requests.length = 0;
    await hub.fetch();
    assert.deepEqual(partsOf(hub).map(({ headers }) => headers.get("range")), ["bytes=50000-"]);
  });
});

/** A signal that aborts after `ms`. */
function stopAfter(ms: number, reason: Error): AbortSignal {
  const stop = new AbortController();
  setTimeout(() => stop.abort(reason), ms);
  return stop.signal;
}
