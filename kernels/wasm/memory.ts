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
import { CONTROL_BYTES, PAGE_BYTES } from "./control.ts";
import { type Int, MAX_PAGES } from "../asm/assembler.ts";
import { SEED_ADDRESS, SEED_BYTES, type Simd } from "../asm/join.ts";
import { VECTOR_BYTES } from "../asm/lanes.ts";

/** Every buffer starts on a cache line, so that panels of 16 F32 are whole lines. */
const ALIGNMENT = 64;
const GIB = 2 ** 30;
/** Address of the packer's words (`packer.ts`), after the control words of the threads. */
export const PACKING_ADDRESS = CONTROL_BYTES;
const RESERVED_BYTES = SEED_ADDRESS + SEED_BYTES;
/** Maximum bytes of a memory, by the type of its addresses. */
export const LIMIT_BYTES: Readonly<Record<Int, number>> = {
  i32: PAGE_BYTES * MAX_PAGES.i32,
  i64: PAGE_BYTES * MAX_PAGES.i64,
};

/** Whether this engine has memories of 64-bit addresses. */
export function hasWideMemory(shared: boolean): boolean {
  try {
    open("i64", { initial: 1, maximum: 1, shared });
    return true;
  } catch {
    return false;
  }
}

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
   * @param address type of its addresses.
   * @throws {DeviceError} If the system cannot reserve the address space.
   */
  constructor(
    tracked: Memory,
    readonly shared: boolean,
    simd: Simd = "128",
    readonly address: Int = "i32",
  ) {
    this.#tracked = tracked;
    try {
      if (simd === "256, unchecked") this.wasm = spanning(address, shared);
      else this.wasm = shared ? makeShared(address) : open(address, { initial: 1, shared });
    } catch (cause) {
      throw new DeviceError(
        `Cannot open "wasm": the system has no address space for another memory of ${
          LIMIT_BYTES[address] / GIB
        } GiB; dispose of a model first`,
        { cause },
      );
    }
  }

  /**
   * Allocates zeroed bytes; staging blocks are not zeroed. 16 bytes after a block may be read.
   * @throws {RangeError} If the block does not fit below the limit; nothing is allocated then.
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

  /** Pages that `bytes` more will take for the first time: first, and one after the last. */
  pagesAhead(bytes: number): readonly [first: number, end: number] {
    const free = this.#free.reduce((sum, hole) => sum + hole.bytes, 0);
    const first = Math.ceil(this.#end / PAGE_BYTES);
    const end = Math.floor((this.#end + bytes - free) / PAGE_BYTES);
    return [first, Math.min(end, this.pages)];
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
    const address = this.#end;
    const limit = LIMIT_BYTES[this.address];
    const available = limit - VECTOR_BYTES - address;
    const isFull = bytes > available;
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
    if (isFull) {
      throw new RangeError(
        `Cannot allocate on wasm: expected at most ${mib(available)} MiB more (${
          mib(limit)
        } MiB in all, for weights and cache together), ` +
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
      (this.wasm as Growable).grow(counted(this.address, missing));
    } catch (cause) {
      throw new DeviceError(
        `Cannot allocate on wasm: the system has no ${missing * PAGE_BYTES} bytes left; ` +
          `use a smaller model or close other programs`,
        { cause },
      );
    }
  }
}

/** `WebAssembly.Memory.grow`: a memory of 64-bit addresses counts its pages in BigInt. */
interface Growable {
  grow(pages: number | bigint): number | bigint;
}

/** A number of pages as the constructor and `grow` take it. */
function counted(address: Int, pages: number): number | bigint {
  return address === "i64" ? BigInt(pages) : pages;
}

/** A memory that grows up to the limit. */
function open(
  address: Int,
  { initial, maximum = MAX_PAGES[address], shared }: {
    readonly initial: number;
    readonly maximum?: number;
    readonly shared: boolean;
  },
): WebAssembly.Memory {
  const [least, most] = [initial, maximum].map((pages) => counted(address, pages));
  // An engine without 64-bit addresses ignores the name and refuses the BigInt.
  const type = { address, initial: least, maximum: most, shared };
  return new WebAssembly.Memory(type as unknown as WebAssembly.MemoryDescriptor);
}

/** A memory of its maximum size from the start. */
function spanning(address: Int, shared: boolean): WebAssembly.Memory {
  return open(address, { initial: MAX_PAGES[address], shared });
}

/**
 * A shared memory, at its maximum size from the start.
 *
 * Trick: if another thread may grow the memory, V8 reloads its size again and again, which costs a
 * matmul 7 %. Untouched pages cost nothing. A system may refuse to reserve the addresses; then the
 * memory grows.
 */
function makeShared(address: Int): WebAssembly.Memory {
  try {
    return spanning(address, true);
  } catch {
    return open(address, { initial: 1, shared: true });
  }
}

function mib(bytes: number): number {
  return Math.floor(bytes / 2 ** 20);
}
