/**
 * The linear memory of a backend and who owns which part of it.
 *
 * @module
 */
import { DeviceError } from "../errors.ts";
import type { Memory } from "../memory.ts";
import { BYTES, type Dtype, type HostArray, type MemoryClass } from "../tensor.ts";
import { VECTOR_BYTES } from "./lanes.ts";

/** Every buffer starts on a cache line, so that panels of 16 F32 are whole lines. */
const ALIGNMENT = 64;
const PAGE_BYTES = 65536;
/** All that a 32-bit address reaches. */
const LIMIT_BYTES = 2 ** 32;

/** A part of linear memory; `bytes` is what is tracked, the padding included. */
export interface Block {
  readonly address: number;
  readonly bytes: number;
  readonly kind: MemoryClass;
}

interface Hole {
  address: number;
  bytes: number;
}

/** First fit over a list of free blocks, and growth where none fits. Every block is tracked by class. */
export class LinearMemory {
  /** What the modules import. Growing it detaches the arrays over it: views are made anew for each use. */
  readonly wasm = new WebAssembly.Memory({ initial: 1, maximum: LIMIT_BYTES / PAGE_BYTES });
  readonly #tracked: Memory;
  /** In order of address, with no two that touch. Address 0 is never given out: it stands for "none". */
  #free: Hole[] = [];
  #end = ALIGNMENT;

  constructor(tracked: Memory) {
    this.#tracked = tracked;
  }

  /**
   * Zeroed bytes. What is read behind them, up to a vector, lies in the memory too.
   * @throws {RangeError} before anything is allocated, when they do not fit below 4 GiB.
   * @throws {DeviceError} when the system has no memory left.
   */
  allocate(count: number, kind: MemoryClass): Block {
    const bytes = Math.ceil(Math.max(count, 1) / ALIGNMENT) * ALIGNMENT;
    const block = { address: this.#take(bytes), bytes, kind };
    this.#tracked.add(kind, bytes);
    return block;
  }

  /** Gives a block back. It must not be used, and not be given back again. */
  free({ address, bytes, kind }: Block): void {
    this.#tracked.add(kind, -bytes);
    this.#free.push({ address, bytes });
    this.#free.sort((a, b) => a.address - b.address);
    const merged: Hole[] = [];
    for (const hole of this.#free) {
      const last = merged.at(-1);
      if (last && last.address + last.bytes === hole.address) last.bytes += hole.bytes;
      else merged.push(hole);
    }
    this.#free = merged;
  }

  /** Elements of a block as they are now; the array is good until the memory grows. */
  view(block: Block, dtype: Dtype, start: number, count: number): HostArray {
    const at = block.address + start * BYTES[dtype];
    const { buffer } = this.wasm;
    switch (dtype) {
      case "F32":
        return new Float32Array(buffer, at, count);
      case "I32":
        return new Int32Array(buffer, at, count);
      case "U32":
        return new Uint32Array(buffer, at, count);
      default:
        return new Uint16Array(buffer, at, count);
    }
  }

  #take(bytes: number): number {
    const hole = this.#free.find((hole) => hole.bytes >= bytes);
    if (hole) {
      const address = hole.address;
      hole.address += bytes;
      hole.bytes -= bytes;
      if (hole.bytes === 0) this.#free.splice(this.#free.indexOf(hole), 1);
      new Uint8Array(this.wasm.buffer, address, bytes).fill(0);
      return address;
    }
    const address = this.#end;
    const available = LIMIT_BYTES - VECTOR_BYTES - address;
    if (bytes > available) {
      throw new RangeError(
        `Cannot allocate on wasm: expected at most ${available} bytes (of 4 GiB), got ${bytes}; use --device js`,
      );
    }
    this.#grow(address + bytes + VECTOR_BYTES);
    this.#end = address + bytes;
    return address;
  }

  #grow(end: number): void {
    const missing = Math.ceil((end - this.wasm.buffer.byteLength) / PAGE_BYTES);
    if (missing <= 0) return;
    try {
      this.wasm.grow(missing);
    } catch (cause) {
      throw new DeviceError(
        `Cannot allocate on wasm: the system has no ${missing * PAGE_BYTES} bytes left; ` +
          `take a smaller model or close other programs`,
        { cause },
      );
    }
  }
}
