/**
 * Random prompts: ids drawn from a seed, the same on every machine.
 *
 * @module
 */
import { threefry } from "../../kernels/ops/sample/mod.ts";

/** A prompt of `count` ids below `vocabSize`, the same for a seed on every machine. */
export function drawPrompt(count: number, vocabSize: number, seed: number): number[] {
  const [low, high] = [seed >>> 0, Math.floor(seed / 2 ** 32)];
  return Array.from(
    { length: count },
    // Sampling never uses this counter word, so the prompt and the draws after it are independent.
    (_, i) => threefry(low, high, i, 0xffffffff) % vocabSize,
  );
}
