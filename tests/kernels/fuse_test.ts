import assert from "node:assert/strict";
import { type Call, record, type Recorder, recordPass } from "../../kernels/calls.ts";
import type { Weight } from "../../kernels/formats/mod.ts";
import { fuse } from "../../kernels/fuse.ts";
import type { Tensor } from "../../kernels/tensor.ts";

const [C, H, D] = [8, 2, 4];

const tensor = (...shape: number[]): Tensor => ({ shape, dtype: "F32" });
const weight = (N: number, K = C): Weight => ({ shape: [N, K], dtype: "F32" });
const normOf = (width: number) => ({ kind: "rms", weight: tensor(width), eps: 1e-5 }) as const;

/** Operations of the fused pass; a fused one lists its parts. */
function fused(build: (k: Recorder) => void): string[] {
  return fuse(record(build)).map(nameOf);
}

function nameOf(call: Call): string {
  if (call.op === "embed" && call.positions) return "embed+addPosition";
  return call.op === "matmul" && call.norm ? "norm+matmul" : call.op;
}

/** A residual stream of one row, its normed copy, and outputs of two products. */
function state(width = C) {
  return {
    x: tensor(1, width),
    n: tensor(1, width),
    y: tensor(1, C),
    z: tensor(1, C),
    norm: normOf(width),
    w: weight(C, width),
  };
}

Deno.test("fuse() fuses positions into the embedding only when the rows are the same", () => {
  const ids: Tensor = { shape: [3], dtype: "I32" };
  const [x, other, wte, wpe] = [tensor(3, C), tensor(3, C), weight(16), weight(32)];
  const embed = (k: Recorder) => k.embed(x, wte, ids, { scale: 2 });
  const [call, ...rest] = fuse(record((k) => {
    embed(k);
    k.addPosition(x, wpe);
  }));
  assert.deepEqual(rest, []);
  assert.deepEqual(call, { op: "embed", y: x, table: wte, ids, scale: 2, positions: wpe });
  assert.deepEqual(
    fused((k) => {
      embed(k);
      k.addPosition(other, wpe);
    }),
    ["embed", "addPosition"],
  );
});

Deno.test("fuse() fuses a norm into all products behind it when its output is overwritten", () => {
  const { x, n, y, z, norm, w } = state();
  const calls = fuse(record((k) => {
    k.norm(n, x, norm);
    k.matmul(y, n, w);
    k.matmul(z, n, w, { gate: y });
    k.norm(n, x, norm);
  }));
  assert.deepEqual(calls.map(nameOf), ["norm+matmul", "norm+matmul", "norm"]);
  assert.deepEqual(calls.slice(0, 2).map((call) => call.op === "matmul" && call.x), [x, x]);
});

Deno.test("fuse() keeps a norm when the host may read its output", () => {
  const { x, n, y, norm, w } = state();
  const pass = (k: Recorder) => {
    k.norm(n, x, norm);
    k.matmul(y, n, w);
  };
  assert.deepEqual(fused(pass), ["norm", "matmul"]);
});

/** Calls between two norms that prevent fusion of the first. */
const KEEPING: Record<string, (k: Recorder, s: ReturnType<typeof state>) => void> = {
  "another call reads its output": (k, { n, x, y, w }) => {
    k.matmul(y, n, w);
    k.norm(x, n, normOf(C));
  },
  "attention reads its output": (k, { n, y, w }) => {
    k.matmul(y, n, w);
    k.attention(y, n, { k: tensor(H, 16, D), v: tensor(H, 16, D) });
  },
  "its output is added to": (k, { n, x, y, w }) => {
    k.matmul(y, n, w);
    k.matmul(n, x, w, { residual: true });
  },
  "a product writes its input": (k, { n, x, y, w }) => {
    k.matmul(y, n, w);
    k.matmul(x, n, w, { residual: true });
  },
  "a product is gated by its output": (k, { n, x, y, w }) => {
    k.matmul(y, n, w, { gate: x });
  },
  "a product has more outputs than is worth it": (k, { n }) => {
    k.matmul(tensor(1, 50257), n, weight(50257));
  },
  "no product reads its output": () => {},
};

for (const [what, between] of Object.entries(KEEPING)) {
  Deno.test(`fuse() keeps a norm when ${what}`, () => {
    const s = state();
    const build = (k: Recorder) => {
      k.norm(s.n, s.x, s.norm);
      between(k, s);
      k.norm(s.n, s.x, s.norm);
    };
    assert.deepEqual(fused(build), record(build).map(nameOf));
  });
}

Deno.test("fuse() keeps a norm when it is in place, a residual or of several rows", () => {
  const twice = (x: Tensor, n: Tensor, options: { residual?: boolean } = {}) => {
    const [T, width] = x.shape;
    return (k: Recorder) => {
      for (let i = 0; i < 2; i++) {
        k.norm(n, x, { ...normOf(width), ...options });
        k.matmul(tensor(T, C), n, weight(C, width));
      }
    };
  };
  const [x, n] = [tensor(1, C), tensor(1, C)];
  const kept = ["norm", "matmul", "norm", "matmul"];
  assert.deepEqual(fused(twice(x, n)), ["norm+matmul", "norm", "matmul"]);
  assert.deepEqual(fused(twice(x, x)), kept);
  assert.deepEqual(fused(twice(x, n, { residual: true })), kept);
  assert.deepEqual(fused(twice(tensor(2, C), tensor(2, C))), kept);
});

Deno.test("fuse() fuses a norm of any width, and into any product when it is folded", () => {
  const heads = (width: number, outputs: number) => {
    const [x, n, y] = [tensor(1, width), tensor(1, width), tensor(1, outputs)];
    return record((k) => {
      for (let i = 0; i < 2; i++) {
        k.norm(n, x, normOf(width));
        k.matmul(y, n, weight(outputs, width));
      }
    });
  };
  const first = (calls: Call[], folds: boolean) => nameOf(fuse(calls, { folds })[0]);
  for (const folds of [false, true]) {
    for (const width of [C, 2 ** 20]) assert.equal(first(heads(width, C), folds), "norm+matmul");
  }
  assert.equal(first(heads(C, 32769), false), "norm");
  assert.equal(first(heads(C, 128256), true), "norm+matmul");
});

/** The fused calls of a pass, with what it discards. */
function fusedPass(build: (k: Recorder) => void): Call[] {
  const { calls, discarded } = recordPass(build);
  return fuse(calls, { discarded });
}

Deno.test("fuse() fuses a norm when the pass discards its output", () => {
  const { x, n, y, norm, w } = state();
  const calls = fusedPass((k) => {
    k.norm(n, x, norm);
    k.matmul(y, n, w);
    k.discard(n);
  });
  assert.deepEqual(calls.map(nameOf), ["norm+matmul"]);
});

/** Changes of a gated MLP of one row that prevent fusion of its two products. */
const UNGATED: Record<string, (s: ReturnType<typeof state>) => (k: Recorder) => void> = {
  "the gate is not discarded": ({ x, y, z, w }) => (k) => {
    k.matmul(y, x, w);
    k.matmul(z, x, weight(C), { gate: y });
  },
  "a later call reads the gate": ({ x, y, z, w }) => (k) => {
    k.matmul(y, x, w);
    k.matmul(z, x, weight(C), { gate: y });
    k.norm(x, y, normOf(C));
    k.discard(y);
  },
  "the gate has an epilogue": ({ x, y, z, w }) => (k) => {
    k.matmul(y, x, w, { activation: "relu" });
    k.matmul(z, x, weight(C), { gate: y });
    k.discard(y);
  },
  "the products read other rows": ({ x, n, y, z, w }) => (k) => {
    k.matmul(y, x, w);
    k.matmul(z, n, weight(C), { gate: y });
    k.discard(y);
  },
  "their weights are of other dtypes": ({ x, y, z }) => (k) => {
    k.matmul(y, x, { shape: [C, C], dtype: "F16" });
    k.matmul(z, x, weight(C), { gate: y });
    k.discard(y);
  },
  "there are several rows": () => (k) => {
    const [x, y, z] = [tensor(2, C), tensor(2, C), tensor(2, C)];
    k.matmul(y, x, weight(C));
    k.matmul(z, x, weight(C), { gate: y });
    k.discard(y);
  },
};

Deno.test("fuse() fuses the two products of a gated MLP when its gate is discarded", () => {
  const { x, n, y, z, norm, w } = state();
  const calls = fusedPass((k) => {
    k.norm(n, x, norm);
    k.matmul(y, n, w);
    k.matmul(z, n, weight(C), { gate: y, activation: "silu" });
    k.discard(n, y);
  });
  assert.equal(calls.length, 1);
  const [call] = calls;
  assert.ok(call.op === "matmul" && call.up?.weight === w && !call.options.gate && call.norm);
});

for (const [what, build] of Object.entries(UNGATED)) {
  Deno.test(`fuse() keeps the products of a gated MLP when ${what}`, () => {
    const calls = fusedPass(build(state()));
    assert.ok(calls.every((call) => call.op !== "matmul" || !call.up));
  });
}

Deno.test("fuse() fuses a cache write into its product when eight operands suffice", () => {
  const cache = { k: tensor(H, 16, D), v: tensor(H, 16, D) };
  const [x, n, qkv, q] = [tensor(1, C), tensor(1, C), tensor(1, 3 * C), tensor(1, C)];
  const bias = tensor(3 * C);
  const table = tensor(16, D);
  const layer = { ...normOf(C), kind: "layer", bias: tensor(C) } as const;
  const pass = (
    options: { bias?: Tensor },
    rotation: { table?: Tensor; qNorm?: ReturnType<typeof normOf> },
    discarded: Tensor[],
  ) =>
    fusedPass((k) => {
      k.norm(n, x, layer);
      k.matmul(qkv, n, weight(3 * C), options);
      k.writeKv(q, cache, qkv, rotation);
      k.discard(...discarded);
    }).map((call) => call.op === "matmul" && call.heads ? "heads" : nameOf(call));
  assert.deepEqual(pass({ bias }, {}, [n, qkv]), ["heads"]);
  assert.deepEqual(pass({}, { table }, [n, qkv]), ["heads"]);
  const kept = ["norm+matmul", "writeKv"];
  assert.deepEqual(pass({ bias }, { table }, [n, qkv]), kept); // nine operands
  assert.deepEqual(pass({}, { qNorm: normOf(D) }, [n, qkv]), kept);
  assert.deepEqual(pass({}, { table }, [n]), kept);
});
