/**
 * Safe parser of Python pickles (https://docs.python.org/3/library/pickletools.html).
 *
 * A pickle is a program for a stack machine that can name and call any Python function. Here only
 * an allow-list of names is accepted, and each makes a plain value. An object of a trainer's class
 * becomes its attributes; any other name is refused. No code of the file runs.
 *
 *     dict → Map     tuple → frozen array     int → number, bigint above 2^53     None → null
 *     list → array   set → Set                bytes → Uint8Array
 *
 * Time and memory are linear in the pickle's length: values that are referenced twice are shared.
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

/** Input and allow-list of a parser. */
export interface PickleOptions {
  /** File name, for messages. */
  readonly file: string;
  /** Archive member that holds the pickle, for messages; absent if the file is a pickle. */
  readonly member?: string;
  /** The allowed name "module.name"; undefined to refuse it. */
  find(name: string): PickleGlobal | undefined;
  /** The value of a persistent id, which refers to data outside the pickle. */
  persistent(id: unknown, machine: Machine): unknown;
}

/**
 * Limit of instructions. A tensor takes about 30; one instruction needs at most ~200 bytes here.
 */
const MAX_INSTRUCTIONS = 2 ** 22;

/** Longest integer in bytes. Checkpoints have seeds and generator states of 128 bits. */
const MAX_INTEGER_BYTES = 1024;

/** Newest pickle protocol. */
const MAX_PROTOCOL = 5;

/**
 * Parses a pickle.
 * @throws {CheckpointError} If it is damaged, or refers to anything but data; names the file and
 *   the byte of the pickle.
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
  /** Byte offset of the current instruction. */
  #instruction = 0;
  #frameEnd = 0;
  #copied = 0;
  readonly #stack: unknown[] = [];
  /** Stack heights at MARK instructions; values below the last one cannot be popped. */
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, unknown>();
  /** Constructor of each value that accepts attributes. */
  readonly #makers = new Map<unknown, PickleGlobal>();
  /** Byte of each name that may be a function; undefined once it has made a value. */
  readonly #unsure = new Map<string, number | undefined>();

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
      this.#execute(code);
    }
    return this.fail(`at most ${MAX_INSTRUCTIONS} instructions`);
  }

  fail(expected: string): never {
    return this.#refuse(`expected ${expected}`);
  }

  spend(count: number): void {
    this.#copied += count;
    if (this.#copied > this.#bytes.length) this.fail("each value to be copied at most once");
  }

  refuseName(name: string): never {
    return this.#refuse(
      `its pickle refers to ${
        shorten(name)
      }, which is not data; save the state dict alone: torch.save(model.state_dict(), path)`,
    );
  }

  #refuse(sentence: string): never {
    const { file, member } = this.#options;
    const where = `byte ${this.#instruction}${member ? ` of ${member}` : ""}`;
    throw new CheckpointError(`Cannot open "${file}": ${sentence} (${where})`);
  }

  #stop(): unknown {
    for (const [name, byte] of this.#unsure) {
      if (byte === undefined) continue;
      this.#instruction = byte;
      this.refuseName(name);
    }
    const value = this.#pop();
    if (this.#stack.length || this.#marks.length) this.fail("one value at the end");
    if (this.#at !== this.#bytes.length) this.fail("nothing after the end of the pickle");
    return value;
  }

  /** Executes one instruction. The comments are the names of pickletools. */
  #execute(code: number): void {
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
      case 0x55: // SHORT_BINSTRING, Python 2 text
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

      // The same in protocol 0
      case 0x56: // UNICODE
        return this.#push(this.#escapedText());
      case 0x46: { // FLOAT
        const text = this.#line();
        const isFloat = /^-?(\d+\.?\d*(e[+-]?\d+)?|inf|nan)$/.test(text);
        return this.#push(isFloat ? Number(text.replace("inf", "Infinity")) : this.fail("a float"));
      }
      case 0x70: // PUT
        this.#memo.set(this.#index(), this.#top());
        return;
      case 0x67: // GET
        return this.#push(this.#recall(this.#index()));

      // Containers
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
        return this.#push(this.#recall(this.#natural(1)));
      case 0x6a: // LONG_BINGET
        return this.#push(this.#recall(this.#natural(4)));

      // Python names and objects
      case 0x63: { // GLOBAL
        const module = this.#line();
        return this.#push(this.#global(module, this.#line()));
      }
      // INST: name and call of a Python 2 class in one; the table has no such class
      case 0x69: {
        const module = this.#line();
        const { name } = this.#global(module, this.#line());
        return this.#refuse(
          `its pickle constructs ${name} as Python 2 does; save it again with Python 3`,
        );
      }
      case 0x93: { // STACK_GLOBAL
        const [module, name] = this.#popped(2);
        return this.#push(this.#global(module, name));
      }
      case 0x52: // REDUCE
      case 0x81: { // NEWOBJ
        const [callee, args] = this.#popped(2);
        return this.#push(this.#make(callee, args, code === 0x81));
      }
      case 0x92: { // NEWOBJ_EX
        const [callee, args, named] = this.#popped(3);
        if (!(named instanceof Map) || named.size) this.fail("a call without named arguments");
        return this.#push(this.#make(callee, args, true));
      }
      case 0x62: // BUILD
        return this.#build(this.#pop());
      case 0x51: // BINPERSID
        return this.#push(this.#options.persistent(this.#pop(), this));
    }
    // Refused by design: texts and persistent ids of Python 2, classes of Python 2, registered
    // extensions, out-of-band buffers.
    const hex = code.toString(16).padStart(2, "0");
    this.fail(`a supported pickle instruction, got 0x${hex}`);
  }

  #push(value: unknown): void {
    this.#stack.push(value);
  }

  /** Checks that at least `count` values are above the last mark. */
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

  #recall(index: number): unknown {
    const value = this.#memo.get(index);
    if (value === undefined) this.fail(`a memo with entry ${index}`);
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
      return this.fail("a Python name to be text");
    }
    const full = `${module}.${name}`;
    const found = this.#options.find(full);
    if (!found) return this.refuseName(full);
    if (found.unsure && !this.#unsure.has(found.name)) {
      this.#unsure.set(found.name, this.#instruction);
    }
    return found;
  }

  /** Makes the value of a call; `isNew` if the instruction calls `cls.__new__`. */
  #make(callee: unknown, args: unknown, isNew: boolean): unknown {
    if (!(callee instanceof PickleGlobal)) {
      return this.fail(`a constructor to call, got ${describe(callee)}`);
    }
    const { name, make, build, unsure } = callee;
    if (unsure === "new" && !isNew) return this.refuseName(name);
    if (!make) {
      return this.#refuse(
        `its pickle calls ${shorten(callee.name)}, which is not a data constructor`,
      );
    }
    if (!isTuple(args)) return this.fail(`the arguments of ${callee.name} to be a tuple`);
    const made = make(args, this);
    if (unsure) this.#unsure.set(name, undefined);
    if (build) this.#makers.set(made, callee);
    return made;
  }

  #build(state: unknown): void {
    const made = this.#top();
    const build = this.#makers.get(made)?.build;
    if (!build) return this.fail(`a value that takes attributes, got ${describe(made)}`);
    build(made, state, this);
  }

  /** A frame announces a length for read-ahead. Here it is only checked against the pickle. */
  #frame(): void {
    const length = this.#natural(8);
    if (this.#at < this.#frameEnd) this.fail("frames that do not nest");
    this.#frameEnd = this.#at + length;
    if (this.#frameEnd > this.#bytes.length) {
      this.fail(`a frame of at most ${this.#bytes.length - this.#at} bytes, got ${length}`);
    }
  }

  /** Skips bytes and returns the offset before them. */
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
      default: // a length: inexact above 2^53, but then too long anyway
        return Number(this.#view.getBigUint64(at, true));
    }
  }

  /** A little-endian integer in two's complement, of any length. */
  #integer(count: number): number | bigint {
    if (count > MAX_INTEGER_BYTES) {
      return this.fail(`an integer of at most ${MAX_INTEGER_BYTES} bytes, got ${count}`);
    }
    let hex = "";
    for (const byte of this.#take(count)) hex = byte.toString(16).padStart(2, "0") + hex;
    return toInteger(BigInt.asIntN(8 * count, BigInt(`0x0${hex}`)));
  }

  /** A decimal integer, or a bool, which protocol 1 writes as "00" or "01". */
  #decimal(): number | bigint | boolean {
    const text = this.#line();
    if (text === "00" || text === "01") return text === "01";
    if (!/^-?\d{1,2000}L?$/.test(text)) return this.fail("an integer");
    return toInteger(BigInt(text.replace("L", "")));
  }

  /** A memo's index in decimal. */
  #index(): number {
    const text = this.#line();
    return /^\d{1,10}$/.test(text) ? Number(text) : this.fail("an index of the memo");
  }

  /** A line in Latin-1, with the escapes of Python's raw-unicode-escape. */
  #escapedText(): string {
    const text = Array.from(this.#lineBytes(), (byte) => String.fromCharCode(byte)).join("");
    return text.replace(/\\u([\da-fA-F]{4})|\\U([\da-fA-F]{8})/g, (_, short, long) => {
      const code = parseInt(short ?? long, 16);
      return code <= 0x10ffff ? String.fromCodePoint(code) : this.fail("a code point");
    });
  }

  #text(count: number): string {
    return this.#decode(this.#take(count));
  }

  /** Text up to the end of the line. */
  #line(): string {
    return this.#decode(this.#lineBytes());
  }

  #lineBytes(): Uint8Array {
    const end = this.#bytes.indexOf(0x0a, this.#at);
    if (end < 0) return this.fail("the end of a line; the pickle is cut off");
    return this.#take(end + 1 - this.#at).subarray(0, -1);
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
