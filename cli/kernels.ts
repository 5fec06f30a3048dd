/**
 * `kernels`: generated WGSL and WebAssembly of a model's passes, as a list or as files.
 *
 * @module
 */
import { type KernelText, type Model, VERSION } from "../mod.ts";
import { bytes, plural, table } from "./format.ts";
import { prepareOutput } from "./output.ts";
import type { Invocation } from "./parse.ts";
import { Progress } from "./progress.ts";
import { chooseModel, openModel, readSettings } from "./session.ts";
import { clearStatus, oneLine, print, say, styled } from "./terminal.ts";

/** Runs the command. */
export async function kernels(invocation: Invocation, signal: AbortSignal): Promise<void> {
  const { given } = invocation;
  const config = await readSettings(given);
  const chosen = chooseModel(invocation, config);
  using progress = new Progress();
  await using model = await openModel(chosen, given, config, progress, signal);
  await model.logits([0]); // records the pass that loading skips
  signal.throwIfAborted();
  clearStatus();
  const kernels = pick(textsOf(model), given.op);
  if (given.dump !== undefined) dump(kernels, model, given.dump);
  const { name, description } = model.backend;
  const title = oneLine(`${chosen.id}: ${name} on ${description}`);
  print(`${styled("bold", title)}\n${list(kernels)}`);
}

function textsOf({ backend }: Model): readonly KernelText[] {
  const texts = backend.shaders?.();
  if (texts) return texts;
  throw new Error(
    `Cannot show kernels of "${backend.name}": expected a backend that generates code; ` +
      "choose --device wasm or webgpu",
  );
}

function pick(kernels: readonly KernelText[], op?: string): readonly KernelText[] {
  const picked = kernels.filter((kernel) => op === undefined || kernel.op === op);
  if (picked.length) return picked;
  const known = [...new Set(kernels.map((kernel) => kernel.op))].join(", ");
  throw new Error(`Cannot show "${op}": expected an operation that this model has: ${known}`);
}

/** One row per kind of kernel. */
function list(kernels: readonly KernelText[]): string {
  const kinds = Map.groupBy(kernels, ({ name }) => name);
  const rows = [...kinds].map(([name, same]) => {
    const sum = (key: "calls" | "bytes") => same.reduce((total, kernel) => total + kernel[key], 0);
    return [name, same[0].language, `${same.length}`, `${sum("calls")}`, bytes(sum("bytes"))];
  });
  return table([["kernel", "code", "variants", "calls", "size"], ...rows], [2, 3, 4]);
}

/**
 * Writes each kernel to its own file: `matmul-1.wgsl`, `matmul-1.wat`. Comments at its head give
 * the operation, its operands, and a shader's workgroup and bindings.
 */
function dump(kernels: readonly KernelText[], { backend }: Model, folder: string): void {
  const numbers = new Map<string, number>();
  for (const kernel of kernels) {
    const { op, name, language, calls, operands, text } = kernel;
    const number = (numbers.get(op) ?? 0) + 1;
    numbers.set(op, number);
    const comment = language === "wgsl" ? "//" : ";;";
    const head = [
      `${name}: ${plural(calls, "call")}, ${backend.name}, wgslm ${VERSION}`,
      ...operands.map((operand) => `operand ${operand}`),
      ...language === "wgsl" ? interfaceOf(text) : [],
    ].map((line) => `${comment} ${line}\n`).join("");
    prepareOutput(`${folder}/${op}-${number}.${language}`).write(head + text);
  }
  say(`wrote ${plural(kernels.length, "file")} to ${folder}`);
}

/** Workgroup size and bindings of a shader, one line each. */
function interfaceOf(wgsl: string): string[] {
  const lanes = /@workgroup_size\((\d+)\)/.exec(wgsl)?.[1];
  const bindings = wgsl.matchAll(/@group\((\d)\) @binding\((\d+)\) var<([^>]+)> (\w+): ([^;]+);/g);
  return [
    `workgroup of ${lanes} lanes`,
    ...Array.from(
      bindings,
      ([, group, binding, space, name, type]) =>
        `group ${group}, binding ${binding}: ${name}, ${type}, ${space}`,
    ),
  ];
}
