/** Download from the hub: choice of files, offline use, and refusal of hostile listings. */
import assert from "node:assert/strict";
import { endlessBody, inventory, someBytes, withHub } from "../../hub_server.ts";
import { within } from "../../patience.ts";

const COMMIT = "a".repeat(40);
const MODEL = {
  "config.json": '{"model_type":"gpt2"}',
  "tokenizer.json": "{}",
  "model.safetensors": someBytes(3000),
};
const INDEX = (...files: string[]) =>
  JSON.stringify({ weight_map: Object.fromEntries(files.map((file, i) => [`t${i}`, file])) });
const SHARDED = {
  "config.json": "{}",
  "model.safetensors.index.json": INDEX("model-1.safetensors", "model-2.safetensors"),
  "model-1.safetensors": someBytes(2000, 1),
  "model-2.safetensors": someBytes(1000, 2),
};

/** Names in a folder. */
const namesIn = (folder: string) => [...Deno.readDirSync(folder)].map(({ name }) => name).sort();

Deno.test("fetchRepository() fetches config, tokenizer and one form of the weights", async () => {
  const wanted = {
    ...MODEL,
    "generation_config.json": "{}",
    "tokenizer_config.json": '{"chat_template":null}',
    "special_tokens_map.json": "{ }",
    "chat_template.jinja": "{{ messages }}",
    "meta.json": "{  }",
  };
  const others = {
    "README.md": "# Model",
    "vocab.json": "{}",
    "merges.txt": "a b",
    "pytorch_model.bin": someBytes(100),
    "model.safetensors.index.json": INDEX("other.safetensors"),
    "onnx/model.onnx": someBytes(100),
    "folder/config.json": "{}",
  };
  await withHub({ files: { ...wanted, ...others } }, async (hub) => {
    const folder = await hub.fetch();
    assert.equal(folder, `${hub.cacheDir}/models--owner--name/snapshots/${COMMIT}`);
    assert.deepEqual(namesIn(folder), Object.keys(wanted).sort());
    assert.deepEqual(Deno.readFileSync(`${folder}/model.safetensors`), someBytes(3000));
    assert.equal(Deno.readTextFileSync(`${folder}/config.json`), MODEL["config.json"]);
  });
});

Deno.test("fetchRepository() fetches vocab.json and merges.txt as a fallback", async () => {
  const files = { "config.json": "{}", "vocab.json": "{}", "merges.txt": "a b" };
  await withHub({ files: { ...files, "model.safetensors": "x" } }, async (hub) => {
    assert.deepEqual(namesIn(await hub.fetch()), [
      "config.json",
      "merges.txt",
      "model.safetensors",
      "vocab.json",
    ]);
  });
});

Deno.test("fetchRepository() fetches an index's shards, then only the listing", async () => {
  await withHub({ files: { ...SHARDED, "model-3.safetensors": "not named" } }, async (hub) => {
    const folder = await hub.fetch();
    assert.deepEqual(namesIn(folder), Object.keys(SHARDED).sort());
    hub.server.requests.length = 0;
    assert.equal(await hub.fetch(), folder);
    assert.equal(hub.server.requests.length, 1);
    assert.equal(await hub.fetch({ offline: true }), folder);
    assert.equal(hub.server.requests.length, 1);
  });
});

Deno.test("fetchRepository() fetches pytorch_model.bin if there are no safetensors", async () => {
  const whole = { "config.json": "{}", "pytorch_model.bin": someBytes(500) };
  const sharded = {
    "config.json": "{}",
    "pytorch_model.bin.index.json": INDEX("pytorch_model-1.bin"),
    "pytorch_model-1.bin": someBytes(400),
  };
  await withHub({ "o/whole": { files: whole }, "o/shards": { files: sharded } }, async (hub) => {
    assert.deepEqual(namesIn(await hub.fetch({}, "o/whole")), Object.keys(whole).sort());
    const folder = await hub.fetch({}, "o/shards");
    assert.deepEqual(namesIn(folder), Object.keys(sharded).sort());
    assert.equal(await hub.fetch({ offline: true }, "o/shards"), folder);
  });
});

Deno.test("fetchRepository() lists the weights of a repository in other formats", async () => {
  const other = { "config.json": "{}", "a.h5": "x", "onnx/b.onnx": "x", "README.md": "x" };
  const many = Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`m${i + 10}.onnx`, "x"]));
  await withHub({
    "o/other": { files: other },
    "o/many": { files: { "config.json": "{}", ...many } },
    "o/none": { files: { "config.json": "{}" } },
    "o/bare": { files: { "model.safetensors": "x" } },
  }, async (hub) => {
    const wanted =
      "expected a model.safetensors, its index, or a pytorch_model.bin, got no weights";
    const of = (repo: string) => hub.refusal({}, repo);
    assert.ok((await of("o/other")).endsWith(`${wanted} but a.h5, onnx/b.onnx`));
    assert.match(await of("o/many"), /but m10\.onnx, .*, m17\.onnx and 22 more$/);
    assert.ok((await of("o/none")).endsWith(`${wanted} at all`));
    assert.match(await of("o/bare"), /it has no config\.json/);
    assert.throws(() => Deno.statSync(hub.cacheDir), Deno.errors.NotFound);
  });
});

Deno.test("fetchRepository() with a full cache lists once, and offline not at all", async () => {
  await withHub({ files: MODEL }, async (hub) => {
    const folder = await hub.fetch();
    const before = inventory(hub.cacheDir);
    hub.server.requests.length = 0;
    const onProgress = () => assert.fail("nothing is downloaded");
    assert.equal(await hub.fetch({ onProgress }), folder);
    assert.deepEqual(hub.server.requests.map(({ method, path }) => `${method} ${path}`), [
      "GET /api/models/owner/name/revision/main?blobs=true",
    ]);
    hub.server.requests.length = 0;
    assert.equal(await hub.fetch({ offline: true }), folder);
    assert.equal(await hub.fetch({ offline: true, revision: COMMIT }), folder);
    for (const value of ["1", "true", "YES", "on"]) {
      hub.env.HF_HUB_OFFLINE = value;
      assert.equal(await hub.fetch(), folder);
    }
    assert.deepEqual(hub.server.requests, []);
    hub.env.HF_HUB_OFFLINE = "0";
    await hub.fetch();
    assert.equal(hub.server.requests.length, 1);
    assert.deepEqual(inventory(hub.cacheDir), before);
  });
});

Deno.test("fetchRepository() offline names the missing file and a command for it", async () => {
  await withHub({ files: SHARDED, revisions: ["main", "v1.0"] }, async (hub) => {
    const offline = { offline: true };
    const command = "deno run -A cli.ts inspect hf:owner/name";
    const refused = async (options: object, what: string, flag = "") => {
      const message = await hub.refusal({ ...offline, ...options });
      assert.ok(message.includes(`: ${what} is not in the cache at "${hub.cacheDir}"`), message);
      assert.ok(message.endsWith(command + flag), message);
    };
    await refused({}, 'revision "main"');
    await refused({ revision: "v1.0" }, 'revision "v1.0"', " --repo-revision v1.0");
    await refused({ revision: COMMIT }, "config.json", ` --repo-revision ${COMMIT}`);
    assert.equal(hub.server.requests.length, 0);
    const folder = await hub.fetch();
    await refused({ revision: "v1.0" }, 'revision "v1.0"', " --repo-revision v1.0");
    // A link without its blob is a missing file.
    await Deno.remove(hub.blob("model-2.safetensors"));
    await refused({}, "model-2.safetensors");
    await Deno.remove(`${folder}/model.safetensors.index.json`);
    await refused({}, "model.safetensors");
    await Deno.remove(`${folder}/config.json`);
    await refused({}, "config.json");
  });
});

Deno.test("fetchRepository() writes refs of branches and tags, as Python does", async () => {
  const revisions = ["main", "v1.0", "feature/new/head", "refs/pr/1"];
  await withHub({ files: MODEL, revisions }, async (hub) => {
    const refs = `${hub.cacheDir}/models--owner--name/refs`;
    const folder = await hub.fetch({ revision: COMMIT });
    assert.throws(() => Deno.statSync(refs), Deno.errors.NotFound);
    for (const revision of revisions) {
      assert.equal(await hub.fetch({ revision }), folder);
      assert.equal(Deno.readTextFileSync(`${refs}/${revision}`), COMMIT); // without a newline
      assert.equal(await hub.fetch({ revision, offline: true }), folder);
    }
    assert.equal(hub.server.seen("/resolve/").length, 3);
    assert.equal(hub.server.seen("/revision/feature%2Fnew%2Fhead?").length, 1);
    assert.deepEqual(namesIn(refs), ["feature", "main", "refs", "v1.0"]);
  });
});

Deno.test("fetchRepository() fetches only what changed when a branch moves", async () => {
  await withHub({ files: MODEL }, async (hub) => {
    const old = await hub.fetch();
    const commit = "b".repeat(40);
    hub.server.serve("owner/name", { files: { ...MODEL, "config.json": "{ }" }, commit });
    hub.server.requests.length = 0;
    const now = await hub.fetch();
    assert.notEqual(now, old);
    assert.deepEqual(hub.server.seen("/resolve/").map(({ path }) => path), [
      `/owner/name/resolve/${commit}/config.json`,
    ]);
    assert.equal(Deno.readTextFileSync(`${now}/config.json`), "{ }");
    assert.equal(Deno.readTextFileSync(`${old}/config.json`), MODEL["config.json"]);
    assert.equal(await hub.fetch({ offline: true }), now);
    assert.equal(await hub.fetch({ offline: true, revision: COMMIT }), old);
  });
});

Deno.test("fetchRepository() writes the ref last: offline finds no half model", async () => {
  await withHub({ files: SHARDED }, async (hub) => {
    hub.server.misbehave = ({ host }) =>
      host === "storage" ? new Response("gone", { status: 404 }) : undefined;
    await hub.refusal();
    assert.match(await hub.refusal({ offline: true }), /revision "main" is not in the cache/);
    assert.match(await hub.refusal({ offline: true, revision: COMMIT }), /model-1\.safetensors/);
  });
});

Deno.test("fetchRepository() counts the bytes of all files up to a total", async () => {
  await withHub({ files: SHARDED }, async (hub) => {
    const seen: { file?: string; loaded: number; total?: number }[] = [];
    await hub.fetch({ onProgress: (progress) => seen.push(progress) });
    const total = Object.values(SHARDED).reduce((sum, { length }) => sum + length, 0);
    assert.deepEqual(seen.at(-1)?.loaded, total);
    assert.ok(seen.every(({ loaded }, i) => i === 0 || loaded >= seen[i - 1].loaded));
    // The total is unknown until the index is read.
    const known = seen.filter((progress) => progress.total !== undefined);
    assert.ok(known.every((progress) => progress.total === total));
    assert.ok(
      seen.filter((p) => p.total === undefined).every((p) => p.file?.endsWith(".json")),
    );
    assert.deepEqual(
      new Set(seen.map(({ file }) => file)),
      new Set(Object.keys(SHARDED)),
    );
  });
});

Deno.test("fetchRepository() refuses an index with a hostile or missing file name", async () => {
  const hostile = [
    "../x",
    "/etc/passwd",
    "a/../../x",
    "..",
    "",
    "C:\\x",
    "C:x",
    "a\\b",
    "a\u0000b",
    "a/b",
  ];
  for (const name of [...hostile, "absent.safetensors", "toString"]) {
    const files = { "config.json": "{}", "model.safetensors.index.json": INDEX(name) };
    await withHub({ files: { ...files, [name]: "x" } }, async (hub) => {
      if (!hostile.includes(name)) hub.server.serve("owner/name", { files });
      await assert.rejects(hub.fetch(), { name: "CheckpointError" });
      assert.deepEqual(namesIn(`${hub.cacheDir}/models--owner--name/blobs`).length, 2);
      assert.equal(hub.server.seen("/resolve/").length, 2);
    });
  }
});

Deno.test("fetchRepository() writes nothing for hostile names in a listing", async () => {
  const hostile = { "../../../x": "x", "/tmp/x": "x", "..\\x": "x", "config.json/../../x": "x" };
  await withHub({ files: { ...MODEL, ...hostile, "\u001b[2J.gguf": "x" } }, async (hub) => {
    const folder = await hub.fetch();
    assert.deepEqual(namesIn(folder), Object.keys(MODEL).sort());
    assert.deepEqual(namesIn(`${hub.cacheDir}/..`), ["hub"]);
    assert.deepEqual(namesIn(hub.cacheDir), [".locks", "CACHEDIR.TAG", "models--owner--name"]);
  });
});

Deno.test("fetchRepository() refuses listings without a commit, size or hash", async () => {
  await withHub({ files: MODEL }, async (hub) => {
    const file = (rest: object) => ({
      sha: COMMIT,
      siblings: [{ rfilename: "config.json", ...rest }],
    });
    const ok = { size: 2, blobId: "b".repeat(40) };
    const cases: [unknown, RegExp][] = [
      ["<html>", /expected a listing in JSON from .*; is HF_ENDPOINT the URL of a hub\?/],
      [[], /expected a listing in JSON/],
      [{}, /expected a commit of 40 hexadecimal digits/],
      [{ sha: "../../x" }, /expected a commit of 40 hexadecimal digits/],
      [{ sha: COMMIT }, /it has no config\.json/],
      [{ sha: COMMIT, siblings: [null, 1, { rfilename: 3 }] }, /it has no config\.json/],
      [file({}), /expected a plain name, a size and a hash for "config\.json"/],
      [file({ ...ok, size: -1 }), /expected a plain name, a size and a hash/],
      [file({ ...ok, size: 1e300 }), /expected a plain name, a size and a hash/],
      [file({ ...ok, blobId: "../x" }), /expected a plain name, a size and a hash/],
      [file({ ...ok, lfs: { sha256: "B".repeat(64), size: 2 } }), /a size and a hash/],
    ];
    for (const [listing, message] of cases) {
      hub.server.misbehave = () =>
        typeof listing === "string" ? new Response(listing) : Response.json(listing);
      assert.match(await hub.refusal(), message);
    }
    hub.server.misbehave = () => Response.json({ sha: COMMIT, siblings: [] });
    const other = "b".repeat(40);
    assert.match(await hub.refusal({ revision: other }), /expected commit b+ from .*, got a+/);
  });
});

Deno.test("fetchRepository() refuses malformed names without a request", async () => {
  await withHub({ files: MODEL }, async (hub) => {
    const long = "x".repeat(97);
    for (
      const repo of ["", "a/b/c", "../x", "a/..", "a b/c", "/a", "a/", "a--b/c", "o/x.git", long]
        .concat("o/na\nme", "-a/b", "o/.n", "o/n?x=1", "o/n#", "o/é", `o/${long}`)
    ) {
      await assert.rejects(hub.fetch({}, repo), /Cannot open "hf:.*expected hf:owner\/name/, repo);
    }
    for (
      const revision of ["", "../x", "/x", "a//b", "a/../b", "a\\b", "a\nb", "a b", "a:b", "."]
    ) {
      assert.match(await hub.refusal({ revision }), /a branch, a tag or a commit as the revision/);
    }
    assert.equal(hub.server.requests.length, 0);
  });
});

Deno.test("fetchRepository() fetches the oldest repositories, which have no owner", async () => {
  await withHub({ "gpt2": { files: MODEL } }, async (hub) => {
    const folder = await hub.fetch({}, "gpt2");
    assert.equal(folder, `${hub.cacheDir}/models--gpt2/snapshots/${COMMIT}`);
  });
});

Deno.test("fetchRepository() finds the cache folder that Python uses", async () => {
  await withHub({ files: MODEL }, async (hub) => {
    const { HF_ENDPOINT, HF_HUB_CACHE: root } = hub.env;
    const cases: [Record<string, string>, string][] = [
      [{ HF_HUB_CACHE: `${root}/1/`, HF_HOME: `${root}/no` }, "1"],
      [{ HF_HOME: `${root}/2`, XDG_CACHE_HOME: `${root}/no`, HF_HUB_CACHE: "" }, "2/hub"],
      [{ XDG_CACHE_HOME: `${root}/3`, HOME: `${root}/no` }, "3/huggingface/hub"],
      [{ HOME: `${root}/4` }, "4/.cache/huggingface/hub"],
      [{ HOME: `${root}/5`, HF_HOME: "~/hf" }, "5/hf/hub"],
      [{ SOME: `${root}/6`, HF_HUB_CACHE: "$SOME/${SOME_X}/hub" }, "6/${SOME_X}/hub"],
    ];
    for (const [env, expected] of cases) {
      hub.overrides = { env: (name) => ({ HF_ENDPOINT, ...env })[name] };
      assert.equal(
        await hub.fetch(),
        `${root}/${expected}/models--owner--name/snapshots/${COMMIT}`,
      );
    }
    const cacheDir = `${root}/7`;
    assert.ok((await hub.fetch({ cacheDir })).startsWith(`${cacheDir}/models--`));
  });
});

Deno.test("fetchRepository() accepts a plain URL as HF_ENDPOINT, with a path", async () => {
  await withHub({ files: MODEL }, async (hub) => {
    hub.env.HF_ENDPOINT += "//";
    await hub.fetch();
    assert.ok(hub.server.requests.every(({ path }) => !path.startsWith("//")));
    hub.env.HF_ENDPOINT = `${hub.server.url}/mirror/`;
    await hub.refusal();
    assert.equal(hub.server.seen("/mirror/api/models/owner/name/").length, 1);
    for (
      const endpoint of [
        "nonsense",
        "ftp://x",
        "file:///x",
        "http://me:secret@host",
        "http://:secret@host",
        "http://h?secret",
      ]
    ) {
      hub.env.HF_ENDPOINT = endpoint;
      assert.match(await hub.refusal(), /expected HF_ENDPOINT to be an http or https URL/);
    }
  });
});

Deno.test("fetchRepository() fetches four files at a time and stops at a failure", async () => {
  const shards = Array.from({ length: 9 }, (_, i) => `model-${i}.safetensors`);
  const files = Object.fromEntries(shards.map((name, i) => [name, someBytes(10_000, i)]));
  const index = { "config.json": "{}", "model.safetensors.index.json": INDEX(...shards) };
  await withHub({ files: { ...index, ...files } }, async (hub) => {
    const parts = () => hub.server.requests.filter(({ host }) => host === "storage").length;
    hub.server.body = (bytes, { host }) =>
      host === "storage" ? endlessBody(bytes.slice(0, 1000)) : bytes;
    hub.server.misbehave = ({ host }) =>
      host === "storage" && parts() === 4 ? new Response("gone", { status: 404 }) : undefined;
    const refusal = await within("the end of the other downloads", () => hub.refusal());
    assert.match(refusal, /answered 404 for "model-\d\.safetensors"/);
    assert.equal(parts(), 4);
    hub.server.body = (bytes) => bytes;
    await hub.fetch({ revision: COMMIT });
  });
});
