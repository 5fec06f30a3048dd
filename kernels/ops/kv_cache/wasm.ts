/**
 * The WASM form of `writeKv`; `mod.ts` has the formula and the shapes.
 *
 * @module
 */
import { applyNorm, type Norm, normStats } from "../norm.ts";
import { f32x4, type FunctionBuilder, i32, type ModuleBuilder, v128 } from "../../asm/assembler.ts";
import type { Local, Value } from "../../asm/assembler.ts";
import { defineKernel, type Kernel } from "../../asm/kernel.ts";
import { eachFour, storeLanes } from "../../asm/lanes.ts";
import { EACH_ROW, type WasmEntry, type WasmTarget } from "../contract.ts";
import {
  rotaryDimOf,
  type WriteKvCall,
  writeKvOperands,
  type WriteKvOptions,
  type WriteKvShape,
} from "./mod.ts";

/** A norm of heads as a kernel is specialised on it. */
interface HeadNorm {
  readonly norm: Norm<unknown>;
  /** Over all heads together, or over each. */
  readonly wholeRow: boolean;
}

/** The constants that the WASM form is specialised on. */
interface WriteKvWasm extends WriteKvShape {
  /** R: numbers of a head that turn; 0 without a table. */
  readonly rotaryDim: number;
  readonly interleaved: boolean;
  readonly qNorm?: HeadNorm;
  readonly kNorm?: HeadNorm;
}

/** A norm of heads as it is given to `writeKv`, in that form. */
function headNorm(norm: WriteKvOptions["qNorm"], { D }: WriteKvShape): HeadNorm | undefined {
  if (!norm) return undefined;
  const { weight, bias } = norm;
  return { norm: { ...norm, weight: true, bias: !!bias }, wholeRow: weight.shape[0] !== D };
}

/** The call on the CPU. */
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
  const operands = [q, k, v, qkv, table, qWeight, qBias, kWeight, kBias];
  return [{ kernel, operands, items: EACH_ROW }];
}

/**
 * The WASM form: addresses of q, k, v, qkv, table, and of weight and bias of the queries' norm and of the keys'. An item is a row: what
 * is done to it is little, and a row of one token is not worth sharing.
 */
function writeKvWasm(m: ModuleBuilder, shape: WriteKvWasm): Kernel {
  const { H, G, D, S, rotaryDim, interleaved, qNorm, kNorm } = shape;
  const width = 4 * D;
  return defineKernel(
    m,
    9,
    (f, [q, k, v, qkv, table, qWeight, qBias, kWeight, kBias], { position, slot, begin, end }) => {
      const [t, angles, from, to] = [0, 1, 2, 3].map(() => f.local("i32"));
      /** Heads of one kind, from where `from` is to where `to` is, which are left behind the last one. */
      const heads = (
        count: number,
        pitch: number,
        norm: HeadNorm | undefined,
        [weight, bias]: readonly Local<"i32">[],
        turns: boolean,
      ) => {
        const [head, w, b] = [0, 1, 2].map(() => f.local("i32"));
        f.set(w, weight);
        f.set(b, bias);
        const ofRow = norm?.wholeRow ? normStats(f, from, count * D, norm.norm) : undefined;
        f.for(head, 0, count, 1, () => {
          if (norm) {
            const stats = ofRow ?? normStats(f, from, D, norm.norm);
            applyNorm(f, { y: to, x: from, weight: w, bias: b }, D, norm.norm, stats);
            if (norm.wholeRow) { for (const at of [w, b]) f.set(at, i32.add(at, width)); }
          } else {
            copy(f, to, from, D);
          }
          if (turns && rotaryDim > 0) {
            const turn = interleaved ? turnPairs : turnHalves;
            turn(f, to, angles, rotaryDim);
          }
          f.set(from, i32.add(from, width));
          f.set(to, i32.add(to, pitch));
        });
      };

      f.for(t, begin, end, 1, () => {
        f.set(angles, i32.add(table, i32.mul(i32.add(position, t), 4 * rotaryDim)));
        f.set(from, i32.add(qkv, i32.mul(t, (H + 2 * G) * width)));
        f.set(to, i32.add(q, i32.mul(t, H * width)));
        heads(H, width, qNorm, [qWeight, qBias], true);
        f.set(to, i32.add(k, i32.mul(i32.add(slot, t), width)));
        heads(G, S * width, kNorm, [kWeight, kBias], true);
        f.set(to, i32.add(v, i32.mul(i32.add(slot, t), width)));
        heads(G, S * width, undefined, [table, table], false);
      });
    },
  );
}

function copy(f: FunctionBuilder, to: Local<"i32">, from: Local<"i32">, D: number): void {
  const d = f.local("i32");
  eachFour(f, d, D, (lanes) => {
    storeLanes(f, i32.add(to, d), v128.load(i32.add(from, d)), lanes);
  });
}

/** Turns the pairs (i, i + R/2) of the head at `x`, in place. */
function turnHalves(f: FunctionBuilder, x: Local<"i32">, angles: Local<"i32">, R: number): void {
  const i = f.local("i32");
  const [a, b, cos, sin] = [0, 1, 2, 3].map(() => f.local("v128"));
  const half = 4 * R / 2;
  const at = (row: Value<"i32">) => i32.add(row, i);
  eachFour(f, i, R / 2, (lanes) => {
    f.set(a, v128.load(at(x)));
    f.set(b, v128.load(at(x), half));
    f.set(cos, v128.load(at(angles)));
    f.set(sin, v128.load(at(angles), half));
    storeLanes(f, at(x), f32x4.sub(f32x4.mul(a, cos), f32x4.mul(b, sin)), lanes);
    const second = f32x4.add(f32x4.mul(b, cos), f32x4.mul(a, sin));
    storeLanes(f, i32.add(at(x), half), second, lanes);
  });
}

/** Turns the pairs (2i, 2i + 1) of the head at `x`, in place: two at a time, for each of which there is one angle. */
function turnPairs(f: FunctionBuilder, x: Local<"i32">, angles: Local<"i32">, R: number): void {
  const [i, angle] = [f.local("i32"), f.local("i32")];
  const [pairs, cos, sin] = [0, 1, 2].map(() => f.local("v128"));
  const twice = [0, 0, 1, 1];
  eachFour(f, i, R, (lanes) => {
    const at = i32.add(x, i);
    f.set(angle, i32.add(angles, i32.shrU(i, 1)));
    f.set(pairs, v128.load(at));
    f.set(cos, v128.load64Zero(angle));
    f.set(cos, v128.shuffle(cos, cos, twice));
    f.set(sin, v128.load64Zero(angle, 4 * R / 2));
    f.set(sin, v128.shuffle(sin, sin, twice));
    const firstOnes = v128.const([1, 0, 1, 0].map((one) => one * 0x80000000));
    const partners = v128.shuffle(pairs, pairs, [1, 0, 3, 2]);
    const turned = f32x4.mul(partners, v128.xor(sin, firstOnes));
    storeLanes(f, at, f32x4.add(f32x4.mul(pairs, cos), turned), lanes);
  });
}
