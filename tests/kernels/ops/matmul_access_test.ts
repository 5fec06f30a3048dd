/** Sectors and banks that each tile of the WGSL matmul touches, traced from its text. */
import assert from "node:assert/strict";
import { sectorsOf, turnsOf } from "../../../bench/gpu/memory_cost.ts";
import { trace } from "../../../bench/gpu/wgsl_trace.ts";
import { matmulGroups, TILES } from "../../../kernels/ops/matmul/tiles.ts";
import { matmulWgsl } from "../../../kernels/ops/matmul/wgsl.ts";
import { PRELUDE } from "../../../kernels/wgsl/shader.ts";

const [N, K] = [2048, 2048];

for (const [phase, rows] of [["decode", 1], ["prefill", 512]] as const) {
  Deno.test(`matmul() has whole sectors and no bank conflict when any tile is for ${phase}`, () => {
    let [weights, shared] = [0, 0];
    for (const tile of TILES[phase]) {
      for (const dtype of ["F32", "BF16"] as const) {
        const { wgsl } = matmulWgsl({ N, K, dtype, tile, options: {}, subgroups: true });
        const run = { rows, position: 0, slot: 0, length: rows };
        const groups = matmulGroups(tile, N, rows);
        const { accesses } = trace(PRELUDE + wgsl, run, { group: Math.min(3, groups - 1), groups });
        const what = `${dtype} ${JSON.stringify(tile)}`;
        for (const access of accesses) {
          if (access.space === "workgroup") {
            const { turns, ideal } = turnsOf(access);
            assert.equal(turns, ideal, `${what} ${access.how} ${access.array}`);
            shared++;
          } else if (access.array === "weight") {
            const { sectors, ideal } = sectorsOf(access);
            assert.equal(sectors, ideal, `${what} ${access.array}`);
            weights++;
          }
        }
      }
    }
    assert.ok(weights > 50 && shared > 10, `${weights} loads, ${shared} shared`);
  });
}
