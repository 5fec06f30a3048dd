/**
 * Trace of a shader's memory accesses, without a GPU: one warp runs the text with integers computed
 * and other numbers unknown, and every array access is recorded.
 *
 *     text ── parse ──▶ lanes 0 … 31, one by one ──▶ accesses of each lane ── by site ──▶ of a warp
 *
 * A condition on unknown numbers counts as true. A loop runs `ITERATIONS` times at most: later
 * iterations repeat its pattern.
 *
 * @module
 */
import { type Expr, parseWgsl, type Statement, type WgslModule } from "./wgsl_parse.ts";

/** Lanes of a warp. */
export const WARP = 32;

/** Iterations of a loop that are traced. */
const ITERATIONS = 3;

/** One instruction of a warp: the bytes that each active lane moves, from its byte address on. */
export interface Access {
  readonly array: string;
  readonly space: "storage" | "workgroup";
  readonly how: "read" | "write";
  readonly bytes: number;
  /** Byte addresses within the array, of the active lanes in order. */
  readonly addresses: readonly number[];
}

/** A traced warp. */
export interface Trace {
  readonly accesses: readonly Access[];
  /** Most bytes that a lane has requested from storage before it uses the first of them. */
  readonly inFlight: number;
  /** Lanes of a workgroup. */
  readonly lanes: number;
}

/** The run of a shader to trace. */
export interface Run {
  readonly rows: number;
  readonly position: number;
  readonly slot: number;
  readonly length: number;
}

/** A number that only the device knows, and the last load that it depends on. */
class Unknown {
  constructor(readonly load: number) {}
}

type Value = number | boolean | Unknown | readonly Value[];

/** The names that a step sees. */
interface Scope {
  readonly names: Map<string, Value>;
  readonly outer?: Scope;
}

/** How a statement ends. */
type End = "break" | "continue" | { readonly returned: Value } | undefined;

/** Traces warp `warp` of workgroup `group` of `groups`. */
export function trace(
  wgsl: string,
  run: Run,
  { group, groups, warp = 0 }: { group: number; groups: number; warp?: number },
): Trace {
  const module = parseWgsl(wgsl);
  const first = warp * WARP;
  const sites = new Map<string, Access & { addresses: number[] }>();
  let inFlight = 0;
  for (let lane = first; lane < Math.min(first + WARP, module.lanes); lane++) {
    const traced = new Lane(module, run, sites);
    traced.main(lane, group, groups);
    inFlight = Math.max(inFlight, traced.mostInFlight);
  }
  return { accesses: [...sites.values()], inFlight, lanes: module.lanes };
}

class Lane {
  mostInFlight = 0;
  readonly #module: WgslModule;
  readonly #global: Scope = { names: new Map() };
  readonly #sites: Map<string, Access & { addresses: number[] }>;
  /** Number of accesses by site, to tell iterations apart. */
  readonly #counts = new Map<string, number>();
  /** Token positions of the calls that are being evaluated. */
  readonly #stack: number[] = [];
  /** Bytes of each load from storage that has not been waited for, by its number. */
  #pending: { load: number; bytes: number }[] = [];
  #loads = 0;

  constructor(module: WgslModule, run: Run, sites: Map<string, Access & { addresses: number[] }>) {
    this.#module = module;
    this.#sites = sites;
    for (const [name, value] of Object.entries(run)) this.#global.names.set(`run.${name}`, value);
    for (const [name, value] of module.constants) {
      this.#global.names.set(name, this.#evaluate(value, this.#global));
    }
  }

  main(lane: number, group: number, groups: number): void {
    const names = new Map<string, Value>([
      ["lane", lane],
      ["group", [group, 0, 0]],
      ["grid", [groups, 1, 1]],
    ]);
    this.#runAll(this.#module.functions.get("main")!.body, { names, outer: this.#global });
  }

  #runAll(body: readonly Statement[], outer: Scope): End {
    const scope = { names: new Map<string, Value>(), outer };
    for (const statement of body) {
      const end = this.#run(statement, scope);
      if (end) return end;
    }
    return undefined;
  }

  #run(statement: Statement, scope: Scope): End {
    switch (statement.kind) {
      case "declare": {
        const { name, value } = statement;
        scope.names.set(name, value ? this.#evaluate(value, scope) : new Unknown(0));
        return undefined;
      }
      case "assign":
        this.#assign(statement, scope);
        return undefined;
      case "call":
        this.#evaluate(statement.call, scope);
        return undefined;
      case "if": {
        const isTrue = this.#holds(statement.condition, scope);
        return this.#runAll(isTrue ? statement.then : statement.otherwise, scope);
      }
      case "for":
        return this.#loop(statement, scope);
      case "block":
        return this.#runAll(statement.body, scope);
      case "leave":
        return statement.how;
      case "return": {
        const { value } = statement;
        return { returned: value ? this.#evaluate(value, scope) : 0 };
      }
    }
  }

  #loop({ before, condition, after, body }: Statement & { kind: "for" }, outer: Scope): End {
    const scope = { names: new Map<string, Value>(), outer };
    if (before) this.#run(before, scope);
    for (let i = 0; i < ITERATIONS; i++) {
      if (condition && !this.#holds(condition, scope)) break;
      const end = this.#runAll(body, scope);
      if (end === "break") break;
      if (end && end !== "continue") return end;
      if (after) this.#run(after, scope);
    }
    return undefined;
  }

  #holds(condition: Expr, scope: Scope): boolean {
    const value = this.#evaluate(condition, scope);
    this.#wait(value);
    return value instanceof Unknown || Boolean(value);
  }

  #assign({ to, op, value }: Statement & { kind: "assign" }, scope: Scope): void {
    const operand = this.#evaluate(value, scope);
    const result = op ? this.#combine(op, this.#evaluate(to, scope), operand) : operand;
    const array = to.kind === "index" ? this.#arrayOf(to.of) : undefined;
    if (array && to.kind === "index") {
      this.#wait(result);
      this.#access(array, this.#evaluate(to.index, scope), "write", to.at);
      return;
    }
    const target = to.kind === "index" || to.kind === "member" ? to.of : to;
    const { name } = target as Expr & { kind: "name" };
    for (let at: Scope | undefined = scope; at; at = at.outer) {
      if (at.names.has(name)) {
        return void at.names.set(name, to === target ? result : new Unknown(0));
      }
    }
  }

  #evaluate(expr: Expr, scope: Scope): Value {
    switch (expr.kind) {
      case "integer":
        return expr.value;
      case "float":
        return new Unknown(0);
      case "name":
        return this.#lookUp(expr.name, scope);
      case "unary": {
        const value = this.#evaluate(expr.of, scope);
        if (expr.op === "!" && typeof value === "boolean") return !value;
        if (expr.op === "-" && typeof value === "number") return -value;
        return expr.op === "&" || expr.op === "*" ? value : this.#use(value);
      }
      case "binary":
        return this.#binary(expr, scope);
      case "member":
        return this.#member(expr, scope);
      case "index":
        return this.#index(expr, scope);
      case "call":
        return this.#call(expr, scope);
    }
  }

  #binary({ op, left, right }: Expr & { kind: "binary" }, scope: Scope): Value {
    const a = this.#evaluate(left, scope);
    if (op === "&&" && a === false) return false;
    if (op === "||" && a === true) return true;
    return this.#combine(op, a, this.#evaluate(right, scope));
  }

  #combine(op: string, a: Value, b: Value): Value {
    if (isPlain(a) && isPlain(b)) return arithmetic(op, Number(a), Number(b));
    if (Array.isArray(a) && Array.isArray(b)) return a.map((x, i) => this.#combine(op, x, b[i]));
    return this.#use(a, b);
  }

  #member({ of, name }: Expr & { kind: "member" }, scope: Scope): Value {
    if (of.kind === "name" && of.name === "run") return this.#lookUp(`run.${name}`, scope);
    const value = this.#evaluate(of, scope);
    return Array.isArray(value) && name.length === 1 ? value["xyzw".indexOf(name)] : value;
  }

  #index({ of, index, at }: Expr & { kind: "index" }, scope: Scope): Value {
    const place = this.#evaluate(index, scope);
    const array = this.#arrayOf(of);
    if (array) return this.#access(array, place, "read", at);
    const value = this.#evaluate(of, scope);
    return Array.isArray(value) && typeof place === "number" ? value[place] : value;
  }

  /** Name of the array that an expression is, or of a struct's. */
  #arrayOf(of: Expr): string | undefined {
    const name = of.kind === "name"
      ? of.name
      : of.kind === "member" && of.of.kind === "name"
      ? `${of.of.name}.${of.name}`
      : "";
    return this.#module.arrays.has(name) ? name : undefined;
  }

  #call({ name, args, at }: Expr & { kind: "call" }, scope: Scope): Value {
    const values = args.map((arg) => this.#evaluate(arg, scope));
    const called = this.#module.functions.get(name);
    if (called) {
      const names = new Map(called.parameters.map((parameter, i) => [parameter, values[i]]));
      this.#stack.push(at);
      const end = this.#runAll(called.body, { names, outer: this.#global });
      this.#stack.pop();
      return typeof end === "object" ? end.returned : 0;
    }
    return this.#builtin(name, values);
  }

  #builtin(name: string, values: readonly Value[]): Value {
    const plain = values.every(isPlain);
    // Kernels use these two results as integers only for the size of a subgroup.
    if (name === "subgroupAdd" || name === "workgroupUniformLoad") return WARP;
    if (name === "arrayLength") return 2 ** 30;
    if (plain && (name === "min" || name === "max")) {
      return Math[name](...values.map(Number));
    }
    if (plain && (name === "u32" || name === "i32")) return Number(values[0]);
    if (name === "select") {
      const [no, yes, condition] = values;
      if (typeof condition === "boolean") return condition ? yes : no;
      return latest(values);
    }
    if (/^vec[234]/.test(name)) {
      const count = Number(name[3]);
      if (plain) {
        return values.length === 1 ? Array<Value>(count).fill(values[0]) : [...values];
      }
      return latest(values);
    }
    if (/^[A-Z]/.test(name)) return [...values]; // a struct of them
    return this.#use(...values);
  }

  #lookUp(name: string, scope: Scope): Value {
    for (let at: Scope | undefined = scope; at; at = at.outer) {
      const value = at.names.get(name);
      if (value !== undefined) return value;
    }
    return new Unknown(0); // a scalar in workgroup memory, or a built-in constant
  }

  /** Records an access; returns what it reads. */
  #access(array: string, place: Value, how: Access["how"], at: number): Value {
    const { space, bytes } = this.#module.arrays.get(array)!;
    if (typeof place !== "number") return this.#use(place);
    const site = [...this.#stack, at, how].join(" ");
    const count = (this.#counts.get(site) ?? 0) + 1;
    this.#counts.set(site, count);
    const key = `${site} ${count}`;
    const access = this.#sites.get(key) ?? { array, space, how, bytes, addresses: [] };
    this.#sites.set(key, access);
    access.addresses.push(place * bytes);
    if (space !== "storage" || how !== "read") return new Unknown(0);
    this.#pending.push({ load: ++this.#loads, bytes });
    return new Unknown(this.#loads);
  }

  /** A result of arithmetic, which waits for its operands. */
  #use(...values: readonly Value[]): Value {
    for (const value of values) this.#wait(value);
    return new Unknown(0);
  }

  /** Loads return in order: all up to the last one that a value depends on. */
  #wait(value: Value): void {
    const { load } = latest([value]);
    if (load === 0) return;
    const bytes = this.#pending.reduce((sum, { bytes }) => sum + bytes, 0);
    this.#mostOf(bytes);
    this.#pending = this.#pending.filter((pending) => pending.load > load);
  }

  #mostOf(bytes: number): void {
    this.mostInFlight = Math.max(this.mostInFlight, bytes);
  }
}

function isPlain(value: Value): value is number | boolean {
  return typeof value === "number" || typeof value === "boolean";
}

/** The latest load that any of the values depends on. */
function latest(values: readonly Value[]): Unknown {
  let load = 0;
  for (const value of values) {
    if (value instanceof Unknown) load = Math.max(load, value.load);
    else if (Array.isArray(value)) load = Math.max(load, latest(value).load);
  }
  return new Unknown(load);
}

function arithmetic(op: string, a: number, b: number): Value {
  switch (op) {
    case "+":
      return (a + b) >>> 0;
    case "-":
      return (a - b) >>> 0;
    case "*":
      return Math.imul(a, b) >>> 0;
    case "/":
      return Math.floor(a / b);
    case "%":
      return a % b;
    case "<<":
      return (a << b) >>> 0;
    case ">>":
      return a >>> b;
    case "&":
      return (a & b) >>> 0;
    case "|":
      return (a | b) >>> 0;
    case "^":
      return (a ^ b) >>> 0;
    case "<":
      return a < b;
    case ">":
      return a > b;
    case "<=":
      return a <= b;
    case ">=":
      return a >= b;
    case "==":
      return a === b;
    case "!=":
      return a !== b;
    case "&&":
      return a !== 0 && b !== 0;
    case "||":
      return a !== 0 || b !== 0;
    default:
      throw new SyntaxError(`Cannot trace WGSL: expected an operator, got "${op}"`);
  }
}
