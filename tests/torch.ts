/**
 * Writer of valid and broken PyTorch checkpoints for tests: pickle and zip archive.
 *
 * @module
 */
import type { ByteSource } from "../engine/host/mod.ts";
import { crc32 } from "../engine/host/crc32.ts";
import { CheckpointError } from "../engine/errors.ts";

/** Raw pickle instructions, one character per byte: "\x80\x02". */
export class Raw {
  constructor(readonly text: string) {}
}

/** A Python tuple; arrays become lists. */
export class Tuple {
  readonly items: readonly unknown[];
  constructor(...items: unknown[]) {
    this.items = items;
  }
}

/** A Python name, by module and name. */
export function name(module: string, name: string): Raw {
  return new Raw(`c${module}\n${name}\n`);
}

/** A function call. */
export class Call {
  readonly args: Tuple;
  constructor(readonly callee: unknown, ...args: unknown[]) {
    this.args = new Tuple(...args);
  }
}

/** A value whose attributes are set. */
export class Built {
  constructor(readonly value: unknown, readonly state: unknown) {}
}

/** A reference to data outside the pickle. */
export class Persistent {
  constructor(readonly id: unknown) {}
}

/** A reference to a storage, as `torch.save` writes it. */
export function storage(key: string, type: string, count: unknown): Persistent {
  return new Persistent(new Tuple("storage", name("torch", type), key, "cpu", count));
}

/** A tensor as `torch.save` writes it. */
export function tensor(
  stored: unknown,
  shape: readonly unknown[],
  stride: readonly unknown[],
  offset: unknown = 0,
  ...more: unknown[]
): Call {
  const hooks = new Call(name("collections", "OrderedDict"));
  const rebuild = name("torch._utils", "_rebuild_tensor_v2");
  const [extents, steps] = [new Tuple(...shape), new Tuple(...stride)];
  return new Call(rebuild, stored, offset, extents, steps, false, hooks, ...more);
}

/** The pickle of a value, in protocol 2 without memo. */
export function pickleBytes(value: unknown): Uint8Array<ArrayBuffer> {
  return latin1(`\x80\x02${instructions(value)}.`);
}

function instructions(value: unknown): string {
  if (value === null) return "N";
  if (value === true) return "\x88";
  if (value === false) return "\x89";
  if (value instanceof Raw) return value.text;
  if (typeof value === "string") {
    const bytes = new TextEncoder().encode(value);
    return `X${little(bytes.length, 4)}${text(bytes)}`;
  }
  if (typeof value === "bigint") return `\x8a\x10${little(value, 16)}`;
  if (typeof value === "number") {
    if (Number.isInteger(value) && Math.abs(value) < 2 ** 31) return `J${little(value, 4)}`;
    if (Number.isSafeInteger(value)) return `\x8a\x08${little(value, 8)}`;
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setFloat64(0, value);
    return `G${text(bytes)}`;
  }
  if (Array.isArray(value)) return `](${value.map(instructions).join("")}e`;
  if (value instanceof Tuple) return `(${value.items.map(instructions).join("")}t`;
  if (value instanceof Map) return `}(${[...value].flat().map(instructions).join("")}u`;
  if (value instanceof Call) return `${instructions(value.callee)}${instructions(value.args)}R`;
  if (value instanceof Built) return `${instructions(value.value)}${instructions(value.state)}b`;
  if (value instanceof Persistent) return `${instructions(value.id)}Q`;
  if (typeof value === "object") return instructions(new Map(Object.entries(value)));
  throw new TypeError(`no pickle for ${typeof value}`);
}

/** Bytes as text, one character per byte. */
export function text(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}

/** Text of one character per byte, as bytes. */
export function latin1(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/** A little-endian integer as text, one character per byte. */
export function little(value: number | bigint, bytes: number): string {
  let rest = BigInt.asUintN(8 * bytes, BigInt(value));
  let out = "";
  for (let i = 0; i < bytes; i++, rest >>= 8n) out += String.fromCharCode(Number(rest & 255n));
  return out;
}

/** A member of an archive. Optional fields override the right values, to write broken files. */
export interface Member {
  readonly name: string;
  /** A number means that many zeros, which take no memory. */
  readonly data: Uint8Array | number;
  readonly crc32?: number;
  readonly method?: number;
  readonly flags?: number;
  /** Size and offset in the directory. */
  readonly size?: number;
  readonly header?: number;
  /** Name in the member's header. */
  readonly headerName?: string;
}

/** Options of an archive. */
export interface ZipOptions {
  /** Writes all numbers in zip64 records. */
  readonly zip64?: boolean;
  readonly comment?: string;
  /** Number of members, size and offset of the directory in the end record. */
  readonly end?: { readonly count?: number; readonly size?: number; readonly begin?: number };
}

/** A file of zeros, except for the pieces. */
export interface Pieces {
  readonly size: number;
  readonly pieces: readonly { readonly at: number; readonly bytes: Uint8Array }[];
}

/** An archive as PyTorch writes it: an extra field aligns each member's data to 64 bytes. */
export function zipPieces(members: readonly Member[], options: ZipOptions = {}): Pieces {
  const pieces: { at: number; bytes: Uint8Array }[] = [];
  let at = 0;
  const put = (bytes: Uint8Array) => {
    pieces.push({ at, bytes });
    at += bytes.length;
  };
  let directory = "";
  for (const { name, data, crc32: sum, method = 0, flags = 0x0800, ...overrides } of members) {
    const begin = at;
    const size = typeof data === "number" ? data : data.length;
    const headerName = text(new TextEncoder().encode(overrides.headerName ?? name));
    const padding = 64 - (begin + 30 + headerName.length + 4) % 64;
    const check = sum ?? (typeof data === "number" ? 0 : crc32(data));
    const common = `${little(0, 2)}${little(flags, 2)}${little(method, 2)}${little(0, 4)}`;
    put(latin1(
      `PK\x03\x04${common}${little(check, 4)}${little(size, 4)}${little(size, 4)}` +
        `${little(headerName.length, 2)}${little(4 + padding, 2)}${headerName}FB${
          little(padding, 2)
        }${"Z".repeat(padding)}`,
    ));
    if (typeof data === "number") at += data;
    else put(data);
    const [shownSize, offset] = [overrides.size ?? size, overrides.header ?? begin];
    const long = options.zip64 || Math.max(shownSize, offset) >= 2 ** 32 - 1;
    const extra = long
      ? `\x01\0${little(24, 2)}${[shownSize, shownSize, offset].map((n) => little(n, 8)).join("")}`
      : "";
    const short = (n: number) => little(long ? 2 ** 32 - 1 : n, 4);
    const central = text(new TextEncoder().encode(name));
    directory += `PK\x01\x02${little(0, 2)}${common}${little(check, 4)}${short(shownSize)}${
      short(shownSize)
    }${little(central.length, 2)}${little(extra.length, 2)}${little(0, 10)}${
      short(offset)
    }${central}${extra}`;
  }
  const begin = options.end?.begin ?? at;
  const size = options.end?.size ?? directory.length;
  const count = options.end?.count ?? members.length;
  put(latin1(directory));
  const long = options.zip64 || begin >= 2 ** 32 - 1;
  if (long) {
    const record = at;
    put(latin1(
      `PK\x06\x06${little(44, 8)}${little(0, 12)}${little(count, 8)}${little(count, 8)}${
        little(size, 8)
      }${little(begin, 8)}PK\x06\x07${little(0, 4)}${little(record, 8)}${little(1, 4)}`,
    ));
  }
  const comment = options.comment ?? "";
  put(latin1(
    `PK\x05\x06${little(0, 4)}${little(long ? 0xffff : count, 2)}${
      little(long ? 0xffff : count, 2)
    }${little(long ? 2 ** 32 - 1 : size, 4)}${little(long ? 2 ** 32 - 1 : begin, 4)}${
      little(comment.length, 2)
    }${comment}`,
  ));
  return { size: at, pieces };
}

/** The bytes of an archive. */
export function zipBytes(
  members: readonly Member[],
  options?: ZipOptions,
): Uint8Array<ArrayBuffer> {
  const { size, pieces } = zipPieces(members, options);
  const bytes = new Uint8Array(size);
  for (const piece of pieces) bytes.set(piece.bytes, piece.at);
  return bytes;
}

/** Options of a checkpoint. */
export interface TorchOptions extends ZipOptions {
  /** Bytes of the storages by key; a number means that many zeros. */
  readonly storages?: Readonly<Record<string, Uint8Array | number>>;
  readonly byteorder?: string;
  readonly version?: string;
  /** Folder in the archive. */
  readonly root?: string;
  /** Further members. */
  readonly members?: readonly Member[];
}

/** The members of a checkpoint. `value` is pickled, unless it is the bytes of a pickle. */
export function torchMembers(value: unknown, options: TorchOptions = {}): Member[] {
  const { storages = {}, byteorder = "little", version = "3\n", root = "archive" } = options;
  const data = value instanceof Uint8Array ? value : pickleBytes(value);
  return [
    { name: `${root}/data.pkl`, data },
    { name: `${root}/byteorder`, data: latin1(byteorder) },
    ...Object.entries(storages).map(([key, data]) => ({ name: `${root}/data/${key}`, data })),
    { name: `${root}/version`, data: latin1(version) },
    ...options.members ?? [],
  ];
}

/** The bytes of a checkpoint. */
export function torchBytes(value: unknown, options: TorchOptions = {}): Uint8Array<ArrayBuffer> {
  return zipBytes(torchMembers(value, options), options);
}

/** A file "x.pt" in memory; `reads` receives each read. */
export function inMemory(
  file: Uint8Array | Pieces,
  reads: { offset: number; length: number }[] = [],
): ByteSource {
  const { size, pieces } = file instanceof Uint8Array
    ? { size: file.length, pieces: [{ at: 0, bytes: file }] }
    : file;
  return {
    name: "x.pt",
    size,
    read(offset, into) {
      reads.push({ offset, length: into.length });
      if (!(offset >= 0 && offset + into.length <= size)) {
        return Promise.reject(
          new CheckpointError(`read past the end: ${into.length} at ${offset}`),
        );
      }
      for (const { at, bytes } of pieces) {
        const [begin, end] = [
          Math.max(at, offset),
          Math.min(at + bytes.length, offset + into.length),
        ];
        if (begin < end) into.set(bytes.subarray(begin - at, end - at), begin - offset);
      }
      return Promise.resolve();
    },
    [Symbol.dispose]() {},
  };
}
