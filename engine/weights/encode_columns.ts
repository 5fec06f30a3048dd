/**
 * Quantisation of a weight that the file stores as its transpose (GPT-2's Conv1D).
 *
 *     file rows k … k + 31 [32, N] ──transpose──▶ [N, 32] ──encode──▶ block k / 32 of all N rows
 *
 * @module
 */
import { encoderOf, FORMATS, storedBytes, type WeightDtype } from "../../kernels/formats/mod.ts";
import { bytesOf, type FillRows } from "../../kernels/tensor.ts";

/**
 * Encodes W [N, K] from rows of Wᵀ in F32.
 * @returns a reader of the encoded rows, which are held until it is dropped.
 */
export async function encodeColumns(
  fill: FillRows,
  [N, K]: readonly [N: number, K: number],
  dtype: WeightDtype,
): Promise<FillRows> {
  const { block, bytes } = FORMATS[dtype];
  const encode = encoderOf(dtype);
  const rowBytes = storedBytes(dtype, K);
  const encoded = new Uint8Array(N * rowBytes);
  const rows = new Float32Array(block * N);
  const columns = new Float32Array(N * block);
  const blocks = new Uint8Array(N * bytes);
  for (let k = 0; k < K; k += block) {
    await fill(k, block, bytesOf(rows));
    for (let i = 0; i < block; i++) {
      for (let n = 0; n < N; n++) columns[n * block + i] = rows[i * N + n];
    }
    encode(blocks, columns);
    for (let n = 0, at = k / block * bytes; n < N; n++, at += rowBytes) {
      encoded.set(blocks.subarray(n * bytes, (n + 1) * bytes), at);
    }
  }
  return (row, count, into) => {
    into.set(encoded.subarray(row * rowBytes, (row + count) * rowBytes));
  };
}
