/** Both command lines of the benchmark's specification, on the files that its trainer writes. */
import assert from "node:assert/strict";
import type { BenchmarkReport } from "../../engine/measure/report.ts";
import { HubServer } from "../hub_server.ts";
import { inTempFolder } from "../safetensors.ts";
import { fixture } from "../testing.ts";
import { runCli } from "./run.ts";

/** A configuration of the specification: other programs' sections, and a null, which is no TOML. */
const BASE_TOML = `[general]
run_name = "base"

[data]
dataset = "tinyshakespeare"

[model]
vocab_size = 65
block_size = 512
n_layer = 6

[training]
batch_size = 8
precision = "fp32"

[generation]
max_new_tokens = 200
seed = null
deterministic = false
temperature = 0.9
top_k = 40
top_p = 1.0
repetition_penalty = 1.0
use_kv_cache = true
stream = true
system_prompt = ""
max_history_turns = 4
`;

const LOCAL = `--source local
  --checkpoint checkpoints/ckpt_last.pt
  --meta data/processed/meta.json
  --tokenizer char
  --config configs/base.toml
  --device cpu
  --json-out outputs/bench_infer.json
  --md-out outputs/bench_infer.md`.split(/\s+/);

const HUB = `--source hf
  --repo-id LabCoreAI/tiny
  --config configs/base.toml
  --device cuda
  --json-out outputs/bench_infer_hf.json
  --md-out outputs/bench_infer_hf.md`.split(/\s+/);

/** Files of a model that LabCore exported, as the hub serves them. */
const exported = Object.fromEntries(
  ["config.json", "model.safetensors", "tokenizer.json"].map((name) => [
    name,
    Deno.readFileSync(fixture(`labcore/learned/${name}`)),
  ]),
);

/** A project folder of LabCore. */
async function makeProject(folder: string): Promise<void> {
  for (const name of ["checkpoints", "data/processed", "configs"]) {
    await Deno.mkdir(`${folder}/${name}`, { recursive: true });
  }
  const learned = fixture("labcore/learned");
  await Deno.copyFile(`${learned}/ckpt_last.pt`, `${folder}/checkpoints/ckpt_last.pt`);
  await Deno.copyFile(`${learned}/meta.json`, `${folder}/data/processed/meta.json`);
  await Deno.writeTextFile(`${folder}/configs/base.toml`, BASE_TOML);
}

const run = (folder: string, args: readonly string[], env: Record<string, string>) =>
  runCli(args, { cwd: folder, env });

/** A report without times, places, and bytes of weights, which each backend pads differently. */
function settled(report: BenchmarkReport): unknown {
  const { generation, results, schema_version } = report;
  const { source: _source, id: _id, weights_mib: _weights, ...model } = report.model;
  return {
    schema_version,
    torch: report.torch,
    platform: report.platform,
    model,
    generation,
    iters: results.iters,
    prefill: results.prefill.tokens,
    decode: results.decode.tokens,
    tokens: results.per_iter.map(({ token_ms }) => token_ms.length),
  };
}

Deno.test("both command lines of the specification give the same row and report, up to times", () =>
  inTempFolder(async (folder) => {
    await makeProject(folder);
    await using server = new HubServer({ "LabCoreAI/tiny": { files: exported } });
    const env = { HF_ENDPOINT: server.url, HF_HOME: folder };
    const local = await run(folder, LOCAL, env);
    assert.equal(local.code, 0, local.stderr);
    assert.equal(server.requests.length, 0);
    const hub = await run(folder, HUB, env);
    assert.equal(hub.code, 0, hub.stderr);
    assert.equal(server.seen("/api/models/LabCoreAI/tiny/revision").length, 1);

    const rows = [local, hub].map(({ stdout }) => stdout.trimEnd().split("\n"));
    for (const [i, name] of ["bench_infer", "bench_infer_hf"].entries()) {
      assert.deepEqual(
        (await Deno.readTextFile(`${folder}/outputs/${name}.md`)).trimEnd().split("\n"),
        rows[i],
      );
      assert.equal(rows[i].length, 3);
      assert.equal(
        rows[i][0],
        "| Device | Source | Model size (params M) | KV-cache | gen_tokens | mean tok/s | peak VRAM MiB |",
      );
      assert.match(
        rows[i][2],
        i
          ? /^\| .+ \| hf \| 0\.029 \| on \| 256 \| [\d.]+ \| .+ \|$/
          : /^\| .+ \(cpu\) \| local \| 0\.029 \| on \| 256 \| [\d.]+ \| N\/A \|$/,
      );
    }
    const [first, second] = await Promise.all(
      ["bench_infer", "bench_infer_hf"].map(async (name) =>
        JSON.parse(await Deno.readTextFile(`${folder}/outputs/${name}.json`)) as BenchmarkReport
      ),
    );
    assert.deepEqual(settled(second), settled(first));
    assert.deepEqual([first.model.source, first.model.id], ["local", "checkpoints/ckpt_last.pt"]);
    assert.deepEqual([second.model.source, second.model.id], ["hf", "LabCoreAI/tiny"]);
  }));

Deno.test("a cached model of the hub takes one request, and none under --offline", () =>
  inTempFolder(async (folder) => {
    await using server = new HubServer({ "LabCoreAI/tiny": { files: exported } });
    const env = { HF_ENDPOINT: server.url, HF_HOME: folder };
    const write = ["--prompt", "ROMEO:", "--max-tokens", "8", "--seed", "1"];
    const offline = await run(
      folder,
      ["generate", "hf:LabCoreAI/tiny", "--offline", ...write],
      env,
    );
    assert.equal(offline.code, 1);
    assert.match(
      offline.stderr,
      /^error: .*revision "main" is not in the cache.*cli\.ts inspect hf:LabCoreAI\/tiny$/m,
    );
    assert.equal(server.requests.length, 0);

    const config = JSON.stringify({ model_type: "mixtral" });
    server.serve("owner/other", { files: { ...exported, "config.json": config } });
    const other = await run(folder, ["inspect", "hf:owner/other"], env);
    assert.match(other.stderr, /model_type .*"mixtral"/);
    assert.deepEqual(server.seen("safetensors"), []);

    const first = await run(folder, ["generate", "hf:LabCoreAI/tiny", ...write], env);
    assert.equal(first.code, 0, first.stderr);
    const fetched = server.requests.length;
    const again = await run(folder, [
      "generate",
      "--source",
      "hf",
      "--repo-id",
      "LabCoreAI/tiny",
      ...write,
    ], env);
    assert.equal(server.requests.length, fetched + 1);
    const cached = await run(folder, ["generate", "hf:LabCoreAI/tiny", "--offline", ...write], env);
    assert.equal(server.requests.length, fetched + 1);
    assert.ok(first.stdout.length > 8);
    assert.deepEqual([again.stdout, cached.stdout], [first.stdout, first.stdout]);
  }));

Deno.test("a refusal of the hub is one sentence and exit status 1", () =>
  inTempFolder(async (folder) => {
    await using server = new HubServer({
      "owner/gated": { files: exported, gated: true },
      "owner/private": { files: exported, token: "hf_right" },
    });
    const env = { HF_ENDPOINT: server.url, HF_HOME: folder };
    const cases: [args: string[], env: Record<string, string>, message: RegExp][] = [
      [["inspect", "hf:owner/gated"], {}, /it is gated: accept its terms at/],
      [["inspect", "hf:owner/private"], {}, /it is private, or there is no such repository/],
      [["inspect", "hf:owner/none"], { HF_TOKEN: "hf_right" }, /there is no such repository/],
      [
        ["inspect", "hf:owner/private", "--repo-revision", "v9"],
        { HF_TOKEN: "hf_right" },
        /it has no revision "v9"/,
      ],
      [["inspect", "hf:no repo"], {}, /expected hf:owner\/name/],
    ];
    for (const [args, more, message] of cases) {
      const { code, stdout, stderr } = await run(folder, args, { ...env, ...more });
      assert.match(stderr, message);
      assert.equal(stderr.match(/^error: /gm)?.length, 1, stderr);
      assert.doesNotMatch(stderr, /hf_right|^\s+at /m);
      assert.deepEqual([code, stdout], [1, ""]);
    }
  }));
