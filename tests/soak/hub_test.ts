/**
 * The model cache shared with Python: this hub client reads what Python's huggingface_hub wrote,
 * and Python reads what this client wrote.
 */
import assert from "node:assert/strict";
import { pause } from "../../engine/hub/http.ts";
import {
  bodyAfter,
  type HubFixture,
  inventory,
  slowBody,
  someBytes,
  withHub,
} from "../hub_server.ts";
import { until } from "../patience.ts";
import { mountTiny, Process, run } from "../process.ts";

const PYTHON = Deno.env.get("WGSLM_PYTHON") ?? "python3";
const COMMIT = "a".repeat(40);
const FILES = {
  "config.json": "{}",
  "tokenizer.json": '{"version":"1.0"}',
  "README.md": "# Model",
  "model.safetensors": someBytes(3_000_000),
};

/** Runs Python in the environment of a hub fixture; returns its output. */
async function python(code: string, { env }: Pick<HubFixture, "env">): Promise<string> {
  const quiet = { HF_HUB_DISABLE_PROGRESS_BARS: "1", HF_HUB_DISABLE_TELEMETRY: "1" };
  const { code: status, stdout, stderr } = await run(PYTHON, ["-c", code], {
    env: { ...env, ...quiet },
  });
  if (status !== 0) throw new Error(stderr.trim());
  return stdout.trim();
}

const version = await python("import huggingface_hub as h; print(h.__version__)", { env: {} })
  .catch(() => null);
if (version === null) {
  console.warn("SKIPPED: the cache shared with Python, since no Python here has huggingface_hub");
}

function withPython(name: string, test: (hub: HubFixture) => Promise<void>, revisions = ["main"]) {
  Deno.test({
    name,
    ignore: version === null,
    fn: () => withHub({ files: FILES, revisions }, test),
  });
}

const snapshot = (options = "") =>
  `import huggingface_hub as h; print(h.snapshot_download("owner/name"${options}))`;
const download = (file: string, options = "") =>
  `import huggingface_hub as h; print(h.hf_hub_download("owner/name", "${file}"${options}))`;

withPython(
  "fetchRepository() uses a snapshot_download() offline, and online with one request",
  async (hub) => {
    const folder = await python(snapshot(), hub);
    hub.server.requests.length = 0;
    const before = inventory(hub.cacheDir);
    assert.equal(await hub.fetch({ offline: true }), folder);
    assert.equal(hub.server.requests.length, 0);
    assert.equal(await hub.fetch(), folder);
    assert.equal(hub.server.requests.length, 1);
    assert.deepEqual(inventory(hub.cacheDir), before);
  },
);

withPython("fetchRepository() downloads only files hf_hub_download() did not", async (hub) => {
  const config = await python(download("config.json"), hub);
  assert.match(await hub.refusal({ offline: true }), /: model\.safetensors is not in the cache/);
  hub.server.requests.length = 0;
  assert.equal(`${await hub.fetch()}/config.json`, config);
  assert.equal(hub.server.seen("/resolve/").length, 2);
});

withPython(
  "hf_hub_download() uses a fetchRepository() offline, by branch, tag and commit",
  async (hub) => {
    for (const revision of ["main", "feature/new", "v1", COMMIT]) {
      const folder = await hub.fetch({ revision });
      hub.server.requests.length = 0;
      for (const file of ["config.json", "tokenizer.json", "model.safetensors"]) {
        const options = `, revision="${revision}", local_files_only=True`;
        assert.equal(await python(download(file, options), hub), `${folder}/${file}`);
      }
      // Offline, Python has no list of files and assumes that the folder is complete.
      assert.equal(
        await python(snapshot(`, revision="${revision}", local_files_only=True`), hub),
        folder,
      );
      assert.equal(hub.server.requests.length, 0);
    }
  },
  ["main", "feature/new", "v1"],
);

withPython(
  "snapshot_download() reuses fetchRepository()'s blobs, and scan_cache_dir() has no warning",
  async (hub) => {
    const folder = await hub.fetch();
    hub.server.requests.length = 0;
    assert.equal(await python(snapshot(), hub), folder);
    const bodies = hub.server.requests.filter(({ method, path }) =>
      method === "GET" && /resolve|X-Signature/.test(path)
    );
    assert.deepEqual(
      new Set(bodies.map(({ path }) => path.split("/").at(-1)!.split("?")[0])),
      new Set(["README.md"]),
    );
    const scanned = await python(
      "import huggingface_hub as h; c = h.scan_cache_dir(); print(len(c.warnings), [(r.repo_id, sorted(r.refs)) for r in c.repos])",
      hub,
    );
    assert.equal(scanned, "0 [('owner/name', ['main'])]");
  },
);

withPython(
  "snapshot_download() and fetchRepository() use the other's update of a branch",
  async (hub) => {
    await hub.fetch();
    const commit = "b".repeat(40);
    hub.server.serve("owner/name", { files: { ...FILES, "config.json": "{ }" }, commit });
    const folder = await python(snapshot(), hub);
    assert.ok(folder.endsWith(commit));
    assert.equal(await hub.fetch({ offline: true }), folder);
    hub.server.serve("owner/name", { files: FILES, commit: "c".repeat(40) });
    const again = await hub.fetch();
    assert.equal(
      await python(download("config.json", ", local_files_only=True"), hub),
      `${again}/config.json`,
    );
  },
);

withPython(
  "snapshot_download() and fetchRepository() at once succeed, and download the weights once",
  async (hub) => {
    hub.server.body = (bytes, { host }) => host === "storage" ? slowBody(bytes, 20, 150) : bytes;
    for (let round = 0; round < 3; round++) {
      await Deno.remove(hub.cacheDir, { recursive: true }).catch(() => {});
      hub.server.requests.length = 0;
      // Python takes longer to start: the delay varies which of them takes the lock first.
      const theirs = python(snapshot(), hub);
      await pause(round * 600);
      const [folder, ours] = await Promise.all([theirs, hub.fetch()]);
      assert.equal(folder, ours);
      assert.deepEqual(Deno.readFileSync(`${ours}/model.safetensors`), FILES["model.safetensors"]);
      const sent = hub.server.requests.filter(({ host, method }) =>
        host === "storage" && method === "GET"
      );
      assert.equal(sent.length, 1, `round ${round}`);
      const left = Object.keys(inventory(hub.cacheDir)).filter((path) =>
        /incomplete|tmp/.test(path)
      );
      assert.deepEqual(left, []);
    }
  },
);

withPython("fetchRepository() and Python's filelock exclude each other", async (hub) => {
  const etag = hub.server.etag("owner/name", "model.safetensors");
  const lock = `${hub.cacheDir}/.locks/models--owner--name/${etag}.lock`;
  const tryLock = `
import filelock
try:
    with filelock.FileLock("${lock}", timeout=0): print("free")
except filelock.Timeout: print("held")`;
  // The weights come once Python has tried.
  const tried = Promise.withResolvers<void>();
  hub.server.body = (bytes, { host }) =>
    host === "storage" ? bodyAfter(tried.promise, bytes) : bytes;
  const ours = hub.fetch();
  await until("a request for the weights", () => hub.server.seen("X-Signature").length > 0);
  assert.equal(await python(tryLock, hub), "held");
  tried.resolve();
  await ours;
  assert.equal(await python(tryLock, hub), "free");

  await Deno.remove(hub.blob("model.safetensors"));
  const hold = `import filelock, sys
with filelock.FileLock("${lock}"): print("held", flush=True); sys.stdin.read()`;
  const holder = new Process(PYTHON, ["-c", hold], { input: "open" });
  await holder.shows("stdout", /held/);
  hub.server.requests.length = 0;
  let done = false;
  const waiting = hub.fetch().then(() => done = true);
  await pause(500);
  assert.equal(done, false);
  assert.equal(hub.server.seen("X-Signature").length, 0);
  await holder.closeInput();
  await waiting;
  await holder.output();
  assert.equal(hub.server.seen("X-Signature").length, 1);
});

withPython(
  "fetchRepository() accepts a snapshot in which Python stored files instead of links",
  async (hub) => {
    hub.env.HF_HUB_DISABLE_SYMLINKS = "1";
    const folder = await python(snapshot(), hub);
    assert.ok(Deno.lstatSync(`${folder}/model.safetensors`).isFile);
    hub.server.requests.length = 0;
    delete hub.env.HF_HUB_DISABLE_SYMLINKS;
    assert.equal(await hub.fetch(), folder);
    assert.equal(hub.server.requests.length, 1);
  },
);

Deno.test({
  name: "fetchRepository() on a full disk reports it, and leaves no file that looks complete",
  ignore: Deno.build.os !== "linux",
  fn: () =>
    withHub({ files: FILES }, async (hub) => {
      if (!await mountTiny(hub.cacheDir, 64)) {
        console.warn("SKIPPED: a full disk, since no file system can be mounted here");
        return;
      }
      try {
        assert.match(
          await hub.refusal(),
          /the cache at ".*hub" cannot be used \(No space left on device .*\); free space/,
        );
        assert.match(await hub.refusal({ offline: true }), /revision "main" is not in the cache/);
        assert.throws(() => Deno.statSync(hub.blob("model.safetensors")), Deno.errors.NotFound);
      } finally {
        await run("umount", [hub.cacheDir]);
      }
    }),
});
