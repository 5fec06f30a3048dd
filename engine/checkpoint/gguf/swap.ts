/**
 * Tensors of big-endian GGUF files in little-endian byte order.
 *
 * @module
 */
import { STORED_FORMATS } from "../../../kernels/formats/stored.ts";
import type { ByteSource } from "../../host/mod.ts";
import type { StoredTensor } from "../safetensors.ts";
import type { GgufType } from "./types.ts";

/** A tensor of a big-endian file; its bytes are swapped as they are read. */
export function inLittleEndian(tensor: StoredTensor, { words }: GgufType): StoredTensor {
  const { bytes: blockBytes } = STORED_FORMATS[tensor.dtype];
  const swap = (blocks: Uint8Array) => {
    for (let block = 0; block < blocks.length; block += blockBytes) {
      for (const [at, bytes, count = 1] of words) {
        for (let i = 0; i < count; i++) {
          let low = block + at + i * bytes;
          for (let high = low + bytes - 1; low < high; low++, high--) {
            [blocks[low], blocks[high]] = [blocks[high], blocks[low]];
          }
        }
      }
    }
  };
  const { source, offset: start, byteLength } = tensor;
  const swapped: ByteSource = {
    name: source.name,
    size: source.size,
    // Reads whole blocks, of which `into` may have a part.
    async read(offset, into) {
      const from = Math.floor((offset - start) / blockBytes) * blockBytes;
      const end = Math.ceil((offset + into.length - start) / blockBytes) * blockBytes;
      const blocks = new Uint8Array(Math.min(end, byteLength) - from);
      await source.read(start + from, blocks);
      swap(blocks);
      into.set(blocks.subarray(offset - start - from).subarray(0, into.length));
    },
    [Symbol.dispose]: () => {},
  };
  return { ...tensor, source: swapped };
}
