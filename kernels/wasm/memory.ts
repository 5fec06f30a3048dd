/**
 * Allocator of the WebAssembly backend: blocks of one linear memory for tensors, weights and
 * scratch.
 *
 *     byte 0          1024             1280              1792
 *     │ control words │ packer's words │ seeds of joins │ blocks, aligned to 64 bytes … │ padding │
 *
 * Nothing is stored to the seeds (`asm/join.ts`). The padding is 16 bytes.
 *
 * @module
 */
import { DeviceError } from "../errors.ts";
import type { Memory } from "../memory.ts";
import { BYTES, hostView } from "../formats/mod.ts";
import type { Dtype, HostArray, MemoryClass } from "../tensor.ts";
import { CONTROL_BYTES } from "./control.ts";
import { SEED_ADDRESS, SEED_BYTES, type Simd } from "../asm/join.ts";
import { VECTOR_BYTES } from "../asm/lanes.ts";

/** Every buffer starts on a cache line, so that panels of 16 F32 are whole lines. */
const ALIGNMENT = 64;
/** Bytes of a page, the unit in which a memory grows. */
const PAGE_BYTES = 65536;
/** Address of the packer's words (`packer.ts`), after the control words of the threads. */
export const PACKING_ADDRESS = CONTROL_BYTES;
const RESERVED_BYTES = SEED_ADDRESS + SEED_BYTES;
/** Bytes that a 32-bit address reaches. */
export const LIMIT_BYTES = 2 ** 32;
const MAX_PAGES = LIMIT_BYTES / PAGE_BYTES;

/** An allocated range of the memory; `bytes` includes the padding to 64. */
export interface Block {
  readonly address: number;
  readonly bytes: number;
  readonly kind: MemoryClass;
}

interface Hole {
  address: number;
  bytes: number;
  /** Whether weights are kept out of it as long as there is other memory. */
  readonly staging: boolean;
}

/** First-fit allocator over a free list; grows the memory if no hole fits. Tracks every block. */
export class LinearMemory {
  /**
   * The memory that modules import. Growing detaches existing views; of a shared memory, it leaves
   * them too short. So every access makes a new view.
   */
  readonly wasm: WebAssembly.Memory;
  readonly #tracked: Memory;
  /**
   * Holes in order of address, merged where they touch. Address 0 is never allocated: it means
   * "none".
   *
   * Trick: a staging block leaves a hole for the next one. Each weight is read through scratch; if
   * the weight took the hole of the scratch before, every scratch would be in pages that were never
   * touched, whose faults take longer than the reading: 37 instead of 13 ms of 98 MB.
   */
  #free: Hole[] = [];
  #end = RESERVED_BYTES;

  /**
   * @param shared whether threads share the memory.
   * @param simd without bounds checks, the memory spans all addresses from the start: no address of
   * 32 bits is outside.
   * @throws {DeviceError} If the system cannot reserve the address space.
   */
  constructor(tracked: Memory, readonly shared: boolean, simd: Simd = "128") {
    this.#tracked = tracked;
    try {
      if (simd === "256, unchecked") this.wasm = spanning(shared);
      else this.wasm = shared ? makeShared() : growing(false);
    } catch (cause) {
      throw new DeviceError(
        `Cannot open "wasm": the system has no address space for another memory of 4 GiB; ` +
          "dispose of a model first",
        { cause },
      );
    }
  }

  /**
   * Allocates zeroed bytes; staging blocks are not zeroed. 16 bytes after a block may be read.
   * @throws {RangeError} If the block does not fit below 4 GiB; nothing is allocated then.
   * @throws {DeviceError} If the system has no memory left.
   */
  allocate(count: number, kind: MemoryClass): Block {
    const bytes = Math.ceil(Math.max(count, 1) / ALIGNMENT) * ALIGNMENT;
    const { address, isNew } = this.#take(bytes, kind);
    if (!isNew && kind !== "staging") new Uint8Array(this.wasm.buffer, address, bytes).fill(0);
    this.#tracked.add(kind, bytes);
    return { address, bytes, kind };
  }

  /** Frees a block, which must not be used or freed again. */
  free({ address, bytes, kind }: Block): void {
    this.#tracked.add(kind, -bytes);
    this.#free.push({ address, bytes, staging: kind === "staging" });
    this.#free.sort((a, b) => a.address - b.address);
    const merged: Hole[] = [];
    for (const hole of this.#free) {
      const last = merged.at(-1);
      const touches = last && last.address + last.bytes === hole.address;
      if (touches && last.staging === hole.staging) last.bytes += hole.bytes;
      else merged.push(hole);
    }
    this.#free = merged;
  }

  /** Current size in pages, which a module may declare as its minimum. */
  get pages(): number {
    return this.wasm.buffer.byteLength / PAGE_BYTES;
  }

  /** Tracks bytes outside the memory that belong to work on it. */
  track(kind: MemoryClass, bytes: number): void {
    this.#tracked.add(kind, bytes);
  }

  /** View of a block's elements, valid until the memory grows. */
  view(block: Block, dtype: Dtype, start: number, count: number): HostArray {
    return hostView(dtype, this.wasm.buffer, block.address + start * BYTES[dtype], count);
  }

  /** View of a block's bytes, valid until the memory grows. */
  bytes(block: Block, start: number, count: number): Uint8Array {
    return new Uint8Array(this.wasm.buffer, block.address + start, count);
  }

  #take(bytes: number, kind: MemoryClass): { address: number; isNew: boolean } {
    const isFull = this.#end + bytes + VECTOR_BYTES > LIMIT_BYTES;
    const hole = this.#free.find(({ staging, bytes: free }) =>
      free >= bytes && (isFull || !staging || kind !== "weights")
    );
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
          `got ${mib(bytes)} MiB; use a 16-bit dtype, a shorter context, or --device js`,
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
          `use a smaller model or close other programs`,
        { cause },
      );
    }
  }
}

/** A memory of one page that grows up to the limit. */
function growing(shared: boolean): WebAssembly.Memory {
  return new WebAssembly.Memory({ initial: 1, maximum: MAX_PAGES, shared });
}

/** A memory of its maximum size from the start. */
function spanning(shared: boolean): WebAssembly.Memory {
  return new WebAssembly.Memory({ initial: MAX_PAGES, maximum: MAX_PAGES, shared });
}

/**
 * A shared memory, at its maximum size from the start.
 *
 * Trick: if another thread may grow the memory, V8 reloads its size again and again, which costs a
 * matmul 7 %. Untouched pages cost nothing. A system may refuse to reserve 4 GiB; then the memory
 * grows.
 */
function makeShared(): WebAssembly.Memory {
  try {
    return spanning(true);
  } catch {
    return growing(true);
  }
}

function mib(bytes: number): number {
  return Math.floor(bytes / 2 ** 20);
}
