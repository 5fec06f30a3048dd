/** Listings of the mock hub against `@huggingface/hub`, the hub's own client for JavaScript. */
import assert from "node:assert/strict";
// deno-lint-ignore no-import-prefix -- in deno.json, every user would download it
import { listFiles } from "npm:@huggingface/hub@2.17.5";
import { HubClient, type HubFile } from "../../../engine/hub/client.ts";
import { Listing } from "../../../engine/hub/listing.ts";
import { type HubFixture, someBytes, TOKEN, withHub } from "../../hub_server.ts";

const FILES = {
  "config.json": "{}",
  "a folder/vocab.json": '{"é": 0}',
  "empty.txt": "",
  "large.json": "[" + " ".repeat(1_000_001) + "]", // on the second host by its size
  "model.safetensors": someBytes(3000),
};

const byPath = (a: HubFile, b: HubFile) => a.path < b.path ? -1 : 1;

/** The engine's listing. */
async function ours({ server: { url } }: HubFixture, repo: string, token?: string) {
  const target = { endpoint: url, repo, revision: "main", token };
  const wait = () => Promise.resolve();
  const times = { retryMs: 1, maxWaitMs: 1, stallMs: 10_000, pollMs: 1, pause: wait };
  const client = new HubClient(target, times);
  const answer = await client.listing();
  const paths = (answer.siblings as { rfilename: string }[]).map(({ rfilename }) => rfilename);
  const listing = new Listing(answer, client);
  return paths.map((path) => listing.file(path)).sort(byPath);
}

/** The peer's listing. */
async function theirs({ server: { url } }: HubFixture, name: string, accessToken?: string) {
  const files: HubFile[] = [];
  const repo = { type: "model", name } as const;
  for await (const file of listFiles({ repo, accessToken, hubUrl: url, recursive: true })) {
    if (file.type !== "file") continue;
    files.push({ path: file.path, size: file.size, etag: file.lfs?.oid ?? file.oid! });
  }
  return files.sort(byPath);
}

const REPOSITORIES = {
  "owner/public": { files: FILES },
  "owner/private": { files: FILES, token: TOKEN },
  "owner/old": { files: {}, renamedTo: "owner/public" },
};

for (
  const [what, repo, token] of [
    ["a public repository", "owner/public"],
    ["a private repository", "owner/private", TOKEN],
    ["a renamed repository", "owner/old"],
  ] as const
) {
  Deno.test(`HubClient.listing() equals that of @huggingface/hub for ${what}`, async () => {
    await withHub(REPOSITORIES, async (hub) => {
      const files = await ours(hub, repo, token);
      assert.deepEqual(files.map(({ path }) => path), Object.keys(FILES).sort());
      assert.deepEqual(await theirs(hub, repo, token), files);
    });
  });
}

Deno.test("HubClient.listing() and @huggingface/hub refuse a private repository without a token", async () => {
  await withHub(REPOSITORIES, async (hub) => {
    await assert.rejects(ours(hub, "owner/private"), { name: "CheckpointError" });
    await assert.rejects(theirs(hub, "owner/private"), { statusCode: 401 });
  });
});
