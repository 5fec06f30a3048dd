/**
 * Python's pickle, read as data: the machine of
 * https://docs.python.org/3/library/pickletools.html without the powers.
 *
 * A pickle is a program for a small stack machine, which may name any function of Python and call
 * it. Here a name is looked up in a table of constructors that make plain values, and nowhere else.
 * An object of a class that a trainer wrote is kept as its attributes; any other name is refused.
 *
 * dict → Map, list → array, tuple → frozen array, set → Set, int → number (bigint past 2^53), bytes
 * → Uint8Array, None → null. Time and memory grow with the pickle's length and no faster: values
 * that are named twice are shared.
 *
 * @module
 */
import { CheckpointError } from "../../errors.ts";
import {
  describe,
  isList,
  isTuple,
  type Machine,
  PickledObject,
  PickleGlobal,
  shorten,
} from "./pickle_values.ts";

/** How a pickle is to be read. */
export interface PickleOptions {
  /** Names the file in messages. */
  readonly file: string;
  /** The file's member that is the pickle, for messages; left out where the file is one itself. */
  readonly member?: string;
  /** Finds a name of Python, as "module.name". */
  find(name: string): PickleGlobal | undefined;
  /** Makes the value of a persistent id, by which a pickle points outside of itself. */
  persistent(id: unknown, machine: Machine): unknown;
}

/**
 * Most instructions that are followed. A tensor takes about 30, and the largest value of one
 * takes some 200 bytes here.
 */
const MAX_INSTRUCTIONS = 2 ** 22;

/** Longest integer, in bytes: what a checkpoint has are seeds and states of 128 bits. */
const MAX_INTEGER_BYTES = 1024;

/** The highest protocol there is. */
const MAX_PROTOCOL = 5;

/**
 * Reads a pickle.
 * @throws {CheckpointError} when it is damaged, or asks for what is not data; names the file
 * and the byte of the pickle.
 */
export function unpickle(bytes: Uint8Array, options: PickleOptions): unknown {
  return new Unpickler(bytes, options).load();
}

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

class Unpickler implements Machine {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #options: PickleOptions;
  #at = 0;
  /** Where the instruction that is followed begins. */
  #instruction = 0;
  #frameEnd = 0;
  #copied = 0;
  readonly #stack: unknown[] = [];
  /** Heights of the stack; nothing below the last is taken. */
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, unknown>();
  /** Who made the values that take attributes. */
  readonly #makers = new Map<unknown, PickleGlobal>();

  constructor(bytes: Uint8Array, options: PickleOptions) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#options = options;
  }

  load(): unknown {
    for (let count = 0; count < MAX_INSTRUCTIONS; count++) {
      this.#instruction = this.#at;
      const code = this.#natural(1);
      if (code === 0x2e) return this.#stop(); // STOP
      this.#follow(code);
    }
    return this.fail(`at most ${MAX_INSTRUCTIONS} instructions`);
  }

  fail(expected: string): never {
    return this.#refuse(`expected ${expected}`);
  }

  spend(count: number): void {
    this.#copied += count;
    if (this.#copied > this.#bytes.length) this.fail("values that are not copied over and over");
  }

  #refuse(sentence: string): never {
    const { file, member } = this.#options;
    const where = `byte ${this.#instruction}${member ? ` of ${member}` : ""}`;
    throw new CheckpointError(`Cannot open "${file}": ${sentence} (${where})`);
  }

  #stop(): unknown {
    const value = this.#pop();
    if (this.#stack.length || this.#marks.length) this.fail("one value at the end");
    if (this.#at !== this.#bytes.length) this.fail("nothing after the end of the pickle");
    return value;
  }

  /** Follows one instruction. The names are those of pickletools. */
  #follow(code: number): void {
    switch (code) {
      case 0x80: // PROTO
        if (this.#natural(1) > MAX_PROTOCOL) this.fail(`protocol ${MAX_PROTOCOL} at most`);
        return;
      case 0x95: // FRAME
        return this.#frame();

      // Plain values
      case 0x4e: // NONE
        return this.#push(null);
      case 0x88: // NEWTRUE
        return this.#push(true);
      case 0x89: // NEWFALSE
        return this.#push(false);
      case 0x4b: // BININT1
        return this.#push(this.#natural(1));
      case 0x4d: // BININT2
        return this.#push(this.#natural(2));
      case 0x4a: // BININT
        return this.#push(this.#natural(4) | 0);
      case 0x47: // BINFLOAT
        return this.#push(this.#view.getFloat64(this.#skip(8)));
      case 0x8a: // LONG1
        return this.#push(this.#integer(this.#natural(1)));
      case 0x8b: // LONG4
        return this.#push(this.#integer(this.#natural(4)));
      case 0x49: // INT
      case 0x4c: // LONG
        return this.#push(this.#decimal());
      case 0x8c: // SHORT_BINUNICODE
      case 0x55: // SHORT_BINSTRING, the text of Python 2
        return this.#push(this.#text(this.#natural(1)));
      case 0x58: // BINUNICODE
      case 0x54: // BINSTRING
        return this.#push(this.#text(this.#natural(4)));
      case 0x8d: // BINUNICODE8
        return this.#push(this.#text(this.#natural(8)));
      case 0x43: // SHORT_BINBYTES
        return this.#push(this.#take(this.#natural(1)));
      case 0x42: // BINBYTES
        return this.#push(this.#take(this.#natural(4)));
      case 0x8e: // BINBYTES8
      case 0x96: // BYTEARRAY8
        return this.#push(this.#take(this.#natural(8)));

      // Values that hold others
      case 0x28: // MARK
        this.#marks.push(this.#stack.length);
        return;
      case 0x29: // EMPTY_TUPLE
        return this.#push(Object.freeze([]));
      case 0x85: // TUPLE1
      case 0x86: // TUPLE2
      case 0x87: // TUPLE3
        return this.#push(Object.freeze(this.#popped(code - 0x84)));
      case 0x74: // TUPLE
        return this.#push(Object.freeze(this.#sinceMark()));
      case 0x5d: // EMPTY_LIST
        return this.#push([]);
      case 0x6c: // LIST
        return this.#push(this.#sinceMark());
      case 0x61: // APPEND
        return this.#append([this.#pop()]);
      case 0x65: // APPENDS
        return this.#append(this.#sinceMark());
      case 0x7d: // EMPTY_DICT
        return this.#push(new Map());
      case 0x64: { // DICT
        const items = this.#sinceMark();
        this.#push(new Map());
        return this.#setItems(items);
      }
      case 0x73: // SETITEM
        return this.#setItems(this.#popped(2));
      case 0x75: // SETITEMS
        return this.#setItems(this.#sinceMark());
      case 0x8f: // EMPTY_SET
        return this.#push(new Set());
      case 0x90: // ADDITEMS
        return this.#addItems(this.#sinceMark());
      case 0x91: // FROZENSET
        return this.#push(new Set(this.#sinceMark()));

      // The stack and the memo
      case 0x30: // POP
        if (this.#marks.at(-1) === this.#stack.length) this.#marks.pop();
        else this.#pop();
        return;
      case 0x31: // POP_MARK
        this.#sinceMark();
        return;
      case 0x32: // DUP
        return this.#push(this.#top());
      case 0x94: // MEMOIZE
        this.#memo.set(this.#memo.size, this.#top());
        return;
      case 0x71: // BINPUT
        this.#memo.set(this.#natural(1), this.#top());
        return;
      case 0x72: // LONG_BINPUT
        this.#memo.set(this.#natural(4), this.#top());
        return;
      case 0x68: // BINGET
        return this.#push(this.#remembered(this.#natural(1)));
      case 0x6a: // LONG_BINGET
        return this.#push(this.#remembered(this.#natural(4)));

      // Names of Python, and what is made by them
      case 0x63: { // GLOBAL
        const module = this.#line();
        return this.#push(this.#global(module, this.#line()));
      }
      // INST, a class of Python 2 and its making in one; no name of the table is such a class
      case 0x69: {
        const module = this.#line();
        const { name } = this.#global(module, this.#line());
        return this.#refuse(`its pickle makes ${name} in a way of Python 2`);
      }
      case 0x93: { // STACK_GLOBAL
        const [module, name] = this.#popped(2);
        return this.#push(this.#global(module, name));
      }
      case 0x52: // REDUCE
      case 0x81: { // NEWOBJ
        const [callee, args] = this.#popped(2);
        return this.#push(this.#make(callee, args));
      }
      case 0x92: { // NEWOBJ_EX
        const [callee, args, named] = this.#popped(3);
        if (!(named instanceof Map) || named.size) this.fail("a call without named arguments");
        return this.#push(this.#make(callee, args));
      }
      case 0x62: // BUILD
        return this.#build(this.#pop());
      case 0x51: // BINPERSID
        return this.#push(this.#options.persistent(this.#pop(), this));
    }
    // Left out on purpose: protocol 0 (PyTorch cannot write it), classes of Python 2, registered
    // extensions, buffers from outside.
    const hex = code.toString(16).padStart(2, "0");
    this.fail(`an instruction of pickle, got 0x${hex}, which is none or not for data`);
  }

  #push(value: unknown): void {
    this.#stack.push(value);
  }

  /** Checks that so many values stand above the last mark. */
  #need(count: number): void {
    if (this.#stack.length - (this.#marks.at(-1) ?? 0) < count) {
      this.fail(`${count} more on the stack`);
    }
  }

  #top(): unknown {
    this.#need(1);
    return this.#stack.at(-1);
  }

  #pop(): unknown {
    this.#need(1);
    return this.#stack.pop();
  }

  #popped(count: number): unknown[] {
    this.#need(count);
    return this.#stack.splice(this.#stack.length - count);
  }

  #sinceMark(): unknown[] {
    const mark = this.#marks.pop();
    if (mark === undefined) return this.fail("a mark on the stack");
    return this.#stack.splice(mark);
  }

  #remembered(index: number): unknown {
    const value = this.#memo.get(index);
    if (value === undefined) this.fail(`a value to be remembered as ${index}`);
    return value;
  }

  #append(items: unknown[]): void {
    const top = this.#top();
    const list = top instanceof PickledObject ? top.items : top;
    if (!isList(list)) return this.fail("a list to append to");
    for (const item of items) list.push(item);
  }

  #setItems(items: unknown[]): void {
    const top = this.#top();
    const dict = top instanceof PickledObject ? top.attributes : top;
    if (!(dict instanceof Map)) return this.fail("a dict to set items of");
    if (items.length % 2) return this.fail("a value for every key");
    for (let i = 0; i < items.length; i += 2) {
      if (dict.has(items[i])) {
        this.fail(`every key of a dict once, got ${describe(items[i])} twice`);
      }
      dict.set(items[i], items[i + 1]);
    }
  }

  #addItems(items: unknown[]): void {
    const set = this.#top();
    if (!(set instanceof Set)) return this.fail("a set to add to");
    for (const item of items) set.add(item);
  }

  #global(module: unknown, name: unknown): PickleGlobal {
    if (typeof module !== "string" || typeof name !== "string") {
      return this.fail("a name of Python to be text");
    }
    const full = `${module}.${name}`;
    const found = this.#options.find(full);
    if (found) return found;
    return this.#refuse(
      `its pickle asks for ${
        shorten(full)
      }, which is not data; save the state dict alone: torch.save(model.state_dict(), path)`,
    );
  }

  #make(callee: unknown, args: unknown): unknown {
    if (!(callee instanceof PickleGlobal)) {
      return this.fail(`a constructor to call, got ${describe(callee)}`);
    }
    const { make, build } = callee;
    if (!make) {
      return this.#refuse(`its pickle calls ${shorten(callee.name)}, which makes no data`);
    }
    if (!isTuple(args)) return this.fail(`the arguments of ${callee.name} to be a tuple`);
    const made = make(args, this);
    if (build) this.#makers.set(made, callee);
    return made;
  }

  #build(state: unknown): void {
    const made = this.#top();
    const build = this.#makers.get(made)?.build;
    if (!build) return this.fail(`a value that takes attributes, got ${describe(made)}`);
    build(made, state, this);
  }

  /**
   * A frame tells how much may be read ahead. It is not needed here, and held against
   * the bytes that there are.
   */
  #frame(): void {
    const length = this.#natural(8);
    if (this.#at < this.#frameEnd) this.fail("frames that do not lie in each other");
    this.#frameEnd = this.#at + length;
    if (this.#frameEnd > this.#bytes.length) {
      this.fail(`a frame of at most ${this.#bytes.length - this.#at} bytes, got ${length}`);
    }
  }

  /** Moves on, and gives where it was. */
  #skip(count: number): number {
    const at = this.#at;
    if (count > this.#bytes.length - at) {
      this.fail(`${count} more bytes, got ${this.#bytes.length - at}; the pickle is cut off`);
    }
    this.#at += count;
    return at;
  }

  #take(count: number): Uint8Array {
    const at = this.#skip(count);
    return this.#bytes.subarray(at, at + count);
  }

  /** A natural number of 1, 2, 4 or 8 bytes. */
  #natural(bytes: 1 | 2 | 4 | 8): number {
    const at = this.#skip(bytes);
    switch (bytes) {
      case 1:
        return this.#bytes[at];
      case 2:
        return this.#view.getUint16(at, true);
      case 4:
        return this.#view.getUint32(at, true);
      default: // a length: past 2^53 it need not be exact to be too long
        return Number(this.#view.getBigUint64(at, true));
    }
  }

  /** An integer in two's complement, of any length. */
  #integer(count: number): number | bigint {
    if (count > MAX_INTEGER_BYTES) {
      return this.fail(`an integer of at most ${MAX_INTEGER_BYTES} bytes, got ${count}`);
    }
    let hex = "";
    for (const byte of this.#take(count)) hex = byte.toString(16).padStart(2, "0") + hex;
    return toInteger(BigInt.asIntN(8 * count, BigInt(`0x0${hex}`)));
  }

  /** An integer as text; a bool, which protocol 1 writes as "00" or "01". */
  #decimal(): number | bigint | boolean {
    const text = this.#line();
    if (text === "00" || text === "01") return text === "01";
    if (!/^-?\d{1,2000}L?$/.test(text)) return this.fail("an integer");
    return toInteger(BigInt(text.replace("L", "")));
  }

  #text(count: number): string {
    return this.#decode(this.#take(count));
  }

  /** Text up to the end of the line. */
  #line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at);
    if (end < 0) return this.fail("the end of a line; the pickle is cut off");
    const text = this.#decode(this.#bytes.subarray(this.#at, end));
    this.#at = end + 1;
    return text;
  }

  #decode(bytes: Uint8Array): string {
    try {
      return UTF8.decode(bytes);
    } catch {
      return this.fail("text in UTF-8");
    }
  }
}

function toInteger(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
