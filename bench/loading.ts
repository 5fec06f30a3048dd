/**
 * Loading a trainer's checkpoint against its export, and a cached hub model against its folder, in
 * interleaved rounds of separate processes.
 *
 * @module
 */
import { readArchitecture } from "../engine/architecture/mod.ts";
import { specTree, weightSpecs } from "../engine/weights/mod.ts";
import { loadModel } from "../mod.ts";
import { bytesOf, sizeOf } from "../kernels/tensor.ts";
import { HubServer } from "../tests/hub_server.ts";
import { inTempFolder, writeSafetensors, type WrittenTensor } from "../tests/safetensors.ts";
import { randomNumbers } from "../tests/testing.ts";
import { type Persistent, storage, tensor, torchMembers, zipPieces } from "../tests/torch.ts";
import { child, median } from "./measuring.ts";

/** LabCore's 50 M shape: 200 MB of parameters, and 400 MB of optimizer state. */
const SHAPE = {
  vocab_size: 50257,
  block_size: 512,
  n_layer: 7,
  n_head: 8,
  n_embd: 528,
  bias: false,
  use_rope: true,
};

/** Processes per source, after one that warms the disk cache. */
const ROUNDS = 7;

/** Measurements of one process. */
export interface Loading {
  /** Milliseconds of `loadModel`. */
  readonly ms: number;
  /** Peak resident bytes. */
  readonly peak: number;
}

/** Writes a checkpoint with optimizer state, as LabCore's trainer does, and its export. */
export async function writeBoth(folder: string): Promise<{ checkpoint: string; exported: string }> {
  const page = randomNumbers(1 << 20, 5);
  const numbers = (count: number): Float32Array => {
    const all = new Float32Array(count);
    for (let at = 0; at < count; at += page.length) {
      all.set(page.subarray(0, Math.min(page.length, count - at)), at);
    }
    return all;
  };
  const exported: Record<string, WrittenTensor> = {};
  const storages: Record<string, Uint8Array> = {};
  const model = new Map<string, unknown>();
  const state = new Map<number, unknown>();
  let key = 0;
  const stored = (data: Float32Array, shape: readonly number[]): unknown => {
    const place: Persistent = storage(String(key), "FloatStorage", data.length);
    storages[key++] = bytesOf(data);
    return tensor(place, shape, shape.map((_, d) => sizeOf(shape.slice(d + 1))));
  };
  const a = readArchitecture({ ...SHAPE, model_type: "labcore_gpt" }, "the shape");
  for (const [i, { names: [name], shape }] of weightSpecs(specTree(a)).entries()) {
    const data = numbers(sizeOf(shape));
    exported[name] = { dtype: "F32", shape, data };
    model.set(name, stored(data, shape));
    state.set(i, new Map([["exp_avg", stored(data, shape)], ["exp_avg_sq", stored(data, shape)]]));
  }
  const root = {
    step: 1000,
    model_config: SHAPE,
    model_state_dict: model,
    optimizer_state_dict: new Map([["state", state]]),
  };
  await writeSafetensors(`${folder}/model.safetensors`, exported);
  await Deno.writeTextFile(
    `${folder}/config.json`,
    JSON.stringify({ ...SHAPE, model_type: "labcore_gpt" }),
  );
  const checkpoint = `${folder}/ckpt_last.pt`;
  const { pieces } = zipPieces(torchMembers(root, { storages }));
  using file = await Deno.open(checkpoint, { write: true, create: true });
  const writer = file.writable.getWriter();
  for (const { bytes } of pieces) await writer.write(bytes);
  await writer.close();
  return { checkpoint, exported: folder };
}

/** Loads a model from each source in interleaved rounds; returns medians. */
async function compare(
  sources: Readonly<Record<string, readonly string[]>>,
  env: Record<string, string> = {},
): Promise<Record<string, Loading>> {
  const found: Record<string, Loading[]> = {};
  for (let round = -1; round < ROUNDS; round++) {
    for (const [name, args] of Object.entries(sources)) {
      const loading = await child<Loading>(import.meta.url, args, env);
      if (round >= 0) (found[name] ??= []).push(loading);
    }
  }
  return Object.fromEntries(
    Object.entries(found).map(([name, all]) => [name, {
      ms: median(all.map(({ ms }) => ms)),
      peak: median(all.map(({ peak }) => peak)),
    }]),
  );
}

/** A `.pt` with optimizer state against its export. */
export async function torchFigure(): Promise<void> {
  console.log(
    "\n.pt with optimizer state relative to its export; goals ≤ 1.3× time, ≤ 1.05× memory",
  );
  await inTempFolder(async (folder) => {
    const { checkpoint, exported } = await writeBoth(folder);
    const { pt, safetensors } = await compare({ pt: [checkpoint], safetensors: [exported] });
    const mb = (path: string) => (Deno.statSync(path).size / 1e6).toFixed(0);
    console.log(
      `  time ${(pt.ms / safetensors.ms).toFixed(2)}×, peak of resident memory ${
        (pt.peak / safetensors.peak).toFixed(3)
      }×   ${pt.ms.toFixed(0)} and ${safetensors.ms.toFixed(0)} ms, files of ${
        mb(checkpoint)
      } and ${mb(`${exported}/model.safetensors`)} MB`,
    );
  });
}

/** A cached hub model against its folder. */
export async function hubFigure(): Promise<void> {
  console.log("\ncached hub model relative to its folder; goal: as fast");
  await inTempFolder(async (folder) => {
    const demo = new URL("./demo", import.meta.url).pathname;
    await using server = new HubServer({ "owner/name": { files: demo } });
    const env = { HF_ENDPOINT: server.url, HF_HOME: folder, HF_TOKEN: "", HF_HUB_OFFLINE: "" };
    const { local, online, offline } = await compare({
      local: [demo],
      online: ["hf:owner/name"],
      offline: ["hf:owner/name", "--offline"],
    }, env);
    console.log(
      `  offline ${(offline.ms / local.ms).toFixed(2)}×, with its one request ${
        (online.ms / local.ms).toFixed(2)
      }×   ${offline.ms.toFixed(1)}, ${online.ms.toFixed(1)} and ${local.ms.toFixed(1)} ms`,
    );
  });
}

if (import.meta.main) {
  const [source, offline] = Deno.args;
  const start = performance.now();
  await using _model = await loadModel(source, {
    device: "js",
    contextLength: 128,
    offline: offline === "--offline",
  });
  const ms = performance.now() - start;
  const status = await Deno.readTextFile("/proc/self/status").catch(() => "");
  const peak = 1024 * Number(/^VmHWM:\s*(\d+) kB$/m.exec(status)?.[1] ?? NaN);
  console.log(JSON.stringify({ ms, peak } satisfies Loading));
}
