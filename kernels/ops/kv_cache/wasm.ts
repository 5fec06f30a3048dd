/**
 * KV-cache write in WASM: norm, RoPE and store of one row's heads. `mod.ts` has formula and shapes.
 *
 * @module
 */
import { applyNorm, type Norm, normStats } from "../norm.ts";
import { call, ints, v128, vectors } from "../../asm/assembler.ts";
import type { FunctionBuilder, Int, Local, ModuleBuilder, Value } from "../../asm/assembler.ts";
import { defineKernel, type Kernel } from "../../asm/kernel.ts";
import { eachFour, storeLanes } from "../../asm/lanes.ts";
import { EACH_ROW, type WasmEntry, type WasmTarget } from "../contract.ts";
import { kvRowBytes } from "../../formats/kv.ts";
import {
  kvFormatOfShape,
  rotaryDimOf,
  type WriteKvCall,
  writeKvOperands,
  type WriteKvOptions,
  type WriteKvShape,
} from "./mod.ts";

/** QK-norm that a kernel is specialised on. */
interface HeadNorm {
  readonly norm: Norm<unknown>;
  /** Whether the norm is over all heads of a row (OLMo 2), or over each head (Qwen3). */
  readonly wholeRow: boolean;
}

/** The constants that the WASM form is specialised on. */
interface WriteKvWasm extends WriteKvShape {
  /** R: rotated numbers per head; 0 without RoPE. */
  readonly rotaryDim: number;
  readonly interleaved: boolean;
  readonly qNorm?: HeadNorm;
  readonly kNorm?: HeadNorm;
}

/** The norm option of q or k as a constant of the kernel. */
function headNorm(norm: WriteKvOptions["qNorm"], { D }: WriteKvShape): HeadNorm | undefined {
  if (!norm) return undefined;
  const { weight, bias } = norm;
  return { norm: { ...norm, weight: true, bias: !!bias }, wholeRow: weight.shape[0] !== D };
}

/** Lowers the call to a WASM kernel over rows. */
export function writeKvEntries(call: WriteKvCall, target: WasmTarget): WasmEntry[] {
  const { q, k, v, qkv, table, qWeight, qBias, kWeight, kBias } = writeKvOperands(call);
  const { options, shape } = call;
  const constants = {
    ...shape,
    rotaryDim: rotaryDimOf(options),
    interleaved: options.interleaved ?? false,
    qNorm: headNorm(options.qNorm, shape),
    kNorm: headNorm(options.kNorm, shape),
  };
  const kernel = target.once(
    "writeKv",
    constants,
    (constants) => writeKvWasm(target.module, constants),
  );
  const row = kvFormatOfShape(shape).wasm ? target.threadScratch(rowScratch(shape)) : undefined;
  const operands = [q, k, v, qkv, table, qWeight, qBias, kWeight, kBias, row];
  return [{ kernel, operands, items: EACH_ROW }];
}

const NORMS = ["qWeight", "qBias", "kWeight", "kBias"] as const;
const OPERANDS = ["q", "k", "v", "qkv", "table", ...NORMS, "row"] as const;

/** Bytes of a row of a head before it is packed, whole vectors. */
const rowScratch = ({ D }: WriteKvShape) => 16 * Math.ceil(D / 4);

/**
 * The WASM form; weights and biases are those of the norms. An item is a row: a single row is too
 * little work to share among threads.
 */
function writeKvWasm(m: ModuleBuilder, shape: WriteKvWasm): Kernel {
  const { H, G, D, S, rotaryDim, qNorm, kNorm } = shape;
  const width = 4 * D;
  const format = kvFormatOfShape(shape);
  const bytes = kvRowBytes(format, D);
  const pack = format.wasm?.pack(m, D);
  return defineKernel(m, OPERANDS, (f, params) => {
    const { q, k, v, qkv, table, qWeight, qBias, kWeight, kBias, row } = params;
    const { position, slot, begin, end } = params;
    const { t, angles, from, to, packed } = f.locals(ints("t", "angles", "from", "to", "packed"));
    const rotate = rotaryDim > 0
      ? () => (shape.interleaved ? rotatePairs : rotateHalves)(f, to, angles, rotaryDim)
      : undefined;
    const heads = { from, to, D };
    const ofQ = { ...heads, count: H, pitch: width, norm: qNorm, weight: qWeight, bias: qBias };
    // A packed head is built in `row`, and packed from there.
    const stored = pack
      ? {
        pitch: 0,
        finish() {
          f.do(call(pack, { to: packed, from: row }));
          packed.advance(S * bytes);
        },
      }
      : { pitch: S * width };
    const ofK = { ...heads, ...stored, count: G, norm: kNorm, weight: kWeight, bias: kBias };
    const ofV = { ...heads, ...stored, count: G, weight: table, bias: table };
    const startAt = (cache: Local<Int>) => {
      const first = cache.plus(slot.plus(t).times(bytes));
      to.set(pack ? row : first);
      if (pack) packed.set(first);
    };
    if (pack) row.advance(m.thread.get.times(rowScratch(shape)));

    f.for(t, begin, end, 1, () => {
      angles.set(table.plus(position.plus(t).times(4 * rotaryDim)));
      from.set(qkv.plus(t.times((H + 2 * G) * width)));
      to.set(q.plus(t.times(H * width)));
      writeHeads(f, { ...ofQ, rotate });
      startAt(k);
      writeHeads(f, { ...ofK, rotate });
      startAt(v);
      writeHeads(f, ofV);
    });
  });
}

/** The heads of q, k or v in a row. */
interface Heads {
  /** Number of heads. */
  readonly count: number;
  /** Numbers per head. */
  readonly D: number;
  /** Source [count, D]; advanced past the last head. */
  readonly from: Local<Int>;
  /** Destination, heads `pitch` bytes apart; advanced past the last head. */
  readonly to: Local<Int>;
  /** Bytes from one head to the next at the destination. */
  readonly pitch: number;
  readonly norm?: HeadNorm;
  /** The norm's weight, [D] or [count · D]. */
  readonly weight: Local<Int>;
  /** The norm's bias, [D] or [count · D]. */
  readonly bias: Local<Int>;
  /** Emits the rotation of the head at `to`. */
  readonly rotate?: () => void;
  /** Emits what follows the rotation. */
  readonly finish?: () => void;
}

/** Normalizes or copies each head to the cache or to q, and rotates it in place. */
function writeHeads(f: FunctionBuilder, heads: Heads): void {
  const { count, D, from, to, pitch, norm, weight, bias, rotate, finish } = heads;
  const { head, w, b } = f.locals(ints("head", "w", "b"));
  w.set(weight);
  b.set(bias);
  const ofRow = norm?.wholeRow ? normStats(f, from, count * D, norm.norm) : undefined;
  f.for(head, 0, count, 1, () => {
    if (norm) {
      const stats = ofRow ?? normStats(f, from, D, norm.norm);
      applyNorm(f, { y: to, x: from, weight: w, bias: b }, D, norm.norm, stats);
      if (norm.wholeRow) { for (const at of [w, b]) at.advance(4 * D); }
    } else {
      copy(f, to, from, D);
    }
    rotate?.();
    finish?.();
    from.advance(4 * D);
    if (pitch) to.advance(pitch);
  });
}

function copy(f: FunctionBuilder, to: Local<Int>, from: Local<Int>, D: number): void {
  const d = f.local("int", "d");
  eachFour(f, d, D, (lanes) => storeLanes(f, to.plus(d), v128.load(from.plus(d)), lanes));
}

/** RoPE, half layout: rotates the pairs (i, i + R/2) of the head at `x`, in place. */
function rotateHalves(f: FunctionBuilder, x: Local<Int>, angles: Local<Int>, R: number): void {
  const i = f.local("int", "i");
  const { a, b, cos, sin } = f.locals(vectors("a", "b", "cos", "sin"));
  const half = 4 * R / 2;
  const at = (row: Value<Int>) => row.plus(i);
  eachFour(f, i, R / 2, (lanes) => {
    a.set(v128.load(at(x)));
    b.set(v128.load(at(x), half));
    cos.set(v128.load(at(angles)));
    sin.set(v128.load(at(angles), half));
    storeLanes(f, at(x), a.times(cos).minus(b.times(sin)), lanes);
    storeLanes(f, at(x).plus(half), b.times(cos).plus(a.times(sin)), lanes);
  });
}

/**
 * RoPE, interleaved layout: rotates the pairs (2i, 2i + 1) of the head at `x`, in place; two pairs
 * and two angles per vector.
 */
function rotatePairs(f: FunctionBuilder, x: Local<Int>, angles: Local<Int>, R: number): void {
  const { i, angle } = f.locals(ints("i", "angle"));
  const { pairs, cos, sin } = f.locals(vectors("pairs", "cos", "sin"));
  const twice = [0, 0, 1, 1];
  eachFour(f, i, R, (lanes) => {
    const at = x.plus(i);
    angle.set(angles.plus(i.shr(1)));
    pairs.set(v128.load(at));
    cos.set(v128.load64Zero(angle));
    cos.set(v128.shuffle(cos, cos, twice));
    sin.set(v128.load64Zero(angle, 4 * R / 2));
    sin.set(v128.shuffle(sin, sin, twice));
    const minusFirst = v128.const([1, 0, 1, 0].map((sign) => sign * 0x80000000));
    const partners = v128.shuffle(pairs, pairs, [1, 0, 3, 2]);
    const crossed = partners.times(sin.xor(minusFirst));
    storeLanes(f, at, pairs.times(cos).plus(crossed), lanes);
  });
}
