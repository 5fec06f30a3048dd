/**
 * Static scopes of names, as jinja2.idtracking.
 *
 * Loops, macros, `with`, `call`, filter blocks and set blocks have a scope each. A name assigned
 * anywhere in a scope belongs to it from its start. Its slot begins as a copy of the outer slot
 * (alias), as a variable of the template (resolve), or undefined. Branches of an `if` share the
 * surrounding scope.
 *
 *     {% set n = 0 %}              slot "0 n": undefined, then 0
 *     {% for m in messages %}      slot "1 m": parameter; "1 n": alias of "0 n" at each pass
 *       {% set n = n + 1 %}        sets "1 n"
 *     {% endfor %}{{ n }}          "0 n": still 0
 *
 * @module
 */
import {
  type Arguments,
  type Body,
  type Expression,
  type Statement,
  type Target,
  targetNames,
} from "./nodes.ts";

/** Initial value of a slot. */
export type Load =
  | { readonly from: "parameter" }
  | { readonly from: "undefined" }
  | { readonly from: "resolve"; readonly name: string }
  | { readonly from: "alias"; readonly slot: string };

/** The names of one scope. */
export class Scope {
  readonly level: number;
  /** Name → slot. */
  #slots = new Map<string, string>();
  #loads = new Map<string, Load>();
  #stores = new Set<string>();

  constructor(readonly parent: Scope | null = null) {
    this.level = parent ? parent.level + 1 : 0;
  }

  /** Initial values by slot. */
  get loads(): ReadonlyMap<string, Load> {
    return this.#loads;
  }

  /** The slot of a name, here or further out. */
  find(name: string): string | undefined {
    return this.#slots.get(name) ?? this.parent?.find(name);
  }

  /** The slot of a name that was seen before. */
  slot(name: string): string {
    return this.find(name) ?? this.#define(name, { from: "resolve", name });
  }

  #define(name: string, load: Load): string {
    const slot = `${this.level} ${name}`;
    this.#slots.set(name, slot);
    this.#loads.set(slot, load);
    return slot;
  }

  parameter(name: string): string {
    this.#stores.add(name);
    return this.#define(name, { from: "parameter" });
  }

  load(name: string): void {
    if (this.find(name) === undefined) this.#define(name, { from: "resolve", name });
  }

  store(name: string): void {
    this.#stores.add(name);
    if (this.#slots.has(name)) return;
    const outer = this.parent?.find(name);
    this.#define(
      name,
      outer === undefined ? { from: "undefined" } : { from: "alias", slot: outer },
    );
  }

  /** Names that are assigned here or further out, with their slots. */
  *assigned(): Generator<[name: string, slot: string]> {
    for (const name of this.#stores) yield [name, this.find(name)!];
    if (this.parent) yield* this.parent.assigned();
  }

  /** Visits alternative branches; a name that only some assign keeps its outer value in others. */
  branches(visits: readonly ((scope: Scope) => void)[]): void {
    const copies = visits.map((visit) => {
      const copy = this.#copy();
      visit(copy);
      return copy;
    });
    const stored = new Set(copies.flatMap((copy) => [...copy.#stores]));
    for (const name of this.#stores) stored.delete(name);
    for (const copy of copies) {
      for (const [name, slot] of copy.#slots) this.#slots.set(name, slot);
      for (const [slot, load] of copy.#loads) this.#loads.set(slot, load);
      for (const name of copy.#stores) this.#stores.add(name);
    }
    for (const name of stored) {
      const outer = this.parent?.find(name);
      this.#loads.set(
        this.find(name)!,
        outer === undefined ? { from: "resolve", name } : { from: "alias", slot: outer },
      );
    }
  }

  #copy(): Scope {
    const copy = new Scope(this.parent);
    copy.#slots = new Map(this.#slots);
    copy.#loads = new Map(this.#loads);
    copy.#stores = new Set(this.#stores);
    return copy;
  }

  /** Adds the names of statements, without the names of nested scopes. */
  visitBody(body: Body): void {
    for (const statement of body) this.visit(statement);
  }

  visit(statement: Statement): void {
    switch (statement.type) {
      case "Output":
        return this.visitExpression(statement.node);
      case "For":
        return this.visitExpression(statement.items);
      case "If":
        return this.#visitIf(statement.branches, statement.otherwise);
      case "Macro":
        return this.store(statement.name);
      case "CallBlock":
        return statement.call ? this.visitExpression(statement.call) : undefined;
      case "FilterBlock":
        return this.visitExpression(statement.filter);
      case "With":
        return statement.pairs.forEach(({ value }) => this.visitExpression(value));
      case "Set":
        this.visitExpression(statement.value);
        return this.visitTarget(statement.target);
      case "SetBlock":
        return this.visitTarget(statement.target);
    }
  }

  #visitIf(
    branches: readonly { readonly test: Expression; readonly body: Body }[],
    otherwise: Body,
  ): void {
    const [first, ...others] = branches;
    this.visitExpression(first.test);
    this.branches([
      (scope) => scope.visitBody(first.body),
      // Each elif is an if of its own, one after the other.
      (scope) => others.forEach((branch) => scope.#visitIf([branch], [])),
      (scope) => scope.visitBody(otherwise),
    ]);
  }

  visitTarget(target: Target): void {
    if (target.type === "Tuple") target.items.forEach((item) => this.visitTarget(item));
    else if (target.type === "Name") this.store(target.name);
    else this.load(target.name);
  }

  visitParameters(target: Target): void {
    for (const name of targetNames(target)) this.parameter(name);
  }

  visitExpression(expression: Expression): void {
    for (const name of loadedNames(expression)) this.load(name);
  }
}

/** The expressions directly within an expression. */
function children(node: Expression): readonly (Expression | null)[] {
  switch (node.type) {
    case "Const":
    case "Name":
      return [];
    case "Tuple":
    case "List":
    case "Concat":
      return node.items;
    case "Dict":
      return node.pairs.flatMap(({ key, value }) => [key, value]);
    case "Conditional":
      return [node.test, node.then, node.otherwise];
    case "And":
    case "Or":
    case "Binary":
      return [node.left, node.right];
    case "Not":
    case "Unary":
    case "Attribute":
      return [node.node];
    case "Compare":
      return [node.first, ...node.rest.map((operand) => operand.node)];
    case "Item":
      return [node.node, node.key];
    case "Slice":
      return [node.node, ...node.bounds];
    case "Call":
      return [node.callee, ...argumentsOf(node)];
    case "Filter":
    case "Test":
      return [node.node, ...argumentsOf(node)];
  }
}

function argumentsOf({ args, kwargs, rest, named }: Arguments): (Expression | null)[] {
  return [...args, ...kwargs.map(({ value }) => value), rest, named];
}

function* loadedNames(expression: Expression | null): Generator<string> {
  if (expression === null) return;
  if (expression.type === "Name") yield expression.name;
  for (const child of children(expression)) yield* loadedNames(child);
}

/** The subset of `names` that statements read before assigning them, in any scope. */
export function undeclared(body: Body, names: readonly string[]): Set<string> {
  const open = new Set(names);
  const found = new Set<string>();
  for (const [name, isStore] of mentions(body)) {
    if (isStore) open.delete(name);
    else if (open.has(name)) found.add(name);
  }
  return found;
}

/** Whether statements assign to a name, in whatever scope. */
export function assigns(body: Body, name: string): boolean {
  return mentions(body).some(([mentioned, isStore]) => isStore && mentioned === name);
}

/** Names in the order in which they are written, and whether each is assigned there. */
function* mentions(body: Body): Generator<[name: string, isStore: boolean]> {
  const loads = function* (...expressions: readonly (Expression | null)[]) {
    for (const expression of expressions) {
      for (const name of loadedNames(expression)) yield [name, false] as [string, boolean];
    }
  };
  const stores = function* (...names: readonly string[]) {
    for (const name of names) yield [name, true] as [string, boolean];
  };
  for (const node of body) {
    switch (node.type) {
      case "Output":
        yield* loads(node.node);
        break;
      case "For":
        yield* stores(...targetNames(node.target));
        yield* loads(node.items);
        yield* mentions(node.body);
        yield* mentions(node.otherwise);
        yield* loads(node.test);
        break;
      case "If":
        for (const branch of node.branches) {
          yield* loads(branch.test);
          yield* mentions(branch.body);
        }
        yield* mentions(node.otherwise);
        break;
      case "Macro":
      case "CallBlock":
        if (node.type === "CallBlock") yield* loads(node.call);
        yield* stores(...node.parameters);
        yield* loads(...node.defaults);
        yield* mentions(node.body);
        break;
      case "FilterBlock":
        yield* mentions(node.body);
        yield* loads(node.filter);
        break;
      case "With":
        for (const { target } of node.pairs) yield* stores(...targetNames(target));
        yield* loads(...node.pairs.map(({ value }) => value));
        yield* mentions(node.body);
        break;
      case "Set":
        yield* stores(...targetNames(node.target));
        yield* loads(node.value);
        break;
      case "SetBlock":
        yield* stores(...targetNames(node.target));
        yield* loads(node.filter);
        yield* mentions(node.body);
        break;
    }
  }
}
