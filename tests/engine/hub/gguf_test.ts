/** GGUF files on the hub: by quantisation, by name, split, offline. */
import assert from "node:assert/strict";
import { readGguf } from "../../../engine/architecture/mod.ts";
import { openGgufParts } from "../../../engine/checkpoint/checkpoint.ts";
import type { ByteSource } from "../../../engine/host/mod.ts";
import { chooseGguf, parseHubName } from "../../../engine/hub/gguf.ts";
import { ggufBytes, type GgufFile } from "../../gguf.ts";
import { someBytes, withHub } from "../../hub_server.ts";

Deno.test("parseHubName() splits a quantisation or a file from a repository", () => {
  const cases: [string, ReturnType<typeof parseHubName>][] = [
    ["owner/name", { repo: "owner/name" }],
    ["name", { repo: "name" }],
    ["owner/name:Q4_K_M", { repo: "owner/name", tag: "Q4_K_M" }],
    ["owner/name:", { repo: "owner/name", tag: "" }],
    ["owner/name/a.gguf", { repo: "owner/name", file: "a.gguf" }],
    ["owner/name/folder/a.GGUF", { repo: "owner/name", file: "folder/a.GGUF" }],
    ["owner/name.gguf", { repo: "owner/name.gguf" }],
    ["owner/name/other", { repo: "owner/name/other" }],
  ];
  for (const [name, expected] of cases) assert.deepEqual(parseHubName(name), expected);
});

const FILES = [
  "README.md",
  "m-Q8_0.gguf",
  "m-q4_k_m.gguf",
  "m-IQ4_NL.gguf",
  "m.bf16.gguf",
  "mmproj-m-Q8_0.gguf",
  "m.imatrix.gguf",
  "Q6_K/m-Q6_K-00001-of-00002.gguf",
  "Q6_K/m-Q6_K-00002-of-00002.gguf",
  "Q2_K/m-Q2_K-00001-of-00002.gguf",
];

Deno.test("chooseGguf() finds the file of a quantisation, in upper or lower case", () => {
  const choose = (name: string, files = FILES) =>
    chooseGguf(files, parseHubName(name), (expected) => {
      throw new Error(expected);
    });
  const cases: [string, string[]][] = [
    ["o/m:Q4_K_M", ["m-q4_k_m.gguf"]],
    ["o/m", ["m-q4_k_m.gguf"]],
    ["o/m:latest", ["m-q4_k_m.gguf"]],
    ["o/m:q8_0", ["m-Q8_0.gguf"]],
    ["o/m:BF16", ["m.bf16.gguf"]],
    ["o/m:Q6_K", ["Q6_K/m-Q6_K-00001-of-00002.gguf", "Q6_K/m-Q6_K-00002-of-00002.gguf"]],
    ["o/m/m-Q8_0.gguf", ["m-Q8_0.gguf"]],
    ["o/m/mmproj-m-Q8_0.gguf", ["mmproj-m-Q8_0.gguf"]],
    [
      "o/m/Q6_K/m-Q6_K-00002-of-00002.gguf",
      ["Q6_K/m-Q6_K-00001-of-00002.gguf", "Q6_K/m-Q6_K-00002-of-00002.gguf"],
    ],
  ];
  for (const [name, files] of cases) assert.deepEqual(choose(name), files, name);
  assert.deepEqual(choose("o/m", ["a.gguf", "README.md"]), ["a.gguf"]);
  assert.equal(choose("o/m", ["README.md"]), undefined);
  const refused: [string, RegExp, string[]?][] = [
    [
      "o/m:F16",
      /^expected one GGUF of "F16", got m-Q8_0.gguf, .*; name one, such as hf:o\/m\/m-Q8/,
    ],
    ["o/m:Q4_NL", /^expected one GGUF of "Q4_NL"/],
    ["o/m:Q4_K", /^expected one GGUF of "Q4_K"/],
    ["o/m:.*", /^expected one GGUF of "\.\*"/],
    ["o/m:", /^expected a quantisation after the colon, such as hf:o\/m:Q4_K_M$/],
    ["o/m:Q2_K", /^expected 2 parts, got no "Q2_K\/m-Q2_K-00002-of-00002\.gguf"$/],
    ["o/m/none.gguf", /^expected "none\.gguf", got m-Q8_0\.gguf, /],
    ["o/m:Q8_0", /got a-Q8_0\.gguf, b-Q8_0\.gguf; name one/, ["a-Q8_0.gguf", "b-Q8_0.gguf"]],
    ["o/m", /^expected one GGUF of "Q4_K_M", got a-Q8_0\.gguf, b/, ["a-Q8_0.gguf", "b-Q5_0.gguf"]],
    ["o/m:Q8_0", /^expected one GGUF of "Q8_0", got none; name one, such as hf:o\/m\/FILE/, []],
  ];
  for (const [name, message, files] of refused) {
    assert.throws(() => choose(name, files), { message }, name);
  }
});

Deno.test("fetchRepository() fetches one GGUF, needs no config.json, and finds it offline", async () => {
  const files = Object.fromEntries(FILES.map((path, i) => [path, someBytes(100 + i, i)]));
  const { "Q2_K/m-Q2_K-00001-of-00002.gguf": _, ...whole } = files;
  await withHub({ files: whole }, async (hub) => {
    const commit = "a".repeat(40);
    const snapshot = `${hub.cacheDir}/models--owner--name/snapshots/${commit}`;
    const cases = [
      ["owner/name", "m-q4_k_m.gguf"],
      ["owner/name:Q8_0", "m-Q8_0.gguf"],
      ["owner/name:q6_k", "Q6_K/m-Q6_K-00001-of-00002.gguf"],
      ["owner/name/m.bf16.gguf", "m.bf16.gguf"],
    ];
    for (const [name, path] of cases) {
      await assert.rejects(hub.fetch({ offline: true }, name), /is not in the cache at/);
      const fetched = hub.server.seen("resolve").length;
      assert.equal(await hub.fetch({}, name), `${snapshot}/${path}`);
      assert.ok(hub.server.seen("resolve").length > fetched);
      assert.equal(await hub.fetch({ offline: true }, name), `${snapshot}/${path}`);
      assert.deepEqual(Deno.readFileSync(`${snapshot}/${path}`), files[path]);
    }
    assert.ok(Deno.statSync(`${snapshot}/Q6_K/m-Q6_K-00002-of-00002.gguf`).isFile);
    await assert.rejects(Deno.stat(`${snapshot}/m-IQ4_NL.gguf`));
    await assert.rejects(hub.fetch({ offline: true }, "owner/name:IQ4_NL"), {
      name: "CheckpointError",
      message: /IQ4_NL is not in the cache .* inspect hf:owner\/name:IQ4_NL$/,
    });
  });
});

Deno.test("fetchRepository() prefers a repository's other weights to a GGUF that is not named", async () => {
  const files = { "config.json": "{}", "model.safetensors": "x", "m-Q8_0.gguf": "GGUF" };
  await withHub({ files }, async (hub) => {
    const folder = await hub.fetch();
    assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name).sort(), [
      "config.json",
      "model.safetensors",
    ]);
    assert.equal(await hub.fetch({}, "owner/name:Q8_0"), `${folder}/m-Q8_0.gguf`);
  });
});

/** A GGUF of 5 MiB, larger than the range that is read of it. */
function large(architecture: string, pairs: GgufFile["pairs"] = []) {
  const data = new Uint8Array(5 << 20);
  return ggufBytes({
    pairs: [["general.architecture", ["text", architecture]], ...pairs],
    tensors: [{ name: "a", extents: [data.length / 4], type: 0, data }],
  });
}

const CHECKS = {
  beforeGguf: async (parts: readonly ByteSource[]) =>
    void await readGguf(await openGgufParts(parts)),
};

Deno.test("fetchRepository() refuses a GGUF by its header, before it downloads the file", async () => {
  const unknown = large("llama");
  new DataView(unknown.buffer).setUint32(4, 1, true);
  const part = (no: number) =>
    large("mamba", [["split.no", ["u16", no]], ["split.count", ["u16", 2]]]);
  const files = {
    "m-Q4_0.gguf": large("mamba"),
    "m-Q8_0.gguf": unknown,
    "m-F16-00001-of-00002.gguf": part(0),
    "m-F16-00002-of-00002.gguf": part(0),
  };
  for (const hasRanges of [true, false]) {
    await withHub({ files }, async (hub) => {
      hub.overrides = CHECKS;
      hub.server.hasRanges = hasRanges;
      const cases: [tag: string, message: RegExp][] = [
        ["Q4_0", /general.architecture .* got "mamba"/],
        ["Q8_0", /GGUF of version 2 or 3, got 1/],
        ["F16", /part 1 of 2 by its split.no and split.count, got 0 of 2/],
      ];
      for (const [tag, message] of cases) {
        await assert.rejects(hub.fetch({}, `owner/name:${tag}`), {
          name: "CheckpointError",
          message,
        });
      }
      await assert.rejects(Deno.stat(`${hub.cacheDir}/models--owner--name/snapshots`));
      const asked = hub.server.seen("resolve").map(({ headers }) => headers.get("range"));
      assert.ok(asked.every((range) => /^bytes=0-\d+$/.test(range ?? "")), asked.join());
    });
  }
});

Deno.test("fetchRepository() downloads a GGUF after its header, and reads no header of a cached one", async () => {
  const bytes = large("llama");
  await withHub({ files: { "m-Q8_0.gguf": bytes } }, async (hub) => {
    let headers = 0;
    hub.overrides = {
      beforeGguf: async (parts) => {
        headers++;
        using checkpoint = await openGgufParts(parts);
        assert.deepEqual(checkpoint.tensors().map(({ name }) => name), ["a"]);
      },
    };
    for (let i = 0; i < 2; i++) assert.deepEqual(Deno.readFileSync(await hub.fetch()), bytes);
    assert.equal(headers, 1);
  });
});
