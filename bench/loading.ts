/**
 * A trainer's checkpoint against its export, and a model of the hub's cache against its folder:
 * files of one shape, opened and loaded by turns in processes of their own.
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
import { median } from "./measuring.ts";

/** LabCore's 50 M shape: 200 MB of parameters, and twice as much of an optimizer's state. */
const SHAPE = {
  vocab_size: 50257,
  block_size: 512,
  n_layer: 7,
  n_head: 8,
  n_embd: 528,
  bias: false,
  use_rope: true,
};

/** Processes of each kind; one more before them warms the disk's cache. */
const TURNS = 7;

/** What one process took. */
export interface Loading {
  /** Milliseconds of `loadModel`. */
  readonly ms: number;
  /** Bytes resident at the most. */
  readonly peak: number;
}

/**
 * Writes a checkpoint with an optimizer's state, as LabCore's trainer leaves it, and its export.
 */
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

/** Loads a model of each source by turns; medians. */
async function compare(
  sources: Readonly<Record<string, readonly string[]>>,
  env: Record<string, string> = {},
): Promise<Record<string, Loading>> {
  const found: Record<string, Loading[]> = {};
  for (let turn = -1; turn < TURNS; turn++) {
    for (const [name, args] of Object.entries(sources)) {
      const { stdout } = await new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", import.meta.url, ...args],
        env,
        stderr: "inherit",
      }).output();
      const loading = JSON.parse(new TextDecoder().decode(stdout)) as Loading;
      if (turn >= 0) (found[name] ??= []).push(loading);
    }
  }
  return Object.fromEntries(
    Object.entries(found).map(([name, all]) => [name, {
      ms: median(all.map(({ ms }) => ms)),
      peak: median(all.map(({ peak }) => peak)),
    }]),
  );
}

/** A `.pt` with optimizer state by its export. */
export async function torchFigure(): Promise<void> {
  console.log(
    "\na .pt with optimizer state by its safetensors export; goals ≤ 1.3× the time, ≤ 1.05× the memory",
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

/** A cached model of the hub by its folder. */
export async function hubFigure(): Promise<void> {
  console.log("\na model of the hub that is cached, by its folder; goal: as fast");
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
