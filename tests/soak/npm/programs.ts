/**
 * Programs of a user of the npm package, as texts: Deno has no package of its name.
 *
 * @module
 */

/** Prints the results of `results.js`, and ends by itself. */
export const MAIN = `
import * as library from "wgslm";
import * as kernels from "wgslm/kernels";
import { results } from "./results.js";

const paths = JSON.parse(process.argv[2]);
console.log(JSON.stringify(await results(library, kernels, paths)));
`;

/** What `tsc` checks; nothing runs it. */
export const TYPED = `
import { benchmark, DeviceError, loadModel, loadTokenizer, type Model, toMarkdown } from "wgslm";
import { type Backend, type ComputeHost, openBackend } from "wgslm/kernels";

const model: Model = await loadModel("folder", { device: "auto", dtype: "Q8_0", threads: 2 });
const signal = AbortSignal.timeout(1000);
for await (const { id, text } of model.generate("ROMEO:", { maxNewTokens: 3, signal })) {
  const pair: [number | undefined, string] = [id, text];
  void pair;
}
const logits: Float32Array = await model.logits([1, 2]);
const row: string = toMarkdown(await benchmark(model, { iters: 1 }));
await model[Symbol.asyncDispose]();
await using backend: Backend = await openBackend("cpu");
const host: Partial<ComputeHost> = { cores: 2 };
void [logits, row, backend, host, DeviceError, loadTokenizer];
// @ts-expect-error -- there is no such device
await loadModel("folder", { device: "cuda9" });
// @ts-expect-error -- there is no such export
void (await import("wgslm")).loadModels;
`;
