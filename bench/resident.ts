/**
 * A process whose resident memory `figures.ts` compares: `idle` has imported the library, `gpt2` has run GPT-2's shape as well.
 *
 * @module
 */
import { loadModel } from "../mod.ts";

/** What one process took, in bytes. */
export interface Resident {
  rss: number;
  /** The most that it ever was; 0 where the system does not tell. */
  peak: number;
  weights: number;
  kvCache: number;
  activations: number;
}

/** Tokens of the cache, few enough that all of it is written: pages that nothing touched are not resident. */
const CONTEXT = 128;

async function main(which: string): Promise<Resident> {
  const tracked = { weights: 0, kvCache: 0, activations: 0 };
  if (which === "idle") return { ...await resident(), ...tracked };
  const { GPT2 } = await import("./decode.ts");
  await using model = await loadModel({ config: GPT2 }, {
    device: "js",
    dtype: "F32",
    contextLength: CONTEXT,
  });
  const prompt = Array.from({ length: CONTEXT - 16 }, (_, i) => i);
  const tokens = model.generate(prompt, { maxNewTokens: 16, ignoreEos: true, seed: 1 });
  for await (const _ of tokens);
  const { classes } = model.memory;
  for (const kind of ["weights", "kvCache", "activations"] as const) {
    tracked[kind] = classes[kind].current;
  }
  return { ...await resident(), ...tracked };
}

async function resident(): Promise<{ rss: number; peak: number }> {
  const { rss } = Deno.memoryUsage();
  try {
    const status = await Deno.readTextFile("/proc/self/status");
    return { rss, peak: 1024 * Number(/^VmHWM:\s*(\d+) kB$/m.exec(status)?.[1] ?? 0) };
  } catch {
    return { rss, peak: 0 };
  }
}

if (import.meta.main) console.log(JSON.stringify(await main(Deno.args[0])));
