/**
 * Packed keys and values in WASM: a tile of them as F32, in scratch of the thread.
 *
 * The kernels of a tile read F32. A tile of 64 keys of 64 numbers takes 32 KiB unpacked, which
 * stays in the cache of a core. Decode unpacks each number once, for all query heads that share it;
 * prefill once per block of eight rows and query head.
 *
 * @module
 */
import { call, ints, type Value } from "../../asm/assembler.ts";
import type { FunctionBuilder, Int, ModuleBuilder } from "../../asm/assembler.ts";
import { kvRowBytes } from "../../formats/kv.ts";
import { kvFormatOfShape } from "../kv_cache/mod.ts";
import { type AttentionWasm, TILE } from "./wasm_tile.ts";

/** Bytes of a tile of keys or of values as F32, and the padding that unpacking writes. */
const tileBytes = (D: number) => 4 * TILE * D + 32;

/** Bytes of thread-local scratch for a tile of keys and values; 0 if the cache is F32. */
export function unpackedBytes(shape: Pick<AttentionWasm, "D" | "kv">): number {
  return kvFormatOfShape(shape).wasm ? 2 * tileBytes(shape.D) : 0;
}

/** Addresses of a head's first key and value, and a range of keys. */
interface Keys {
  readonly k: Value<Int>;
  readonly v: Value<Int>;
  readonly first: Value<Int>;
  readonly last: Value<Int>;
}

/**
 * Emits code that unpacks the keys and values first … last − 1, at most a tile, to `scratch`;
 * returns the addresses that key 0 and value 0 would have there.
 */
type Unpack = (
  f: FunctionBuilder,
  scratch: Value<Int>,
  keys: Keys,
) => Pick<Keys, "k" | "v">;

/** Null if the cache is F32. */
export function unpackWasm(m: ModuleBuilder, shape: AttentionWasm): Unpack | null {
  const { D } = shape;
  const format = kvFormatOfShape(shape);
  if (!format.wasm) return null;
  const unpack = format.wasm.unpack(m, D);
  const rowBytes = kvRowBytes(format, D);
  return (f, scratch, { k, v, first, last }) => {
    const { rows, to } = f.locals(ints("rows", "to"));
    rows.set(last.minus(first));
    rows.atMost(TILE);
    to.set(scratch);
    const skipped = first.times(rowBytes);
    f.do(call(unpack, { to, from: k.plus(skipped), rows }));
    f.do(call(unpack, { to: to.plus(tileBytes(D)), from: v.plus(skipped), rows }));
    const before = to.minus(first.times(4 * D));
    return { k: before, v: before.plus(tileBytes(D)) };
  };
}
