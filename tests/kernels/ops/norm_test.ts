import assert from "node:assert/strict";
import { openJsBackend } from "../../../kernels/js/backend.ts";
import type { Norm } from "../../../kernels/ops/norm.ts";
import { assertClose, randomNumbers, readJson, TOLERANCE } from "../../testing.ts";
import { type Numbers, put } from "../goldens.ts";

interface NormCase extends Norm<Numbers> {
  readonly name: string;
  readonly residual?: boolean;
  readonly scale?: number;
  readonly inPlace?: boolean;
  readonly x: Numbers;
  /** Initial y, if it is added to. */
  readonly y?: Numbers;
  readonly expected: Numbers;
}

for (const golden of readJson<NormCase[]>("kernels/norm.json")) {
  Deno.test(`norm() agrees with torch when it is ${golden.name}`, async () => {
    await using backend = openJsBackend();
    const { x: from, bias, expected } = golden;
    const x = put(backend, from);
    const y = golden.inPlace ? x : put(backend, golden.y ?? from);
    using plan = await backend.record((k) =>
      k.norm(y, x, {
        kind: golden.kind,
        weight: put(backend, golden.weight),
        bias: bias && put(backend, bias),
        eps: golden.eps,
        offset: golden.offset,
        residual: golden.residual,
        scale: golden.scale,
      })
    );
    plan.run({ rows: from.shape[0], position: 0, slot: 0, length: from.shape[0] });
    assertClose(await backend.read(y) as Float32Array, expected.data, TOLERANCE.kernel, "y");
    if (y !== x) assert.deepEqual(await backend.read(x), Float32Array.from(from.data));
  });
}

for (const kind of ["layer", "rms"] as const) {
  Deno.test(`norm() leaves the other rows alone when ${kind} and the step is short`, async () => {
    await using backend = openJsBackend();
    const [T, C] = [4, 9];
    const before = randomNumbers(T * C, 1);
    const x = put(backend, { shape: [T, C], data: [...before] });
    const weight = put(backend, { shape: [C], data: Array(C).fill(1) });
    using plan = await backend.record((k) => k.norm(x, x, { kind, weight, eps: 0 }));
    plan.run({ rows: 2, position: 0, slot: 0, length: 2 });
    assert.deepEqual(await backend.read(x, 2 * C), before.slice(2 * C));
    // Rows in use must have a mean square of 1.
    const after = await backend.read(x, 0, 2 * C) as Float32Array;
    for (const row of [after.subarray(0, C), after.subarray(C)]) {
      assertClose([row.reduce((sum, v) => sum + v * v, 0) / C], [1], TOLERANCE.kernel);
    }
  });
}
