/**
 * Reader of GGUF files, versions 2 and 3, in either byte order
 * (https://github.com/ggml-org/ggml, docs/gguf.md). It reads the header; tensors are read on
 * demand.
 *
 *     "GGUF"  version:u32  tensors:u64  pairs:u64        metadata.ts draws a pair
 *     pair × pairs
 *     entry × tensors   name:string  n:u32  extent:u64 × n  type:u32  offset:u64
 *     padding           to a multiple of general.alignment (default 32)
 *     data              offsets count from here, each a multiple of the alignment
 *
 * Extents are innermost first in the file; here they are outermost first. A model may be split into
 * files `NAME-00001-of-0000N.gguf`, of which the first has the metadata. Every number is checked
 * before it decides the size of an allocation.
 *
 * @module
 */
import { STORED_FORMATS } from "../../../kernels/formats/stored.ts";
import { CheckpointError } from "../../errors.ts";
import { exists, folderOf } from "../../host/files.ts";
import type { ByteSource } from "../../host/mod.ts";
import type { StoredTensor } from "../safetensors.ts";
import { HeaderReader, type Metadata, readPairs } from "./metadata.ts";
import { ggufPart, partPath } from "./parts.ts";
import { inLittleEndian } from "./swap.ts";
import { type GgufType, TYPES } from "./types.ts";

/** Contents of a GGUF file, or of all parts of a split one. */
export interface GgufContents {
  /** By name, in the order of their bytes. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly metadata: Metadata;
}

/** Most extents of a tensor (GGML_MAX_DIMS). */
const MAX_EXTENTS = 4;

/** Smallest entry of a tensor, and smallest pair, in bytes. */
const [MIN_ENTRY, MIN_PAIR] = [24, 13];

/**
 * Opens a GGUF file; of a split model, all parts.
 * @param path the file, or any part.
 * @param open opens a part.
 * @throws {CheckpointError} If a file breaks a rule of the format, or a part is missing.
 */
export async function openGguf(
  path: string,
  open: (path: string) => Promise<ByteSource>,
): Promise<GgufContents> {
  const given = await readGguf(await open(path));
  const parts = splitCount(given.metadata, path);
  if (parts === 1) return given;
  const paths = await partPaths(path, parts);
  const contents: GgufContents[] = [];
  for (const part of paths) {
    contents.push(part === path ? given : await readGguf(await open(part)));
  }
  return joinParts(paths, contents);
}

/**
 * Reads the headers of a GGUF's parts, in their order.
 * @throws {CheckpointError} As `openGguf`.
 */
export async function readGgufParts(parts: readonly ByteSource[]): Promise<GgufContents> {
  const contents: GgufContents[] = [];
  for (const part of parts) contents.push(await readGguf(part));
  const [{ name }] = parts;
  const count = splitCount(contents[0].metadata, name);
  if (count === 1 && parts.length === 1) return contents[0];
  return joinParts(parts.map(({ name }) => name), contents);
}

/** Number of parts that a file's metadata names. */
function splitCount(metadata: Metadata, path: string): number {
  const count = metadata["split.count"] ?? 1;
  if (Number.isInteger(count) && count as number >= 0 && count as number < 100_000) {
    return Math.max(count as number, 1);
  }
  throw new CheckpointError(
    `Cannot open "${path}": expected split.count to be a number of parts, got ${count}`,
  );
}

/** The paths of all parts, by the name of one. */
async function partPaths(path: string, count: number): Promise<string[]> {
  if (ggufPart(path)?.count !== count) {
    throw new CheckpointError(
      `Cannot open "${path}": expected one of ${count} parts to be named ` +
        `NAME-00001-of-${String(count).padStart(5, "0")}.gguf; rename the parts`,
    );
  }
  const [folder, missing]: [string, string[]] = [folderOf(path), []];
  const paths: string[] = [];
  for (let part = 1; part <= count; part++) {
    const other = partPath(path, part);
    paths.push(other);
    if (!await exists(other)) missing.push(other.slice(folder === "." ? 0 : folder.length));
  }
  if (!missing.length) return paths;
  throw new CheckpointError(
    `Cannot open "${path}": ${missing.length} of its ${count} parts are missing: ${
      missing.slice(0, 4).join(", ")
    }${missing.length > 4 ? " and more" : ""}`,
  );
}

/** Merges the parts of a model, and checks that each is the part that its name says. */
function joinParts(paths: readonly string[], parts: readonly GgufContents[]): GgufContents {
  const fail = (path: string, expected: string): never => {
    throw new CheckpointError(`Cannot open "${path}": expected ${expected}`);
  };
  const tensors = new Map<string, StoredTensor>();
  for (const [i, part] of parts.entries()) {
    const { "split.no": no, "split.count": count } = part.metadata;
    if (no !== i || count !== parts.length) {
      fail(
        paths[i],
        `part ${i} of ${parts.length} by its split.no and split.count, got ${no} of ${count}`,
      );
    }
    for (const [name, tensor] of part.tensors) {
      if (tensors.has(name)) fail(paths[i], `every tensor in one part, got "${name}" in two`);
      tensors.set(name, tensor);
    }
  }
  const [{ metadata }] = parts;
  const total = metadata["split.tensors.count"];
  if (total !== undefined && total !== tensors.size) {
    fail(paths[0], `${total} tensors in all parts, got ${tensors.size}`);
  }
  return { tensors, metadata };
}

/**
 * Reads and checks the header of one file.
 * @throws {CheckpointError} If it breaks a rule of the format; names the tensor or key.
 */
export async function readGguf(source: ByteSource): Promise<GgufContents> {
  const header = new HeaderReader(source);
  const counts = await header.parse(() => {
    expectVersion(header);
    return { tensors: header.count("tensors", MIN_ENTRY), pairs: header.count("keys", MIN_PAIR) };
  });
  const metadata = await readPairs(header, counts.pairs);
  const entries: Entry[] = [];
  for (let i = 0; i < counts.tensors; i++) {
    entries.push(await header.parse(() => readEntry(header)));
  }
  const alignment = alignmentOf(header, metadata);
  const dataStart = Math.ceil(header.at / alignment) * alignment;
  const tensors = entries.map((entry) => placed(header, entry, dataStart, alignment));
  return { tensors: checkPlaces(header, tensors), metadata };
}

/** Reads the signature and the version, which shows the byte order. */
function expectVersion(header: HeaderReader): void {
  const { source, at: begin } = header;
  if (source.size < 24) header.fail(`at least 24 bytes of GGUF, got ${source.size}`);
  const signature = new TextDecoder("latin1").decode(header.bytes(4, "the signature"));
  if (begin === 0 && signature !== "GGUF") {
    header.fail(`a file that begins with "GGUF", got ${JSON.stringify(signature)}`);
  }
  const bytes = header.bytes(4, "the version");
  // A version below 65536 in the other byte order has two zero bytes first.
  header.isLittle = bytes[0] !== 0 || bytes[1] !== 0;
  const version = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, header.isLittle);
  if (version !== 2 && version !== 3) header.fail(`GGUF of version 2 or 3, got ${version}`);
}

/** A tensor in the header. */
interface Entry {
  readonly name: string;
  /** Outermost first. */
  readonly shape: readonly number[];
  readonly type: GgufType;
  /** From the start of the data. */
  readonly offset: number;
  readonly byteLength: number;
}

function readEntry(header: HeaderReader): Entry {
  const name = header.text("a tensor's name");
  const of = `tensor "${name}"`;
  const extents = header.u32(`the extents of ${of}`);
  if (extents > MAX_EXTENTS) {
    header.fail(`${of} to have at most ${MAX_EXTENTS} extents, got ${extents}`);
  }
  const shape = Array.from({ length: extents }, () => header.u64(`the shape of ${of}`)).reverse();
  const number = header.u32(`the type of ${of}`);
  const type = TYPES[number];
  if (!type) {
    return header.fail(`${of} to have a type that this version knows, got type ${number}`);
  }
  const offset = header.u64(`the offset of ${of}`);
  const { block, bytes } = STORED_FORMATS[type.name];
  const row = shape.at(-1) ?? 1;
  if (row % block) {
    header.fail(`${of} ${type.name} to have rows of a multiple of ${block} numbers, got ${row}`);
  }
  // The product is a float: a huge shape loses precision, but cannot wrap around.
  const byteLength = shape.reduce((n, extent) => n * extent, 1) / block * bytes;
  return { name, shape, type, offset, byteLength };
}

function alignmentOf(header: HeaderReader, metadata: Metadata): number {
  const alignment = metadata["general.alignment"] ?? 32;
  if (typeof alignment === "number" && alignment > 0 && alignment <= 2 ** 30) {
    if (Number.isInteger(Math.log2(alignment))) return alignment;
  }
  return header.fail(`general.alignment to be a power of two, got ${alignment}`);
}

/** The tensor of an entry, within the file. */
function placed(
  header: HeaderReader,
  { name, shape, type, offset, byteLength }: Entry,
  dataStart: number,
  alignment: number,
): StoredTensor {
  const { source, isLittle } = header;
  if (offset % alignment) {
    header.fail(`tensor "${name}" at a multiple of ${alignment} bytes, got ${offset}`);
  }
  const begin = dataStart + offset;
  if (!(begin + byteLength <= source.size)) {
    header.fail(
      `tensor "${name}" ${type.name} [${shape}] of ${byteLength} bytes at byte ${begin} within ` +
        `the file's ${source.size} bytes`,
    );
  }
  const stored = { name, dtype: type.name, shape, source, offset: begin, byteLength };
  return isLittle ? stored : inLittleEndian(stored, type);
}

/** The tensors in the order of their bytes; names differ and bytes do not overlap. */
function checkPlaces(
  header: HeaderReader,
  unsorted: readonly StoredTensor[],
): Map<string, StoredTensor> {
  const tensors = new Map<string, StoredTensor>();
  let last: StoredTensor | undefined;
  for (const tensor of unsorted.toSorted((a, b) => a.offset - b.offset)) {
    const { name, offset } = tensor;
    if (tensors.has(name)) header.fail(`every tensor once, got "${name}" twice`);
    if (last && offset < last.offset + last.byteLength) {
      header.fail(`tensor "${name}" after the end of "${last.name}", got byte ${offset}`);
    }
    tensors.set(name, tensor);
    last = tensor;
  }
  return tensors;
}
