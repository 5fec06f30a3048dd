/**
 * The WASM form of the matrix product; `mod.ts` has the formula and the shapes.
 *
 * The weight lies in panels of 16 outputs, which `wasm/panels.ts` has the order of. A panel is a work item, and passes through the cache
 * once, under all rows. 16-bit panels are widened in the inner loop of a single row, which is bound by memory; under many rows
 * they are widened once, into scratch of the thread's own.
 *
 * An engine without guard pages (Deno's V8) tests each access, which costs as much as a multiply-add: so inputs are read four at a
 * time and spread by shuffles. 4 rows by 8 outputs then reach what the processor multiplies and adds.
 *
 * @module
 */
import { BYTES, type WeightDtype } from "../tensor.ts";
import {
  call,
  f32x4,
  type Func,
  type Global,
  i32,
  type ModuleBuilder,
  v128,
} from "../wasm/assembler.ts";
import type { FunctionBuilder, Local, Value, ValueType } from "../wasm/assembler.ts";
import { defineKernel, type Items, type Kernel } from "../wasm/kernel.ts";
import { storeLanes } from "../wasm/lanes.ts";
import type { VectorMath } from "../wasm/math.ts";
import { PANEL_COLUMNS, panelLayout, panelStreams } from "../wasm/panels.ts";
import { placeHigh, placeLow, UNIT, widenHigh, widenLow } from "../wasm/widen.ts";
import type { MatmulOptions } from "./mod.ts";

/** The constants that the WASM form is specialised on. */
export interface MatmulWasm {
  /** The most rows of a run. */
  readonly T: number;
  readonly N: number;
  readonly K: number;
  readonly dtype: WeightDtype;
  /** Whether the processor may fuse a product and its sum. */
  readonly relaxed: boolean;
  readonly options: MatmulOptions<unknown>;
}

/** Bytes of a panel's line, wide: the outputs of one input. */
const LINE = 4 * PANEL_COLUMNS;
/** Rows from which it pays to widen a panel first. */
const MANY = 4;
/** Inputs of a turn of the inner loop: a vector of x. */
const STEP = 4;

/** Items of `matmulWasm`: panels. */
export function matmulItems({ N }: { N: number }): Items {
  return { count: Math.ceil(N / PANEL_COLUMNS), perRow: false };
}

/** Bytes of scratch that each thread needs. */
export function matmulScratch({ T, K, dtype }: Pick<MatmulWasm, "T" | "K" | "dtype">): number {
  return dtype === "F32" || T < MANY ? 0 : K * LINE;
}

/** The WASM form: addresses of y, x, weight, bias, gate and the threads' scratch. */
export function matmulWasm(m: ModuleBuilder, math: VectorMath, shape: MatmulWasm): Kernel {
  const { T, N, K, dtype } = shape;
  const store = storeWasm(m, math, shape);
  const wideBytes = matmulScratch(shape);
  const { pitch } = panelLayout([N, K], dtype);
  const ahead = T < MANY ? null : aheadOf(m, shape);
  const tileOf = (rows: number, dtype: WeightDtype) => ({
    rows,
    tile: tileWasm(m, math, store, { rows, ahead: rows === MANY ? ahead : null }, {
      ...shape,
      dtype,
    }),
  });
  const tall = [4, 2, 1].filter((rows) => rows <= T);
  const many = wideBytes > 0 || dtype === "F32" ? tall.map((rows) => tileOf(rows, "F32")) : [];
  const few = dtype === "F32" ? many : [tileOf(1, dtype)];
  const widen = wideBytes > 0 ? widenWasm(m, shape) : null;
  return defineKernel(m, 6, (f, [y, x, w, bias, gate, wide], { rows, begin, end }) => {
    const [n, t, yt, xt, gt, from] = [0, 1, 2, 3, 4, 5].map(() => f.local("i32"));
    // What the next panel's part comes from that a tile has fetched into the cache.
    const next = f.local("i32");
    const advance = (at: Local<"i32">, bytes: number) => f.set(at, i32.add(at, bytes));
    const under = (tiles: typeof many, size: number) => {
      for (const { rows: height, tile } of tiles) {
        f.while(i32.leU(i32.add(t, height), rows), () => {
          for (let first = 0; first < PANEL_COLUMNS; first += columnsOf(height)) {
            const from4 = (at: Local<"i32">) => i32.add(at, 4 * first);
            const weights = i32.add(from, first * size);
            const left = i32.sub(N - first, n);
            const columns = () =>
              f.do(call(tile, from4(yt), xt, weights, from4(bias), from4(gt), left, next));
            if (first === 0) columns();
            else f.if(i32.gtS(left, 0), columns);
            if (height === MANY && ahead) advance(next, ahead.tileBytes);
          }
          advance(t, height);
          advance(yt, height * N * 4);
          advance(xt, height * K * 4);
          advance(gt, height * N * 4);
        });
      }
    };
    f.set(w, i32.add(w, i32.mul(begin, pitch)));
    for (const at of [y, bias, gate]) f.set(at, i32.add(at, i32.mul(begin, LINE)));
    if (widen) f.set(wide, i32.add(wide, i32.mul(m.thread.get, wideBytes)));
    f.for(n, i32.mul(begin, PANEL_COLUMNS), i32.mul(end, PANEL_COLUMNS), PANEL_COLUMNS, () => {
      f.set(t, 0);
      f.set(yt, y);
      f.set(xt, x);
      f.set(gt, gate);
      f.set(from, w);
      // Of the last panel, itself: it is there already.
      const more = i32.ltU(i32.add(n, PANEL_COLUMNS), i32.mul(end, PANEL_COLUMNS));
      f.set(next, i32.select(i32.add(w, pitch), w, more));
      if (widen) {
        f.if(i32.geU(rows, MANY), () => {
          f.do(call(widen, wide, w));
          f.set(from, wide);
          under(many, BYTES.F32);
        }, () => under(few, BYTES[dtype]));
      } else {
        under(few, BYTES[dtype]);
      }
      advance(w, pitch);
      for (const at of [y, bias, gate]) advance(at, LINE);
    });
  });
}

/** Inputs between two looks ahead, for each part of a panel. */
export const STRIDE = 64;

/** How a panel is fetched while the one before is worked with: a few lines of it every `stride` inputs of a tile. */
interface Ahead {
  readonly stride: number;
  /** Where the lines are, in bytes. */
  readonly lines: readonly number[];
  /** What a tile moves on by. */
  readonly tileBytes: number;
  readonly kept: Global;
}

/** How to fetch the panels of runs of up to T rows. */
export function aheadOf(
  m: ModuleBuilder,
  { T, N, K, dtype }: Pick<MatmulWasm, "T" | "N" | "K" | "dtype">,
): Ahead {
  const { parts, pitch, apart } = panelLayout([N, K], dtype);
  const stride = STRIDE * parts;
  const tiles = Math.floor(T / MANY) * (PANEL_COLUMNS / columnsOf(MANY));
  const looks = Math.max(1, Math.floor(K / stride));
  const atOnce = Math.ceil(pitch / LINE / (tiles * looks));
  const piece = Math.floor(pitch / LINE / atOnce);
  return {
    stride,
    lines: Array.from(
      { length: parts * atOnce },
      (_, i) => Math.floor(i / atOnce) * apart + i % atOnce * piece * LINE,
    ),
    // The last tile's looks end with the piece: nothing behind a panel is read, for there memory may end.
    tileBytes: Math.max(0, Math.floor((piece - looks) / Math.max(1, tiles - 1))) * LINE,
    kept: m.global(),
  };
}

/** A 16-bit panel made wide: where to, and from where. */
function widenWasm(
  m: ModuleBuilder,
  { N, K, dtype }: MatmulWasm,
): Func<readonly ["i32", "i32"], "void"> {
  const { length, starts } = panelStreams([N, K], dtype);
  return m.define(["i32", "i32"], "void", (f, to, from) => {
    const end = f.local("i32");
    const pair = f.local("v128");
    if (dtype === "F32") return;
    const line = (offset: number, k: number) => {
      for (const half of [0, 16]) {
        f.set(pair, v128.load(from, offset + half));
        f.store(to, widenLow(pair, dtype), k * LINE + 2 * half);
        f.store(to, widenHigh(pair, dtype), k * LINE + 2 * half + 16);
      }
    };
    f.set(end, i32.add(to, length * LINE));
    f.while(i32.ltU(to, end), () => {
      for (const [stream, start] of starts.entries()) line(start, stream * length);
      f.set(from, i32.add(from, LINE / 2));
      f.set(to, i32.add(to, LINE));
    });
    const last = starts.length - 1;
    for (let k = 0; k < K - starts.length * length; k++) {
      line(starts[last] + k * LINE / 2, last * length + k);
    }
  });
}

/** Columns of a panel that are done at once under so many rows: what fills the registers. */
function columnsOf(rows: number): number {
  return rows > 2 ? 8 : 16;
}

/**
 * Some rows by columns of a panel: y, x, weight, bias, gate of the corner, the outputs that are left from there, and what is to be fetched
 * meanwhile.
 */
function tileWasm(
  m: ModuleBuilder,
  math: VectorMath,
  store: Store,
  { rows, ahead }: { rows: number; ahead: Ahead | null },
  { N, K, dtype, options }: MatmulWasm,
): Func<readonly ["i32", "i32", "i32", "i32", "i32", "i32", "i32"], "void"> {
  const columns = columnsOf(rows);
  // One row has few sums: twice as many wait less for each other.
  const chains = rows > 1 ? 1 : 2;
  const stride = PANEL_COLUMNS * BYTES[dtype];
  // Placed F16 numbers lack a factor, of which x takes one root and the sums take the other: none is lost below F32's least.
  const root = dtype === "F16" ? Math.sqrt(UNIT) : 1;
  // Sums in order of rows and columns, and where they go.
  const corners = Array.from({ length: rows * columns / 4 }, (_, i) => {
    const [r, j] = [Math.floor(4 * i / columns), i % (columns / 4)];
    return { ofRow: 4 * (r * N + 4 * j), column: 4 * j };
  });
  const storeAll = options.activation || options.softCap
    ? storeTileWasm(m, math, corners, options)
    : null;
  return m.define(
    ["i32", "i32", "i32", "i32", "i32", "i32", "i32"],
    "void",
    (f, y, x, w, bias, gate, left, next) => {
      const [end, seen] = [f.local("i32"), f.local("i32")];
      const xr = f.local("v128");
      const inputs = Array.from({ length: rows }, () => f.local("v128"));
      const weights = Array.from({ length: columns / 4 }, () => f.local("v128"));
      const sums = Array.from(
        { length: chains },
        () => inputs.map(() => weights.map(() => f.local("v128"))),
      );
      const scaled = (v: Value<"v128">) => root === 1 ? v : f32x4.mul(v, f32x4.splat(root));

      /** One input of each row by its line of the panel, so many bytes on. */
      const multiply = (offset: number, chain: number, input: (row: number) => Value<"v128">) => {
        loadWeights(f, weights, w, offset, dtype);
        for (const [r, sum] of sums[chain].entries()) {
          f.set(xr, input(r));
          for (const [j, s] of sum.entries()) f.set(s, math.madd(xr, weights[j], s));
        }
      };
      const { length, starts } = rows > 1
        ? { length: K - K % STEP, starts: [0] }
        : panelStreams([N, K], dtype);
      const turn = () => {
        for (const [stream, start] of starts.entries()) {
          for (const [r, v] of inputs.entries()) {
            f.set(v, scaled(v128.load(x, 4 * (r * K + stream * length))));
          }
          for (let k = 0; k < STEP; k++) {
            const spread = (r: number) => v128.shuffle(inputs[r], inputs[r], [k, k, k, k]);
            multiply(start + k * stride, k % chains, spread);
          }
        }
        f.set(w, i32.add(w, STEP * stride));
      };
      const turns = (inputs: number) => {
        f.set(end, i32.add(x, 4 * inputs));
        f.for(x, x, end, 4 * STEP, turn);
      };
      if (ahead && length >= ahead.stride) {
        const { stride, lines, kept } = ahead;
        const last = f.local("i32");
        f.set(last, i32.add(x, 4 * (length - length % stride)));
        f.while(i32.ltU(x, last), () => {
          for (const line of lines) f.set(seen, i32.or(seen, i32.load(next, line)));
          f.set(next, i32.add(next, LINE));
          turns(stride);
        });
        f.do(kept.set(seen)); // else nobody would have to read it
        if (length % stride > 0) turns(length % stride);
      } else {
        turns(length);
      }
      const last = starts.length - 1;
      for (let k = 0; k < K - starts.length * length; k++) {
        const at = last * length + k;
        const spread = (r: number) => scaled(v128.load32Splat(x, 4 * (r * K + at)));
        multiply(starts[last] + k * stride, k % chains, spread);
      }
      const [totals, ...others] = sums;
      for (const [r, total] of totals.entries()) {
        for (const [j, s] of total.entries()) {
          for (const other of others) f.set(s, f32x4.add(s, other[r][j]));
          f.set(s, scaled(s));
        }
      }

      const outputs = totals.flat();
      const each = (put: (s: Local<"v128">, at: Places) => void) => {
        for (const [i, s] of outputs.entries()) put(s, { y, gate, bias, ...corners[i] });
      };
      const one = (s: Local<"v128">, { ofRow, column }: Places) => {
        const at = (row: Local<"i32">) => i32.add(row, ofRow);
        f.do(call(store, s, at(y), i32.add(bias, 4 * column), at(gate), i32.sub(left, column)));
      };
      const whole = () => {
        if (storeAll) f.do(call(storeAll, ...outputs, y, bias, gate));
        else each((s, at) => storeInline(f, math, s, at, options));
      };
      f.if(i32.geS(left, columns), whole, () => each(one));
    },
  );
}

/** Vectors of four weights from `at` on; 16-bit ones come in pairs, and F16 without their factor. */
export function loadWeights(
  f: FunctionBuilder,
  weights: readonly Local<"v128">[],
  at: Local<"i32">,
  offset: number,
  dtype: WeightDtype,
): void {
  if (dtype === "F32") {
    for (const [j, w] of weights.entries()) f.set(w, v128.load(at, offset + 16 * j));
    return;
  }
  for (let j = 0; j < weights.length; j += 2) {
    const [low, high] = [weights[j], weights[j + 1]];
    f.set(high, v128.load(at, offset + 8 * j));
    f.set(low, placeLow(high, dtype));
    f.set(high, placeHigh(high, dtype));
  }
}

/** Where four outputs of a row go to, and what is made of them on the way. */
interface Places {
  readonly y: Local<"i32">;
  readonly gate: Local<"i32">;
  readonly bias: Local<"i32">;
  /** Bytes from the corner in y and gate … */
  readonly ofRow: number;
  /** … and outputs from it. */
  readonly column: number;
}

/**
 * The epilogue of a tile whose outputs are all there: their sums, y, bias, gate. Functions have many constants, which take as long to
 * make as they do themselves: here once for all vectors.
 */
export function storeTileWasm(
  m: ModuleBuilder,
  math: VectorMath,
  corners: readonly Pick<Places, "ofRow" | "column">[],
  options: MatmulOptions<unknown>,
): Func<readonly ValueType[], "void"> {
  const sums = corners.map(() => "v128" as const);
  return m.define([...sums, "i32", "i32", "i32"] as ValueType[], "void", (f, ...all) => {
    const [y, bias, gate] = all.slice(corners.length) as Local<"i32">[];
    for (const [i, corner] of corners.entries()) {
      storeInline(f, math, all[i] as Local<"v128">, { y, bias, gate, ...corner }, options);
    }
  });
}

/** An epilogue of four outputs that there are, written out. */
function storeInline(
  f: FunctionBuilder,
  math: VectorMath,
  v: Local<"v128">,
  places: Places,
  options: MatmulOptions<unknown>,
): void {
  finish(f, math, v, places, options);
  f.store(places.y, v, places.ofRow);
}

/** What is made of four sums on their way to y. */
function finish(
  f: FunctionBuilder,
  math: VectorMath,
  v: Local<"v128">,
  { y, gate, bias, ofRow, column }: Places,
  options: MatmulOptions<unknown>,
): void {
  const { activation, scale = 1, softCap, residual = false } = options;
  if (options.bias) f.set(v, f32x4.add(v, v128.load(bias, 4 * column)));
  if (activation) f.set(v, math.activate(f, activation, v));
  if (options.gate) f.set(v, f32x4.mul(v, v128.load(gate, ofRow)));
  if (scale !== 1) f.set(v, f32x4.mul(v, f32x4.splat(scale)));
  if (softCap) {
    f.set(v, f32x4.div(v, f32x4.splat(softCap)));
    f.set(v, call(math.tanh(), v));
    f.set(v, f32x4.mul(v, f32x4.splat(softCap)));
  }
  if (residual) f.set(v, f32x4.add(v128.load(y, ofRow), v));
}

/** The epilogue of four outputs: their sums, y, bias, gate, and the outputs that are left from there. */
type Store = Func<readonly ["v128", "i32", "i32", "i32", "i32"], "void">;

export function storeWasm(m: ModuleBuilder, math: VectorMath, { N, options }: MatmulWasm): Store {
  return m.define(["v128", "i32", "i32", "i32", "i32"], "void", (f, v, y, bias, gate, left) => {
    finish(f, math, v, { y, bias, gate, ofRow: 0, column: 0 }, options);
    f.if(
      i32.geS(left, 4),
      () => storeLanes(f, y, v, 4),
      () => f.if(i32.gtS(left, 0), () => storeLanes(f, y, v, N % 4)),
    );
  });
}
