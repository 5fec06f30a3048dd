/**
 * Zip archives of torch.save: one folder with a pickle and the bytes of the storages.
 *
 *     model.pt (zip)
 *     ├─ archive/data.pkl    pickle: {"model": {"wte.weight": tensor(storage "0", [V, C]), …}, …}
 *     ├─ archive/data/0      bytes of storage "0", shared by all tensors that view it
 *     ├─ archive/data/1      …
 *     ├─ archive/byteorder   "little" or "big"; little if absent
 *     └─ archive/version     a number
 *
 * @module
 */
import { CheckpointError } from "../../errors.ts";
import type { ByteSource } from "../../host/mod.ts";
import { isZip, readMember, readZip, type ZipMember } from "./zip.ts";

/** Throws `Cannot open "<file>": expected <expected>`. */
export type Fail = (expected: string) => never;

/** Largest data.pkl that is read, in bytes; a tensor takes about 100. */
const MAX_PICKLE_BYTES = 2 ** 28;

/** Newest archive version that PyTorch reads. */
const MAX_VERSION = 10;

/** An open archive. */
export interface Archive {
  readonly members: ReadonlyMap<string, ZipMember>;
  /** Prefix of every member's name, such as "archive/". */
  readonly root: string;
  readonly pickle: ZipMember;
  readonly bigEndian: boolean;
}

/**
 * Opens an archive and reads its directory.
 * @throws {CheckpointError} If it is damaged, in another format, or of a newer version.
 */
export async function openArchive(source: ByteSource, fail: Fail): Promise<Archive> {
  const head = new Uint8Array(Math.min(source.size, 512));
  await source.read(0, head);
  if (!isZip(head)) return refuseOther(source.name, head, fail);
  const members = await readZip(source);
  const pickles = [...members.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (pickles.length !== 1) {
    return fail(`one data.pkl, as torch.save writes it, got ${pickles.length}`);
  }
  const root = pickles[0].slice(0, -"data.pkl".length);
  if ([...members.keys()].some((name) => /^[^/]+\/(constants\.pkl$|code\/)/.test(name))) {
    throw new CheckpointError(
      `Cannot open "${source.name}": expected tensors, got a TorchScript archive, ` +
        "which holds a program; save the state dict: torch.save(model.state_dict(), path)",
    );
  }
  const pickle = members.get(pickles[0])!;
  if (pickle.size > MAX_PICKLE_BYTES) {
    fail(`a data.pkl of at most ${MAX_PICKLE_BYTES} bytes, got ${pickle.size}`);
  }
  /** The text of a member that holds one word. */
  const word = async (name: string): Promise<string | undefined> => {
    const member = members.get(root + name);
    if (!member) return undefined;
    if (member.size > 16) return fail(`a word in ${name}, got ${member.size} bytes`);
    return new TextDecoder().decode(await readMember(source, member)).trim();
  };
  const order = await word("byteorder") ?? "little";
  if (order !== "little" && order !== "big") fail(`a byteorder of little or big, got "${order}"`);
  const version = await word("version") ?? "3";
  if (!/^\d+$/.test(version) || Number(version) > MAX_VERSION) {
    fail(`an archive version of at most ${MAX_VERSION}, got "${version}"`);
  }
  return { members, root, pickle, bigEndian: order === "big" };
}

/** Refuses a file that is no zip archive, and names its format if it is known. */
function refuseOther(name: string, head: Uint8Array, fail: Fail): never {
  const text = Array.from(head, (byte) => String.fromCharCode(byte)).join("");
  // PyTorch's magic number as a pickled integer: the start of a file in the old format.
  const old = text.slice(0, 32).includes("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19");
  if (old || text.slice(257, 262) === "ustar") {
    throw new CheckpointError(
      `Cannot open "${name}": expected a zip archive, got the format of PyTorch before 1.6; ` +
        "save it again with a newer one: torch.save(torch.load(path), path)",
    );
  }
  return fail("a checkpoint that torch.save wrote (a zip archive), got another kind of file");
}
