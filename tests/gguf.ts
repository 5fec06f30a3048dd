/**
 * Writer of valid and broken GGUF files for tests.
 *
 * @module
 */

/** A value with its type in the file: "u8", "f32", "bool", "text", or a list of one type. */
export type WrittenValue =
  | readonly [type: Scalar, value: number | bigint]
  | readonly ["text", string | Uint8Array]
  | readonly ["list", Scalar, readonly unknown[]]
  /** A type by its number, with the bytes of the value. */
  | readonly ["raw", number, Uint8Array];

type Scalar = (typeof SCALARS)[number];

const SCALARS = [
  "u8",
  "i8",
  "u16",
  "i16",
  "u32",
  "i32",
  "f32",
  "bool",
  "text",
  "list",
  "u64",
  "i64",
  "f64",
] as const;

/** A tensor to write. */
export interface WrittenGguf {
  readonly name: string;
  /** Innermost first, as in the file. */
  readonly extents: readonly (number | bigint)[];
  /** Number of the type. */
  readonly type: number;
  readonly data: Uint8Array;
  /** Default after the tensor before, aligned. */
  readonly offset?: number | bigint;
}

/** Contents and options of a file. */
export interface GgufFile {
  readonly pairs?: readonly (readonly [key: string, value: WrittenValue])[];
  readonly tensors?: readonly WrittenGguf[];
  readonly version?: number;
  readonly isBig?: boolean;
  readonly alignment?: number;
  /** Claimed numbers of pairs and tensors. */
  readonly counts?: { readonly pairs?: bigint; readonly tensors?: bigint };
}

/** Bytes in the order of writing. */
class Bytes {
  readonly bytes: number[] = [];
  constructor(readonly isLittle: boolean) {}

  number(type: Scalar, value: number | bigint): void {
    const view = new DataView(new ArrayBuffer(8));
    const wide = () => BigInt(value);
    const size = {
      u8: () => (view.setUint8(0, Number(value)), 1),
      bool: () => (view.setUint8(0, Number(value)), 1),
      i8: () => (view.setInt8(0, Number(value)), 1),
      u16: () => (view.setUint16(0, Number(value), this.isLittle), 2),
      i16: () => (view.setInt16(0, Number(value), this.isLittle), 2),
      u32: () => (view.setUint32(0, Number(value), this.isLittle), 4),
      i32: () => (view.setInt32(0, Number(value), this.isLittle), 4),
      f32: () => (view.setFloat32(0, Number(value), this.isLittle), 4),
      u64: () => (view.setBigUint64(0, wide(), this.isLittle), 8),
      i64: () => (view.setBigInt64(0, wide(), this.isLittle), 8),
      f64: () => (view.setFloat64(0, Number(value), this.isLittle), 8),
      text: () => 0,
      list: () => 0,
    }[type]();
    this.bytes.push(...new Uint8Array(view.buffer, 0, size));
  }

  text(text: string | Uint8Array): void {
    const bytes = typeof text === "string" ? new TextEncoder().encode(text) : text;
    this.number("u64", bytes.length);
    for (const byte of bytes) this.bytes.push(byte);
  }

  /** A value without its type. */
  value(value: WrittenValue): void {
    if (value[0] === "raw") this.bytes.push(...value[2]);
    else if (value[0] === "text") this.text(value[1] as string);
    else if (value[0] !== "list") this.number(value[0], value[1] as number);
    else {
      const [, type, items] = value as Extract<WrittenValue, readonly ["list", ...unknown[]]>;
      this.number("u32", SCALARS.indexOf(type));
      this.number("u64", items.length);
      for (const item of items) {
        this.value((type === "list" ? item : [type, item]) as WrittenValue);
      }
    }
  }

  pad(alignment: number): void {
    while (this.bytes.length % alignment) this.bytes.push(0);
  }
}

/** The bytes of a file. */
export function ggufBytes(file: GgufFile): Uint8Array<ArrayBuffer> {
  const { pairs = [], tensors = [], version = 3, isBig = false, alignment = 32, counts } = file;
  const out = new Bytes(!isBig);
  for (const letter of new TextEncoder().encode("GGUF")) out.bytes.push(letter);
  out.number("u32", version);
  out.number("u64", counts?.tensors ?? tensors.length);
  out.number("u64", counts?.pairs ?? pairs.length);
  for (const [key, value] of pairs) {
    out.text(key);
    out.number("u32", value[0] === "raw" ? value[1] : SCALARS.indexOf(value[0]));
    out.value(value);
  }
  let end = 0;
  for (const { name, extents, type, data, offset } of tensors) {
    out.text(name);
    out.number("u32", extents.length);
    for (const extent of extents) out.number("u64", extent);
    out.number("u32", type);
    out.number("u64", offset ?? end);
    end = Math.ceil((end + data.length) / alignment) * alignment;
  }
  out.pad(alignment);
  for (const { data } of tensors) {
    for (const byte of data) out.bytes.push(byte);
    out.pad(alignment);
  }
  return Uint8Array.from(out.bytes);
}
