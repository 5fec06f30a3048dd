/**
 * Products in every tile of the WebGPU backend, against the typed arrays.
 *
 * @module
 */
import type { Backend } from "../../kernels/backend.ts";
import { TILES } from "../../kernels/ops/matmul/tiles.ts";
import { Tiles } from "../../kernels/webgpu/tuner.ts";
import { checkMatmulCase } from "./twins.ts";

const SHAPES = [[66, 66], [1, 1], [130, 260], [257, 40]] as const;

/** Checks every tile; a shader takes 0.1 to 1 s to compile, so `whole` takes minutes. */
export async function checkTiles(backend: Backend, whole: boolean): Promise<void> {
  const original = Tiles.prototype.of;
  try {
    for (const T of [1, 70]) {
      for (const [i, tile] of TILES[T === 1 ? "decode" : "prefill"].entries()) {
        Tiles.prototype.of = () => tile;
        const dtypes = ["half" in tile ? "F16" : "F32", "BF16"] as const;
        const products = SHAPES.flatMap((shape) => dtypes.map((dtype) => ({ shape, dtype })));
        for (const { shape: [N, K], dtype } of whole ? products : [products[i % products.length]]) {
          await checkMatmulCase(backend, { T, N, K, dtype, bias: true, residual: true });
        }
        if (whole) await checkMatmulCase(backend, { T, N: 130, K: 66, rows: Math.ceil(T / 2) });
      }
    }
  } finally {
    Tiles.prototype.of = original;
  }
}
