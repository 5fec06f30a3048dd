/**
 * Combinations of a sweep: the product of the models and the listed values of flags.
 *
 *     models × device × dtype × kv-dtype × threads × context     each a loaded model
 *            × prompt-tokens × gen-tokens              share it
 *
 * A backend without threads has one combination for all of `--threads`. Names of one backend, such
 * as `cpu` and `wasm`, count once.
 *
 * @module
 */
import type { BackendName, Config } from "../mod.ts";
import { dtypeOf, type WeightDtype } from "../kernels/formats/mod.ts";
import { resolveDevice } from "../kernels/mod.ts";
import { DEFAULTS } from "../engine/defaults.ts";
import type { SweepGroup } from "../engine/measure/sweep.ts";
import {
  type Given,
  LISTED,
  type ListedName,
  type Lists,
  MOST_COMBINATIONS,
  UsageError,
} from "./flags.ts";
import type { Invocation } from "./parse.ts";
import { chooseDevice, chooseModel, type Chosen } from "./session.ts";
import { runtime } from "../engine/host/runtime.ts";

/** One combination. */
export interface Combination {
  readonly chosen: Chosen;
  /** Flags with the combination's values; the device is a backend, if it is there. */
  readonly given: Given;
  /** Values that differ between combinations, for people. */
  readonly label: string;
  /** Why it cannot run, if that is known already. */
  readonly error?: unknown;
}

/** A model, or why it cannot be opened. */
interface Subject {
  readonly chosen: Chosen;
  readonly error?: unknown;
}

/** A backend, or a device and why it is missing. */
interface Target {
  readonly device: NonNullable<Given["device"]>;
  readonly hasThreads: boolean;
  readonly error?: unknown;
}

/** Devices without threads to choose. */
const WITHOUT_THREADS: readonly string[] = ["webgpu", "cuda", "js"];

/**
 * The combinations that the arguments ask for, each once.
 * @throws {UsageError} If there are more than 200, and no `--yes`.
 */
export async function combinationsOf(
  invocation: Invocation,
  config: Config,
): Promise<Combination[]> {
  const { given, lists, words } = invocation;
  expectFew(invocation);
  const subjects = distinct(
    (words.length ? words : [undefined]).map((model) => chooseSubject(invocation, model, config)),
    ({ chosen }) => identityOf(chosen),
  );
  // A single value stays as it is: only a list needs to know which names are of one backend.
  const isSingle = subjects.length === 1 && !Object.keys(lists).length;
  if (isSingle) {
    const [{ chosen, error }] = subjects;
    if (error) throw error;
    return [{ chosen, given, label: chosen.id }];
  }
  const devices = await Promise.all(valuesOf("device", invocation).map(findTarget));
  const targets = distinct(devices, ({ device }) => device);
  const named = labelled(lists, subjects.length, targets.length);
  return subjects.flatMap((subject) =>
    targets.flatMap((target) =>
      product(invocation, target).map((values): Combination => {
        const combined = { ...given, ...values, device: target.device, strict: true };
        const { chosen } = subject;
        const error = subject.error ?? target.error;
        return { chosen, given: combined, label: named(chosen, combined), error };
      })
    )
  );
}

/** Combinations by the loaded model that they share. */
export function groupsOf(
  combinations: readonly Combination[],
  load: (
    combination: Combination,
    ...rest: Parameters<SweepGroup<Combination>["load"]>
  ) => ReturnType<SweepGroup<Combination>["load"]>,
): SweepGroup<Combination>[] {
  const groups = Map.groupBy(combinations, ({ chosen, given }) => {
    const { device, dtype, "kv-dtype": kvDtype, threads, context } = given;
    return JSON.stringify([identityOf(chosen), device, dtype, kvDtype, threads, context]);
  });
  return [...groups.values()].map((members) => ({
    members,
    load: (check) => load(members[0], check),
  }));
}

/** Counts before anything is opened: 10,000 combinations may be a typing error. */
function expectFew(invocation: Invocation): void {
  const { given, words } = invocation;
  const count = (name: ListedName) => valuesOf(name, invocation).length;
  const devices = valuesOf("device", invocation).map((device) =>
    WITHOUT_THREADS.includes(device ?? DEFAULTS.device) ? 1 : count("threads")
  );
  const loads = new Set(words).size || 1;
  const total = devices.reduce((a, b) => a + b) * loads * count("dtype") * count("kv-dtype") *
    count("context") *
    count("prompt-tokens") * count("gen-tokens");
  if (total <= MOST_COMBINATIONS || given.yes) return;
  throw new UsageError(
    `a sweep of ${total} combinations needs --yes; without it, at most ${MOST_COMBINATIONS} run`,
  );
}

/** The values of a flag: its list, or its only one, or undefined for the default. */
function valuesOf<K extends ListedName>(
  name: K,
  { given, lists }: Pick<Invocation, "given" | "lists">,
): readonly Given[K][] {
  return lists[name] as readonly Given[K][] | undefined ?? [given[name]];
}

/** Every combination of the listed values but model and device. */
function product(invocation: Invocation, { hasThreads }: Target): Given[] {
  const names = LISTED.filter((name) => name !== "device");
  return names.reduce<Given[]>((combined, name) => {
    const listed = name === "threads" && !hasThreads ? [undefined] : valuesOf(name, invocation);
    // The list may have the dtype under another name, as Q8 and Q8_0.
    const values = name === "dtype"
      ? distinct(listed, (value) => dtypeOf(value as WeightDtype ?? DEFAULTS.dtype))
      : listed;
    return combined.flatMap((given) => values.map((value) => ({ ...given, [name]: value })));
  }, [{}]);
}

function chooseSubject(invocation: Invocation, model: string | undefined, config: Config): Subject {
  try {
    return { chosen: chooseModel({ ...invocation, model }, config) };
  } catch (error) {
    if (error instanceof UsageError || model === undefined) throw error;
    return { chosen: { source: model, id: model, origin: "local" }, error };
  }
}

/** Two spellings of one path are one model. */
function identityOf({ source }: Chosen): string {
  if (typeof source !== "string") return JSON.stringify(source);
  try {
    return runtime.realPathSync(source);
  } catch { // a repository, or missing
    return source;
  }
}

async function findTarget(device: Given["device"] = DEFAULTS.device): Promise<Target> {
  try {
    const name: BackendName = await resolveDevice(await chooseDevice({ device, strict: true }));
    return { device: name, hasThreads: !WITHOUT_THREADS.includes(name) };
  } catch (error) {
    return { device, hasThreads: false, error };
  }
}

function distinct<T>(items: readonly T[], keyOf: (item: T) => string): T[] {
  return [...Map.groupBy(items, keyOf).values()].map(([first]) => first);
}

/** Names of the values that differ: "wasm, 2 threads, prompt 32". */
function labelled(
  lists: Lists,
  models: number,
  targets: number,
): (chosen: Chosen, given: Given) => string {
  return ({ id }, given) => {
    const parts = [
      models > 1 && id,
      targets > 1 && given.device,
      lists.dtype && given.dtype,
      lists["kv-dtype"] && `KV ${given["kv-dtype"]}`,
      lists.threads && given.threads !== undefined &&
      `${given.threads} thread${given.threads === 1 ? "" : "s"}`,
      lists.context && `context ${given.context}`,
      lists["prompt-tokens"] && `prompt ${given["prompt-tokens"]}`,
      lists["gen-tokens"] && `${given["gen-tokens"]} tokens`,
    ];
    return parts.filter(Boolean).join(", ") || id;
  };
}
