/**
 * Figures of the typed-array backend and of loading, each beside its goal.
 *
 * `deno run -A bench/figures.ts [matvec] [decode] [memory] [open] [torch] [hub]`, all by default.
 * Each is a ratio of two measurements of one run, or a share of a goal. Machines differ and are
 * noisy, so no figure fails the run.
 *
 * @module
 */
import { readArchitecture } from "../engine/architecture/mod.ts";
import { openCheckpoint } from "../engine/checkpoint/checkpoint.ts";
import { specTree, weightSpecs } from "../engine/weights/mod.ts";
import { matmulJs, matmulScratch, type Rows } from "../kernels/ops/matmul/mod.ts";
import { bytesOf, sizeOf } from "../kernels/tensor.ts";
import { randomNumbers } from "../tests/testing.ts";
import { DEMO, GPT2, measureDecode, openDemoLoop, openGpt2Loop } from "./decode.ts";
import { hubFigure, torchFigure } from "./loading.ts";
import { againstReading, median, percent, stored } from "./measuring.ts";
import type { Resident } from "./resident.ts";

const MIB = 2 ** 20;

/**
 * (a) Typed-array matvec against reading the same bytes, by a plain sum and by the fastest one
 * known.
 */
async function matvec(): Promise<void> {
  console.log(
    "\nmatvec, F32, typed arrays, as a share of summing the same bytes; goal ≥ 70 % of plain",
  );
  for (const [N, K] of [[768, 768], [2304, 768], [3072, 768], [768, 3072], [50257, 768]]) {
    const { data, words } = stored(N * K, "F32");
    const weight: Rows = { data, dtype: "F32", shape: [N, K] };
    const [x, y] = [randomNumbers(K, 4), new Float32Array(N)];
    const scratch = matmulScratch("F32", K);
    const run = () => matmulJs(y, x, weight, {}, 1, { scratch });
    const { kernelMs, plainMs, limitMs } = await againstReading(run, [words]);
    const rate = (ms: number) => (data.byteLength / ms / 1e6).toFixed(1);
    const share = (ms: number) => percent(ms / kernelMs).padStart(5);
    console.log(
      `  ${`${N}×${K}`.padEnd(10)} plain ${share(plainMs)}, fastest ${share(limitMs)}   ` +
        `kernel ${rate(kernelMs)} GB/s, plain ${rate(plainMs)}, fastest ${rate(limitMs)}`,
    );
  }
}

/** (b) The decode loop's rate as a share of that of its kernels alone. */
async function decode(): Promise<void> {
  console.log("\ndecode loop: its kernels' share of its time; goal ≥ 80 %");
  for (const [name, open] of [["demo", openDemoLoop], ["GPT-2", openGpt2Loop]] as const) {
    await using loop = await open();
    const { ratio, loopMs, parts } = await measureDecode(loop);
    console.log(
      `  ${name.padEnd(10)} ${percent(ratio).padStart(5)}   ${loopMs.toFixed(2)} ms per token, ${
        (1000 / loopMs).toFixed(1)
      } tokens/s`,
    );
    for (const [kind, ms] of Object.entries(parts)) {
      console.log(`    ${kind.padEnd(18)} ${ms.toFixed(3).padStart(8)} ms per token`);
    }
  }
}

/** (c) Resident memory of GPT-2's shape in F32, above a process that only imported the library. */
async function memory(): Promise<void> {
  const [idle, loaded] = [await residentOf("idle"), await residentOf("gpt2")];
  const mib = (bytes: number) => `${(bytes / MIB).toFixed(0)} MiB`;
  const kept = loaded.weights + loaded.kvCache;
  console.log("\nresident memory above idle, GPT-2's shape, F32; goal ≤ weights + cache + 48 MiB");
  console.log(
    `  weights ${mib(loaded.weights)}, cache ${mib(loaded.kvCache)}, idle ${mib(idle.rss)}`,
  );
  const report = (what: string, above: number) =>
    console.log(`  ${what} ${mib(above)}: weights + cache + ${mib(above - kept)}`);
  report("at the end", loaded.rss - idle.rss);
  if (loaded.peak) report("at its peak", loaded.peak - idle.peak);
}

async function residentOf(which: "idle" | "gpt2"): Promise<Resident> {
  const script = new URL("./resident.ts", import.meta.url).pathname;
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", script, which],
    stderr: "inherit",
  });
  const { stdout } = await command.output();
  return JSON.parse(new TextDecoder().decode(stdout)) as Resident;
}

/** (d) Opening a checkpoint, from its path to the first tensor's numbers. */
async function open(): Promise<void> {
  console.log("\nopening a checkpoint, up to its first tensor's numbers; goal ≤ 50 ms");
  await reportOpening("demo", DEMO);
  const path = await Deno.makeTempFile({ suffix: ".safetensors" });
  try {
    const bytes = await writeGpt2(path);
    await reportOpening(`${(bytes / 1e6).toFixed(0)} MB`, path);
  } finally {
    await Deno.remove(path);
  }
}

async function reportOpening(name: string, path: string): Promise<void> {
  const [opens, firsts]: number[][] = [[], []];
  let cold = 0;
  for (let i = 0; i < 9; i++) {
    const start = performance.now();
    using checkpoint = await openCheckpoint(path);
    opens.push(performance.now() - start);
    await checkpoint.read(checkpoint.tensors()[0].name);
    firsts.push(performance.now() - start);
    cold ||= firsts[0];
  }
  console.log(
    `  ${name.padEnd(10)} ${median(firsts).toFixed(1)} ms (${
      median(opens).toFixed(1)
    } to the directory; the first time ${cold.toFixed(1)})`,
  );
}

/**
 * Writes a checkpoint of GPT-2's shape, with tensors sorted by name as safetensors' writer does.
 */
async function writeGpt2(path: string): Promise<number> {
  const header: Record<string, unknown> = {};
  let end = 0;
  const specs = weightSpecs(specTree(readArchitecture(GPT2, "GPT-2")))
    .toSorted((a, b) => a.names[0] < b.names[0] ? -1 : 1);
  for (const { names: [name], shape, stored } of specs) {
    const begin = end;
    end += 4 * sizeOf(shape);
    header[name] = {
      dtype: "F32",
      shape: stored === "KN" ? shape.toReversed() : shape,
      data_offsets: [begin, end],
    };
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(text.length), true);
  using file = await Deno.open(path, { write: true });
  const writer = file.writable.getWriter();
  await writer.write(length);
  await writer.write(text);
  const page = bytesOf(randomNumbers(1 << 18, 10));
  for (let at = 0; at < end; at += page.length) {
    await writer.write(page.subarray(0, Math.min(page.length, end - at)));
  }
  await writer.close();
  return 8 + text.length + end;
}

const FIGURES: Readonly<Record<string, () => void | Promise<void>>> = {
  matvec,
  decode,
  memory,
  open,
  torch: torchFigure,
  hub: hubFigure,
};

if (import.meta.main) {
  for (const name of Deno.args.length ? Deno.args : Object.keys(FIGURES)) {
    if (!Object.hasOwn(FIGURES, name)) {
      console.error(`Cannot measure "${name}": expected ${Object.keys(FIGURES).join(", ")}`);
      Deno.exit(2);
    }
    await FIGURES[name]();
  }
}
