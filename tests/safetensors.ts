/**
 * Writer of valid and broken safetensors files, and temporary folders, for tests.
 *
 * @module
 */
import assert from "node:assert/strict";
import { CheckpointError } from "../engine/errors.ts";
import type { ByteSource } from "../engine/host/mod.ts";

/** A tensor to write. */
export interface WrittenTensor {
  /** In the spelling of the format. */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Its bytes; their number is not checked against the shape. */
  readonly data: ArrayBufferView;
}

/** Writes tensors in the order of the record, as Hugging Face's library lays them out. */
export async function writeSafetensors(
  path: string,
  tensors: Readonly<Record<string, WrittenTensor>>,
  metadata?: Readonly<Record<string, string>>,
): Promise<void> {
  await Deno.writeFile(path, safetensorsBytes(Object.entries(tensors), metadata));
}

/** The bytes of a safetensors file. `tensors` is a list, so that names may be numbers. */
export function safetensorsBytes(
  tensors: readonly (readonly [name: string, tensor: WrittenTensor])[],
  metadata?: Readonly<Record<string, string>>,
): Uint8Array<ArrayBuffer> {
  // Not JSON.stringify of an object: it would lose "__proto__" and reorder numeric names.
  const entries = metadata ? [`"__metadata__":${JSON.stringify(metadata)}`] : [];
  let end = 0;
  for (const [name, { dtype, shape, data }] of tensors) {
    const data_offsets = [end, end += data.byteLength];
    entries.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets })}`);
  }
  const header = new TextEncoder().encode(`{${entries.join(",")}}`);
  const padded = new Uint8Array(Math.ceil(header.length / 8) * 8).fill(0x20);
  padded.set(header);
  return frame(padded, tensors.map(([, { data }]) => data));
}

/** A file with any header, any data and any claimed header length. */
export function frame(
  header: string | Uint8Array,
  data: readonly ArrayBufferView[] = [],
  headerBytes?: bigint,
): Uint8Array<ArrayBuffer> {
  const text = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const parts = [text, ...data].map((p) => new Uint8Array(p.buffer, p.byteOffset, p.byteLength));
  const bytes = new Uint8Array(parts.reduce((n, part) => n + part.length, 8));
  new DataView(bytes.buffer).setBigUint64(0, headerBytes ?? BigInt(text.length), true);
  let at = 8;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** A file in memory that checks every read: within the file, into a buffer no larger than it. */
export function inMemory(bytes: Uint8Array, name = "mutant"): ByteSource {
  return {
    name,
    size: bytes.length,
    read: (offset, into) => {
      assert.ok(into.length <= bytes.length, `${into.length} bytes of a file of ${bytes.length}`);
      if (offset + into.length > bytes.length) throw new CheckpointError("beyond the end");
      into.set(bytes.subarray(offset, offset + into.length));
      return Promise.resolve();
    },
    [Symbol.dispose]: () => {},
  };
}

/** Runs a test in a new temporary folder and removes the folder. */
export async function inTempFolder<T>(test: (folder: string) => Promise<T>): Promise<T> {
  const folder = await Deno.makeTempDir({ prefix: "wgslm-" });
  try {
    return await test(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
