/**
 * WebAssembly disassembler: a module's bytes as text in the flat form, one instruction per line.
 *
 * It supports the output of `assembler.ts` only: sections of types, imports, functions, globals,
 * exports and code, and the operations that kernels use.
 *
 * @module
 */

/** Kinds of immediates that follow an opcode. */
type Immediate =
  | "index"
  | "local"
  | "memory"
  | "i32"
  | "i64"
  | "f32"
  | "f64"
  | "block"
  | "lane"
  | "bytes";

/** Name, opcode (after the prefix, if any), immediates. */
type Row = readonly [name: string, code: number, ...immediates: Immediate[]];

const PLAIN: readonly Row[] = [
  ["loop", 0x03, "block"],
  ["if", 0x04, "block"],
  ["else", 0x05],
  ["end", 0x0b],
  ["br", 0x0c, "index"],
  ["br_if", 0x0d, "index"],
  ["return", 0x0f],
  ["call", 0x10, "index"],
  ["drop", 0x1a],
  ["select", 0x1b],
  ["local.get", 0x20, "local"],
  ["local.set", 0x21, "local"],
  ["local.tee", 0x22, "local"],
  ["global.get", 0x23, "index"],
  ["global.set", 0x24, "index"],
  ["i32.load", 0x28, "memory"],
  ["i64.load", 0x29, "memory"],
  ["f32.load", 0x2a, "memory"],
  ["f64.load", 0x2b, "memory"],
  ["i32.store", 0x36, "memory"],
  ["f32.store", 0x38, "memory"],
  ["f64.store", 0x39, "memory"],
  ["i64.store32", 0x3e, "memory"],
  ["i32.const", 0x41, "i32"],
  ["i64.const", 0x42, "i64"],
  ["f32.const", 0x43, "f32"],
  ["f64.const", 0x44, "f64"],
  ...names("i32", 0x45, "eqz eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u"),
  ...names("i64", 0x50, "eqz eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u"),
  ...names("f32", 0x5b, "eq ne lt gt le ge"),
  ...names("f64", 0x61, "eq ne lt gt le ge"),
  ...(["i32", "i64"] as const).flatMap((type, i) =>
    names(
      type,
      0x67 + 18 * i,
      "clz ctz popcnt add sub mul div_s div_u rem_s rem_u and or xor shl shr_s shr_u rotl rotr",
    )
  ),
  ...names(
    "f32",
    0x8b,
    "abs neg ceil floor trunc nearest sqrt add sub mul div min max copysign",
  ),
  ...names(
    "f64",
    0x99,
    "abs neg ceil floor trunc nearest sqrt add sub mul div min max copysign",
  ),
  ["i32.wrap_i64", 0xa7],
  ["i32.trunc_f32_s", 0xa8],
  ["i32.trunc_f32_u", 0xa9],
  ["i64.extend_i32_u", 0xad],
  ["f32.convert_i32_s", 0xb2],
  ["f32.demote_f64", 0xb6],
  ["f64.convert_i32_s", 0xb7],
  ["f64.convert_i32_u", 0xb8],
  ["f64.promote_f32", 0xbb],
  ["i32.reinterpret_f32", 0xbc],
  ["f32.reinterpret_i32", 0xbe],
];

const SIMD: readonly Row[] = [
  ["v128.load", 0, "memory"],
  ["v128.load16x4_u", 4, "memory"],
  ["v128.load32_splat", 9, "memory"],
  ["v128.load64_splat", 10, "memory"],
  ["v128.store", 11, "memory"],
  ["v128.const", 12, "bytes"],
  ["i8x16.shuffle", 13, "bytes"],
  ["i8x16.swizzle", 14],
  ["i32x4.splat", 17],
  ["f32x4.splat", 19],
  ["f64x2.splat", 20],
  ["i32x4.extract_lane", 27, "lane"],
  ["f32x4.extract_lane", 31, "lane"],
  ["f32x4.replace_lane", 32, "lane"],
  ["f64x2.extract_lane", 33, "lane"],
  ...names("i8x16", 35, "eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u"),
  ...names("i16x8", 45, "eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u"),
  ...names("i32x4", 55, "eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u"),
  ...names("f32x4", 65, "eq ne lt gt le ge"),
  ...names("v128", 77, "not and andnot or xor bitselect any_true"),
  ["v128.load16_lane", 85, "memory", "lane"],
  ["v128.load32_lane", 86, "memory", "lane"],
  ["v128.store32_lane", 90, "memory", "lane"],
  ["v128.load32_zero", 92, "memory"],
  ["v128.load64_zero", 93, "memory"],
  ["f32x4.demote_f64x2_zero", 94],
  ["f64x2.promote_low_f32x4", 95],
  ["i8x16.bitmask", 100],
  ["i8x16.narrow_i16x8_s", 101],
  ["i8x16.narrow_i16x8_u", 102],
  ["f32x4.floor", 104],
  ["i32x4.extadd_pairwise_i16x8_s", 126],
  ["i16x8.narrow_i32x4_s", 133],
  ["i16x8.narrow_i32x4_u", 134],
  ["i16x8.extend_low_i8x16_s", 135],
  ["i16x8.extend_high_i8x16_s", 136],
  ...names("i16x8", 139, "shl shr_s shr_u add"),
  ["i16x8.mul", 149],
  ["i16x8.max_s", 152],
  ["i32x4.all_true", 163],
  ["i32x4.bitmask", 164],
  ["i32x4.extend_low_i16x8_s", 167],
  ["i32x4.extend_high_i16x8_s", 168],
  ["i32x4.extend_low_i16x8_u", 169],
  ["i32x4.extend_high_i16x8_u", 170],
  ...names("i32x4", 171, "shl shr_s shr_u add"),
  ["i32x4.sub", 177],
  ...names("i32x4", 181, "mul min_s min_u max_s max_u dot_i16x8_s"),
  ["i64x2.extend_low_i32x4_s", 199],
  ["i64x2.extend_high_i32x4_s", 200],
  ["i64x2.extend_low_i32x4_u", 201],
  ["i64x2.extend_high_i32x4_u", 202],
  ["f32x4.abs", 224],
  ["f32x4.neg", 225],
  ...names("f32x4", 227, "sqrt add sub mul div min max pmin pmax"),
  ...names("f64x2", 240, "add sub mul div"),
  ["i32x4.trunc_sat_f32x4_s", 248],
  ["f32x4.convert_i32x4_s", 250],
  ["f32x4.convert_i32x4_u", 251],
  ["f32x4.relaxed_madd", 0x105],
  ["i16x8.relaxed_dot_i8x16_i7x16_s", 0x112],
  ["i32x4.relaxed_dot_i8x16_i7x16_add_s", 0x113],
];

const ATOMIC: readonly Row[] = [
  ["memory.atomic.notify", 0x00, "memory"],
  ["memory.atomic.wait32", 0x01, "memory"],
  ["i32.atomic.load", 0x10, "memory"],
  ["i32.atomic.store", 0x17, "memory"],
  ["i32.atomic.rmw.add", 0x1e, "memory"],
  ["i32.atomic.rmw.cmpxchg", 0x48, "memory"],
];

/** Rows of operations with consecutive opcodes. */
function names(type: string, first: number, operations: string): Row[] {
  return operations.split(" ").map((name, i) => [`${type}.${name}`, first + i]);
}

const tableOf = (rows: readonly Row[]) => new Map(rows.map((row) => [row[1], row]));
const OPERATIONS: Readonly<Record<"plain" | "simd" | "atomic", ReadonlyMap<number, Row>>> = {
  plain: tableOf(PLAIN),
  simd: tableOf(SIMD),
  atomic: tableOf(ATOMIC),
};

const TYPES: Readonly<Record<number, string>> = {
  0x7f: "i32",
  0x7e: "i64",
  0x7d: "f32",
  0x7c: "f64",
  0x7b: "v128",
};

/** A cursor over the bytes. */
class Reader {
  at = 0;

  constructor(readonly bytes: Uint8Array) {}

  byte(): number {
    return this.bytes[this.at++];
  }

  unsigned(): number {
    let value = 0;
    for (let shift = 0;; shift += 7) {
      const byte = this.byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  }

  signed(): number {
    const start = this.at;
    const value = this.unsigned();
    const bits = 7 * (this.at - start);
    return this.bytes[this.at - 1] & 0x40 ? value - 2 ** bits : value;
  }

  take(count: number): Uint8Array {
    return this.bytes.subarray(this.at, this.at += count);
  }

  float(size: 4 | 8): number {
    const view = new DataView(Uint8Array.from(this.take(size)).buffer);
    return size === 4 ? view.getFloat32(0, true) : view.getFloat64(0, true);
  }

  name(): string {
    return new TextDecoder().decode(this.take(this.unsigned()));
  }

  /** A vector: its length, then its elements. */
  list<R>(read: () => R): R[] {
    return Array.from({ length: this.unsigned() }, read);
  }

  types(): string[] {
    return this.list(() => TYPES[this.byte()]);
  }
}

/** A function as text, its code size in bytes, and the indices of the functions it calls. */
export interface FunctionText {
  readonly lines: readonly string[];
  readonly bytes: number;
  readonly callees: readonly number[];
}

/** The parts of a module as text. */
export interface ModuleText {
  /** Imports and globals. */
  readonly head: readonly string[];
  readonly exports: readonly string[];
  /** Defined functions, by index; imported ones are in `head`. */
  readonly functions: ReadonlyMap<number, FunctionText>;
}

/** Parameter and variable names of each function of a module, by index. */
export type LocalNames = readonly (readonly string[])[];

/**
 * Disassembles a module.
 * @throws {TypeError} If it has an operation that no kernel uses.
 */
export function moduleText(bytes: Uint8Array, names: LocalNames): string {
  const { head, exports, functions } = readModule(bytes, names);
  const bodies = [...functions.values()].flatMap(({ lines }) => lines);
  return ["(module", ...head, ...exports, ...bodies, ")", ""].join("\n");
}

/**
 * Text of a function and of the functions that it calls, directly or indirectly. They are
 * renumbered, so that a kernel has the same text in every module.
 */
export function functionText(
  { functions }: ModuleText,
  index: number,
): { readonly text: string; readonly bytes: number } {
  const reached = new Set([index]);
  for (const next of reached) functions.get(next)?.callees.forEach((callee) => reached.add(callee));
  const parts = [...functions].filter(([i]) => reached.has(i));
  const [first] = functions.keys(); // imported functions come first and keep their numbers
  const numbers = new Map(parts.map(([i], place) => [`${i}`, `${first + place}`]));
  const renumber = (line: string) =>
    line.replace(/^( *(?:call |\(func \$))(\d+)/, (_, before, i) => before + (numbers.get(i) ?? i));
  const lines = parts.flatMap(([, part]) => part.lines.map(renumber));
  const bytes = parts.reduce((sum, [, part]) => sum + part.bytes, 0);
  return { text: [...lines, ""].join("\n"), bytes };
}

/**
 * Disassembles a module into its parts.
 * @throws {TypeError} If it has an operation that no kernel uses.
 */
export function readModule(bytes: Uint8Array, names: LocalNames): ModuleText {
  const reader = new Reader(bytes);
  reader.take(8); // magic and version
  const head: string[] = [];
  const exports: string[] = [];
  const functions = new Map<number, FunctionText>();
  let signatures: Signature[] = [];
  let types: number[] = [];
  /** Imported functions so far; they precede the defined ones. */
  let imported = 0;
  const limits = () => {
    const flags = reader.byte();
    const least = reader.unsigned();
    const most = flags & 1 ? ` ${reader.unsigned()}` : "";
    return `${flags & 4 ? "i64 " : ""}${least}${most}${flags & 2 ? " shared" : ""}`;
  };
  const sections: Readonly<Record<number, () => void>> = {
    1: () => {
      signatures = reader.list(() => {
        reader.byte(); // a function's type
        return { params: reader.types(), results: reader.types() };
      });
    },
    2: () => {
      reader.list(() => {
        const field = `"${reader.name()}" "${reader.name()}"`;
        const what = reader.byte() === 2
          ? `(memory ${limits()})`
          : `(func $${imported++}${signatureText(signatures[reader.unsigned()])})`;
        head.push(`  (import ${field} ${what})`);
      });
    },
    3: () => types = reader.list(() => reader.unsigned()),
    6: () => {
      reader.list(() => {
        const type = TYPES[reader.byte()];
        const changes = reader.byte() === 1;
        head.push(`  (global ${changes ? `(mut ${type})` : type} (${instruction(reader)}))`);
        reader.byte(); // end
      });
    },
    7: () => {
      reader.list(() => {
        const field = reader.name();
        reader.byte(); // a function
        exports.push(`  (export "${field}" (func $${reader.unsigned()}))`);
      });
    },
    10: () => {
      const bodies = reader.list(() => reader.take(reader.unsigned()));
      for (const [i, body] of bodies.entries()) {
        const index = imported + i;
        const signature = signatures[types[i]];
        const named = unique(names[index]);
        const lines = [
          `  (func $${index}${signatureText(signature, named)}`,
          ...bodyText(body, named, signature.params.length),
          "  )",
        ];
        const callees = lines.map((line) => /^ *call (\d+)$/.exec(line)?.[1])
          .filter((callee) => callee !== undefined).map(Number);
        functions.set(index, { lines, bytes: body.length, callees });
      }
    },
  };
  while (reader.at < bytes.length) {
    const id = reader.byte();
    const end = reader.unsigned() + reader.at;
    sections[id]?.();
    reader.at = end;
  }
  return { head, exports, functions };
}

interface Signature {
  readonly params: readonly string[];
  readonly results: readonly string[];
}

/** Parameters and results of a function; an imported function has no parameter names. */
function signatureText({ params, results }: Signature, names?: readonly string[]): string {
  return params.map((type, i) => ` (param ${names ? `$${names[i]} ` : ""}${type})`).join("") +
    results.map((type) => ` (result ${type})`).join("");
}

/** Makes a function's variable names unique: a repeated name gets the variable's index. */
function unique(names: readonly string[]): string[] {
  return names.map((name, i) => names.indexOf(name) < i ? `${name}_${i}` : name);
}

/** Lines of a function's body: variables, then instructions. */
function bodyText(body: Uint8Array, names: readonly string[], params: number): string[] {
  const reader = new Reader(body);
  const locals = reader.list(() => Array(reader.unsigned()).fill(TYPES[reader.byte()])).flat();
  const lines = locals.map((type, i) => `    (local $${names[params + i]} ${type})`);
  let depth = 2;
  while (reader.at < body.length - 1) { // the last byte is the function's `end`
    const text = instruction(reader, names);
    if (text === "end" || text === "else") depth--;
    lines.push("  ".repeat(depth) + text);
    if (text === "loop" || text === "if" || text === "else") depth++;
  }
  return lines;
}

function instruction(reader: Reader, names: readonly string[] = []): string {
  const first = reader.byte();
  const kind = first === 0xfd ? "simd" : first === 0xfe ? "atomic" : "plain";
  const code = kind === "plain" ? first : reader.unsigned();
  const row = OPERATIONS[kind].get(code);
  if (!row) {
    throw new TypeError(
      `Cannot disassemble a module: expected an operation that kernels use, got ${kind} 0x${
        code.toString(16)
      }; add it to the tables of text.ts`,
    );
  }
  const [name, , ...immediates] = row;
  return [name, ...immediates.map((immediate) => immediateText(reader, immediate, names))]
    .filter((part) => part !== "").join(" ");
}

function immediateText(
  reader: Reader,
  immediate: Immediate,
  names: readonly string[],
): string {
  switch (immediate) {
    case "index":
      return `${reader.unsigned()}`;
    case "local":
      return `$${names[reader.unsigned()]}`;
    case "memory": {
      reader.unsigned(); // alignment
      const offset = reader.unsigned();
      return offset > 0 ? `offset=${offset}` : "";
    }
    case "i32":
    case "i64":
      return `${reader.signed()}`;
    case "f32":
      return `${reader.float(4)}`;
    case "f64":
      return `${reader.float(8)}`;
    case "block":
      reader.byte(); // block type: no result
      return "";
    case "lane":
      return `${reader.byte()}`;
    case "bytes":
      return [...reader.take(16)].join(" ");
  }
}
