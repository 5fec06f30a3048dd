/**
 * One linear memory, and the parts of it that tensors, weights and scratch are.
 *
 * @module
 */
import { DeviceError } from "../errors.ts";
import type { Memory } from "../memory.ts";
import { BYTES, hostView } from "../formats/mod.ts";
import type { Dtype, HostArray, MemoryClass } from "../tensor.ts";
import { CONTROL_BYTES } from "./control.ts";
import { VECTOR_BYTES } from "../asm/lanes.ts";

/** Every buffer starts on a cache line, so that panels of 16 F32 are whole lines. */
const ALIGNMENT = 64;
/** What a memory grows by. */
const PAGE_BYTES = 65536;
/**
 * What stands at the beginning of the memory, before all blocks: the threads' words,
 * and what is packed next.
 */
export const PACKING_ADDRESS = CONTROL_BYTES;
const RESERVED_BYTES = CONTROL_BYTES + 256;
/** All that a 32-bit address reaches. */
export const LIMIT_BYTES = 2 ** 32;
const MAX_PAGES = LIMIT_BYTES / PAGE_BYTES;

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

/**
 * First fit over a list of free blocks, and growth where none fits. Every
 * block is tracked by class.
 */
export class LinearMemory {
  /**
   * What the modules import. Growing it detaches the arrays over it, unless it is shared, when they
   * only end too soon: views are made anew for each use.
   */
  readonly wasm: WebAssembly.Memory;
  readonly #tracked: Memory;
  /**
   * In order of address, with no two that touch. Address 0 is never given
   * out: it stands for "none".
   */
  #free: Hole[] = [];
  #end = RESERVED_BYTES;

  /**
   * @param shared whether threads share it.
   * @throws {DeviceError} when the system has no addresses left for it.
   */
  constructor(tracked: Memory, readonly shared: boolean) {
    this.#tracked = tracked;
    try {
      this.wasm = shared ? makeShared() : growing(false);
    } catch (cause) {
      throw new DeviceError(
        `Cannot open "wasm": the system has no room for another memory of up to 4 GiB; ` +
          "dispose of a model first",
        { cause },
      );
    }
  }

  /**
   * Zeroed bytes; those of staging are what they were. What is read behind them, up to a
   * vector, lies in the memory too.
   * @throws {RangeError} before anything is allocated, when they do not fit below 4 GiB.
   * @throws {DeviceError} when the system has no memory left.
   */
  allocate(count: number, kind: MemoryClass): Block {
    const bytes = Math.ceil(Math.max(count, 1) / ALIGNMENT) * ALIGNMENT;
    const { address, isNew } = this.#take(bytes);
    if (!isNew && kind !== "staging") new Uint8Array(this.wasm.buffer, address, bytes).fill(0);
    this.#tracked.add(kind, bytes);
    return { address, bytes, kind };
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

  /** Pages that a module may count on. */
  get pages(): number {
    return this.wasm.buffer.byteLength / PAGE_BYTES;
  }

  /** Counts bytes that lie outside, but belong to the work on it. */
  track(kind: MemoryClass, bytes: number): void {
    this.#tracked.add(kind, bytes);
  }

  /** Elements of a block as they are now; the array is good until the memory grows. */
  view(block: Block, dtype: Dtype, start: number, count: number): HostArray {
    return hostView(dtype, this.wasm.buffer, block.address + start * BYTES[dtype], count);
  }

  /** Bytes of a block as they are now; the array is good until the memory grows. */
  bytes(block: Block, start: number, count: number): Uint8Array {
    return new Uint8Array(this.wasm.buffer, block.address + start, count);
  }

  #take(bytes: number): { address: number; isNew: boolean } {
    const hole = this.#free.find((hole) => hole.bytes >= bytes);
    if (hole) {
      const address = hole.address;
      hole.address += bytes;
      hole.bytes -= bytes;
      if (hole.bytes === 0) this.#free.splice(this.#free.indexOf(hole), 1);
      return { address, isNew: false };
    }
    const address = this.#end;
    const available = LIMIT_BYTES - VECTOR_BYTES - address;
    if (bytes > available) {
      throw new RangeError(
        `Cannot allocate on wasm: expected at most ${
          mib(available)
        } MiB more (4096 MiB in all, for weights and cache together), ` +
          `got ${
            mib(bytes)
          } MiB; keep weights in 16 bits, take a shorter context, or use --device js`,
      );
    }
    this.#grow(address + bytes + VECTOR_BYTES);
    this.#end = address + bytes;
    return { address, isNew: true };
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

/** A memory of one page that grows up to the limit. */
function growing(shared: boolean): WebAssembly.Memory {
  return new WebAssembly.Memory({ initial: 1, maximum: MAX_PAGES, shared });
}

/**
 * A memory that threads share, at its full size from the start: where another thread may grow it,
 * V8 looks for its size again and again, which costs a matrix product 7 %. Pages that nobody
 * touches cost nothing, but a system may refuse to promise so many.
 */
function makeShared(): WebAssembly.Memory {
  try {
    return new WebAssembly.Memory({ initial: MAX_PAGES, maximum: MAX_PAGES, shared: true });
  } catch {
    return growing(true);
  }
}

function mib(bytes: number): number {
  return Math.floor(bytes / 2 ** 20);
}
