/**
 * `perplexity`: perplexity of a text, and the divergence from another model, dtype or device.
 *
 * @module
 */
import { type Model, type Perplexity, perplexity as score } from "../mod.ts";
import { type Given, UsageError } from "./flags.ts";
import { plural, table } from "./format.ts";
import { prepareOutput } from "./output.ts";
import type { Invocation } from "./parse.ts";
import { Progress } from "./progress.ts";
import { chooseModel, type Chosen, openModel } from "./session.ts";
import { readInput } from "./stdin.ts";
import { clearStatus, note, oneLine, print, say, styled } from "./terminal.ts";
import { runtime } from "../engine/host/runtime.ts";

/** Runs the command. */
export async function perplexity(invocation: Invocation, signal: AbortSignal): Promise<void> {
  const { given, words } = invocation;
  const path = words.at(-1);
  if (path === undefined) {
    throw new UsageError("perplexity needs a text: name a file, or - for standard input");
  }
  const json = given["json-out"] === undefined ? undefined : prepareOutput(given["json-out"]);
  const chosen = chooseModel({ ...invocation, model: words.length > 1 ? words[0] : undefined });
  const other = chooseReference(invocation, chosen);
  const text = await readText(path, signal);
  using progress = new Progress();
  const open = async (model: Chosen, given: Given) => {
    const opened = await openModel(
      model,
      given,
      { generation: {}, warnings: [] },
      progress,
      signal,
    );
    opened.notes.forEach(note);
    return opened;
  };
  await using model = await open(chosen, given);
  await using reference = other && await open(other.chosen, other.given);
  const result = await score(model, text, {
    ...given.context !== undefined && { context: given.context },
    ...given.stride !== undefined && { stride: given.stride },
    ...reference && { reference },
    onProgress: progress.score,
    signal,
  });
  clearStatus();
  const title = nameOf(chosen, model);
  const against = reference && nameOf(other!.chosen, reference);
  try {
    json?.write(
      `${JSON.stringify({ model: title, against: against ?? null, ...result }, null, 2)}\n`,
    );
    if (json) say(`wrote ${json.path}`);
  } finally {
    print(asText(title, result, against));
  }
}

/** The reference: another model, or the same one in another dtype or on another device. */
function chooseReference(
  invocation: Invocation,
  chosen: Chosen,
): { chosen: Chosen; given: Given } | undefined {
  const { given } = invocation;
  const { against, "against-dtype": dtype, "against-device": device } = given;
  if (against === undefined && dtype === undefined && device === undefined) return undefined;
  return {
    chosen: against === undefined
      ? chosen
      : chooseModel({ ...invocation, model: against, given: { offline: given.offline } }),
    given: {
      ...given,
      // A reference keeps its weights as stored, unless a flag says otherwise; its cache is F32.
      dtype,
      "kv-dtype": undefined,
      device: device ?? given.device,
      ...against !== undefined && { lora: undefined, meta: undefined, tokenizer: undefined },
    },
  };
}

/** @throws {Error} If the text cannot be read, is empty or is not UTF-8. */
async function readText(path: string, signal: AbortSignal): Promise<string> {
  const text = path === "-" ? await readInput(signal) : decode(path, await readBytes(path));
  if (text) return text;
  throw new Error(`Cannot score "${path}": expected a text, got an empty file`);
}

async function readBytes(path: string): Promise<Uint8Array> {
  try {
    return await runtime.readFile(path);
  } catch (error) {
    const reason = error instanceof runtime.errors.NotFound
      ? "there is no such file"
      : error instanceof runtime.errors.IsADirectory
      ? "expected a file, got a folder"
      : (error as Error).message;
    throw new Error(`Cannot read "${path}": ${reason}`);
  }
}

function decode(path: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Error(`Cannot read "${path}": expected UTF-8, got other bytes`);
  }
}

function nameOf({ id }: Chosen, { backend, dtype }: Model): string {
  return oneLine(`${id}, ${dtype} on ${backend.name}`);
}

function asText(title: string, result: Perplexity, against?: string): string {
  const { tokens, context, stride, nll, perplexity, kl, sameTop } = result;
  const rows = [
    ["scored", `${plural(tokens, "token")}, windows of ${context}, stride ${stride}`],
    ["negative log-likelihood", `${nll.toFixed(5)} per token`],
    ["perplexity", perplexity.toFixed(4)],
  ];
  if (against !== undefined) {
    rows.push(
      ["against", against],
      ["KL divergence", `${kl!.toExponential(3)} per token`],
      ["same top token", `${(100 * sameTop!).toFixed(2)} %`],
    );
  }
  return `${styled("bold", title)}\n${table(rows)}`;
}
