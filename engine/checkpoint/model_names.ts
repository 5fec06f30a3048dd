/**
 * Names of a model's tensors, without what trainers put around the model: wrappers of modules, and
 * attributes of the object that holds it.
 *
 *     file                                             model
 *     module._orig_mod.transformer.h.0.ln_1.weight     transformer.h.0.ln_1.weight   wrappers
 *     net.transformer.h.0.ln_1.weight                  transformer.h.0.ln_1.weight   attribute
 *     val_acc.total                                                                  no part of it
 *
 * @module
 */

/** Name components that wrappers add: torch.compile, FSDP, Fabric, activation checkpoints. */
const WRAPPERS = new Set([
  "_orig_mod",
  "_fsdp_wrapped_module",
  "_fpw_module",
  "_forward_module",
  "_module",
  "_checkpoint_wrapped_module",
]);

/** What a GPT's names begin with, in GPT-2's form and in the others'. */
const GPT2 = "(transformer\\.)?";
const LLAMA = "(model\\.|(model\\.)?decoder\\.|gpt_neox\\.|language_model\\.model\\.|" +
  "model\\.language_model\\.)?";
const EMBEDDING = new RegExp(`^(${GPT2}wte|${LLAMA}(embed_tokens|embed_in))\\.`);
const LAYER = new RegExp(`^(${GPT2}h|${LLAMA}layers)\\.\\d+\\.`);

/** A head outside the attribute that holds embedding and layers. */
const HEAD = /^(lm_head|embed_out)\./;

/** Attributes and keys of a mean of the weights, or of another model to learn from. */
const OTHER_MODEL =
  /(^|[._])(ema|swa|avg|averaged?|shadow|teacher|target|reference|ref|old)([._]|$)/;

/** Limits of the search for a prefix: its attributes, and the prefixes that are compared. */
const MAX_ATTRIBUTES = 6;
const MAX_PREFIXES = 8;

/** The names of the model's tensors. */
export interface ModelNames {
  /** Names in the model by names in the file. */
  readonly names: ReadonlyMap<string, string>;
  /** A sentence on tensors that are left out. */
  readonly notes: readonly string[];
}

/**
 * Finds the model among a file's tensors.
 * @param names the names in the file.
 * @param holder who saved them: "lightning", whose other tensors are metrics and losses;
 *   "state_dict", a dict of that name; otherwise absent.
 */
export function modelNames(
  names: readonly string[],
  holder?: "lightning" | "state_dict",
): ModelNames {
  const plain = names.map((name) => [name, withoutWrappers(name)] as const);
  const prefix = modelPrefix(plain.map(([, name]) => name)) ??
    holderPrefix(plain.map(([, name]) => name), holder);
  const found = new Map<string, string>();
  const others: string[] = [];
  for (const [file, name] of plain) {
    if (name.startsWith(prefix)) found.set(file, withoutWrappers(name.slice(prefix.length)));
    else if (HEAD.test(name)) found.set(file, name);
    else others.push(name);
  }
  const owner = JSON.stringify(prefix.slice(0, -1));
  const notes = others.length ? [leftOut(others, `are not part of the model, ${owner}`)] : [];
  return { names: found, notes };
}

/**
 * The attributes in front of a GPT's names, with a dot behind; undefined if there is no GPT. Of
 * several GPTs, the one that is no mean and no teacher, called `model`, with the most tensors.
 */
export function modelPrefix(names: readonly string[]): string | undefined {
  if (names.some((name) => EMBEDDING.test(name) || LAYER.test(name))) return "";
  const prefixes = new Set<string>();
  for (const name of names) {
    const parts = name.split(".", MAX_ATTRIBUTES + 1);
    for (let at = 0, count = 0; count < parts.length; at += parts[count].length + 1, count++) {
      if (!EMBEDDING.test(name.slice(at))) continue;
      prefixes.add(name.slice(0, at));
      break;
    }
  }
  const rank = (prefix: string) =>
    (isOtherModel(prefix) ? 0 : 2) + Number(/^(.*\.)?model\.(module\.)?$/.test(prefix));
  const sizeOf = (prefix: string) => names.filter((name) => name.startsWith(prefix)).length;
  // Few models have more than two embeddings; a longer list is of a file made to be slow.
  return [...prefixes].slice(0, MAX_PREFIXES)
    .toSorted((a, b) => rank(b) - rank(a) || sizeOf(b) - sizeOf(a))[0];
}

/** Whether a key or an attribute names a mean of the weights, or a teacher. */
export function isOtherModel(name: string): boolean {
  return OTHER_MODEL.test(name);
}

/** The attribute of a model that is no GPT by its names, such as a test's. */
function holderPrefix(names: readonly string[], holder?: "lightning" | "state_dict"): string {
  if (!holder) return "";
  const counts = new Map<string, number>();
  for (const name of names) {
    const [attribute] = name.split(".", 1);
    if (name.length > attribute.length) counts.set(attribute, (counts.get(attribute) ?? 0) + 1);
  }
  const [attribute, count] = [...counts].toSorted(([, a], [, b]) => b - a)[0] ?? ["", 0];
  const isWhole = count === names.length && attribute === "model";
  return isWhole || (holder === "lightning" && attribute) ? `${attribute}.` : "";
}

/** A note on tensors that are left out: at most three of them. */
function leftOut(names: readonly string[], why: string): string {
  const more = names.length > 3 ? ` and ${names.length - 3} more` : "";
  const few = names.slice(0, 3).map((name) => JSON.stringify(name.slice(0, 80)));
  return `left out tensors that ${why}: ${few.join(", ")}${more}`;
}

/** A tensor's name without wrappers, and without DataParallel's leading "module". */
function withoutWrappers(name: string): string {
  const parts = name.split(".").filter((part) => !WRAPPERS.has(part));
  let first = 0;
  while (parts[first] === "module" && first < parts.length - 1) first++;
  return parts.slice(first).join(".");
}
