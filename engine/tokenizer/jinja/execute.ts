/**
 * Statements as functions: each node of the syntax tree becomes a closure that writes text. Scopes
 * are entered and left as in the Python code that Jinja's compiler writes.
 *
 * @module
 */
import { TemplateError } from "./errors.ts";
import { compile, compileBlockFilter, compileCall, type Evaluate, type Site } from "./evaluate.ts";
import type { Body, CallBlockNode, ForNode, MacroNode, Statement, Target } from "./nodes.ts";
import { toText } from "./repr.ts";
import { Frame, Loop, Macro, type MacroShape, Namespace, Output, unpack } from "./runtime.ts";
import { assigns, Scope, undeclared } from "./scope.ts";
import { fail, isTrue, iterate, Lazy, Tuple, Undefined, type Value } from "./values.ts";

/** Why a body ended before its end. */
type Signal = "break" | "continue" | undefined;

type Run = (frame: Frame, out: Output) => Signal;

/** Compile-time surroundings of a statement. */
interface Place extends Site {
  /** Assignments here set variables of the template. */
  readonly isTopLevel: boolean;
  /** Within the body of a loop, of the same function. */
  readonly isInLoop: boolean;
  readonly blocks: Set<string>;
}

/**
 * Compiles a template.
 * @throws {TemplateError} If it cannot be run, as with a filter that does not exist.
 */
export function compileTemplate(body: Body): Run {
  const scope = new Scope();
  scope.visitBody(body);
  const place = {
    scope,
    isSoft: false,
    isTopLevel: true,
    isInLoop: false,
    blocks: new Set<string>(),
  };
  const run = compileBody(body, place);
  return (frame, out) => {
    enter(scope, frame);
    return run(frame, out);
  };
}

/** A scope within, which is neither the top level nor soft. */
function inner(place: Place, scope = new Scope(place.scope)): Place {
  return { ...place, scope, isSoft: false, isTopLevel: false };
}

function enter(scope: Scope, frame: Frame): void {
  for (const [slot, load] of scope.loads) {
    if (load.from === "resolve") frame.set(slot, frame.context.resolve(load.name));
    else if (load.from === "alias") frame.set(slot, frame.get(load.slot));
    else if (load.from === "undefined") frame.set(slot, undefined);
  }
}

function leave(scope: Scope, frame: Frame): void {
  for (const slot of scope.loads.keys()) frame.set(slot, undefined);
}

function compileBody(body: Body, place: Place): Run {
  const runs = body.map((statement) => compileStatement(statement, place));
  return (frame, out) => {
    for (const run of runs) {
      const signal = run(frame, out);
      if (signal !== undefined) return signal;
    }
  };
}

function compileStatement(node: Statement, place: Place): Run {
  switch (node.type) {
    case "Data":
      return (_, out) => out.write(node.text) as undefined;
    case "Output": {
      const value = compile(node.node, place);
      return (frame, out) => out.write(toText(value(frame))) as undefined;
    }
    case "If":
      return compileIf(node, place);
    case "For":
      return compileFor(node, place);
    case "Macro":
      return compileMacro(node, place);
    case "CallBlock":
      return compileCallBlock(node, place);
    case "With":
      return compileWith(node, place);
    case "Set": {
      const [value, assign] = [compile(node.value, place), compileTarget(node.target, place)];
      return (frame) => assign(frame, value(frame)) as undefined;
    }
    case "SetBlock":
    case "FilterBlock":
      return compileCapture(node, place);
    case "Block":
      return compileBlock(node, place);
    case "Break":
    case "Continue": {
      const signal = node.type === "Break" ? "break" : "continue";
      if (!place.isInLoop) throw new TemplateError(`'${signal}' outside of a loop`);
      return () => signal;
    }
  }
}

function compileIf(node: Statement & { readonly type: "If" }, place: Place): Run {
  const soft = { ...place, isSoft: true };
  const branches = node.branches.map(({ test, body }) => ({
    test: compile(test, soft),
    run: compileBody(body, soft),
  }));
  const otherwise = compileBody(node.otherwise, soft);
  return (frame, out) => {
    for (const { test, run } of branches) if (isTrue(test(frame))) return run(frame, out);
    return otherwise(frame, out);
  };
}

/** An assignment to a name, an attribute of a namespace, or a tuple of both. */
function compileTarget(target: Target, place: Place): (frame: Frame, value: Value) => void {
  if (target.type === "Tuple") {
    const items = target.items.map((item) => compileTarget(item, place));
    return (frame, value) => {
      for (const [i, item] of unpack(value, items.length).entries()) items[i](frame, item);
    };
  }
  const slot = place.scope.slot(target.name);
  if (target.type === "NamespaceTarget") {
    return (frame, value) => {
      const space = frame.get(slot);
      if (!(space instanceof Namespace)) fail("cannot assign attribute on non-namespace object");
      (space as Namespace).set(target.attribute, value);
    };
  }
  if (!place.isTopLevel) return (frame, value) => frame.set(slot, value);
  return (frame, value) => {
    frame.set(slot, value);
    frame.context.assigned.set(target.name, value);
  };
}

/** A compiled loop. */
interface LoopParts {
  readonly scope: Scope;
  /** Slot of `loop`; undefined if the body does not use it. */
  readonly loopSlot: string | undefined;
  readonly assign: (frame: Frame, value: Value) => void;
  /** Items that pass the loop's test. */
  readonly choose: ((frame: Frame, source: Value) => Iterable<Value>) | null;
  readonly body: Run;
  readonly otherwise: Run | null;
}

type Recurse = ((items: Value) => string) | null;

function compileFor(node: ForNode, place: Place): Run {
  if (assigns([node], "loop")) throw new TemplateError("can't assign to loop within a loop");
  const items = compile(node.items, place);
  const parts = compileLoop(node, place);
  if (!node.isRecursive) return (frame, out) => runLoop(parts, frame, out, items(frame), 0, null);
  return (frame, out) => {
    const render = (source: Value, depth: number): string => {
      const text = new Output();
      const own = new Frame(frame.context, frame);
      runLoop(parts, own, text, source, depth, (deeper) => render(deeper, depth + 1));
      return text.text;
    };
    out.write(render(items(frame), 0));
  };
}

function compileLoop(node: ForNode, place: Place): LoopParts {
  const scope = new Scope(place.scope);
  const needsLoop = node.isRecursive || undeclared(node.body, ["loop"]).size > 0 ||
    node.body.some(hasScopedBlock);
  const loopSlot = needsLoop ? scope.parameter("loop") : undefined;
  scope.visitParameters(node.target);
  scope.visitBody(node.body);
  const inside = inner(place, scope);
  const assign = compileTarget(node.target, inside);
  return {
    scope,
    loopSlot,
    assign,
    choose: node.test && compileTest(node, assign, place),
    body: compileBody(node.body, { ...inside, isInLoop: true }),
    otherwise: node.otherwise.length > 0 ? compileElse(node, place) : null,
  };
}

function compileElse(node: ForNode, place: Place): Run {
  const scope = new Scope(place.scope);
  scope.visitBody(node.otherwise);
  const isInLoop = place.isInLoop && !node.isRecursive;
  const body = compileBody(node.otherwise, { ...inner(place, scope), isInLoop });
  return (frame, out) => {
    enter(scope, frame);
    const signal = body(frame, out);
    leave(scope, frame);
    return signal;
  };
}

function runLoop(
  { scope, loopSlot, assign, choose, body, otherwise }: LoopParts,
  frame: Frame,
  out: Output,
  source: Value,
  depth: number,
  recurse: Recurse,
): Signal {
  const chosen = choose ? new Lazy(choose(frame, source)) : source;
  const loop = new Loop(iterate(chosen), chosen, depth, recurse);
  let isEmpty = true;
  for (let item; (item = loop.next()) !== undefined;) {
    frame.context.budget.take();
    assign(frame, item);
    if (loopSlot !== undefined) frame.set(loopSlot, loop);
    enter(scope, frame);
    const signal = body(frame, out);
    if (signal === "break") break;
    // As in Jinja: an iteration cut short by break or continue does not keep `else` from running.
    if (signal === undefined) isEmpty = false;
  }
  leave(scope, frame);
  return isEmpty ? otherwise?.(frame, out) : undefined;
}

/** The items for which a loop's test holds. */
function compileTest(
  node: ForNode,
  assign: (frame: Frame, value: Value) => void,
  place: Place,
): (frame: Frame, source: Value) => Generator<Value> {
  const scope = new Scope(place.scope);
  scope.visitParameters(node.target);
  scope.visitExpression(node.test!);
  const test = compile(node.test!, inner(place, scope));
  // Jinja's generator yields an unpacked item as a tuple.
  const rebuild = (target: Target, frame: Frame, item: Value): Value =>
    target.type === "Tuple"
      ? new Tuple(
        target.items.map((part) =>
          rebuild(part, frame, part.type === "Tuple" ? null : frame.get(scope.slot(part.name))!)
        ),
      )
      : item;
  return function* (outer, source) {
    const frame = new Frame(outer.context, outer);
    enter(scope, frame);
    for (const item of iterate(source)) {
      frame.context.budget.take();
      assign(frame, item);
      if (isTrue(test(frame))) yield rebuild(node.target, frame, item);
    }
  };
}

function hasScopedBlock(node: Statement): boolean {
  switch (node.type) {
    case "Block":
      return node.isScoped || node.body.some(hasScopedBlock);
    case "If":
      return [...node.branches.flatMap(({ body }) => body), ...node.otherwise].some(hasScopedBlock);
    case "For":
      return [...node.body, ...node.otherwise].some(hasScopedBlock);
    case "With":
    case "FilterBlock":
    case "SetBlock":
    case "Macro":
    case "CallBlock":
      return node.body.some(hasScopedBlock);
  }
  return false;
}

/**
 * The function of a macro or of a call block's body: makes the macro in the frame where it is
 * defined.
 */
function compileFunction(
  node: MacroNode | CallBlockNode,
  place: Place,
): (frame: Frame) => Macro {
  const scope = new Scope(place.scope);
  for (const name of node.parameters) scope.parameter(name);
  for (const value of node.defaults) scope.visitExpression(value);
  scope.visitBody(node.body);
  const special = undeclared(node.body, ["caller", "kwargs", "varargs"]);
  const takes = (name: string) => special.has(name) && !node.parameters.includes(name);
  const hasDefault = (name: string) =>
    node.parameters.indexOf(name) >= node.parameters.length - node.defaults.length;
  if (special.has("caller") && node.parameters.includes("caller") && !hasDefault("caller")) {
    throw new TemplateError("expected a default for the parameter caller");
  }
  const shape: MacroShape = {
    name: node.type === "Macro" ? node.name : null,
    parameters: node.parameters,
    takesCaller: special.has("caller"),
    takesKwargs: takes("kwargs"),
    takesVarargs: takes("varargs"),
  };
  for (const name of special) if (takes(name)) scope.parameter(name);
  const inside = { ...inner(place, scope), isInLoop: false };
  const defaults = node.defaults.map((value) => compile(value, inside));
  const slots = new Map([...node.parameters, ...special].map((name) => [name, scope.slot(name)]));
  const body = compileBody(node.body, inside);
  return (outer) =>
    new Macro(shape, (values) => {
      const frame = new Frame(outer.context, outer);
      for (const [name, slot] of slots) frame.set(slot, values.get(name));
      enter(scope, frame);
      fillDefaults(node.parameters, slots, defaults, frame);
      const out = new Output();
      body(frame, out);
      return out.text;
    });
}

function fillDefaults(
  parameters: readonly string[],
  slots: ReadonlyMap<string, string>,
  defaults: readonly Evaluate[],
  frame: Frame,
): void {
  for (const [i, name] of parameters.entries()) {
    const slot = slots.get(name)!;
    if (frame.get(slot) !== undefined) continue;
    const value = defaults[i - parameters.length + defaults.length];
    frame.set(slot, value ? value(frame) : new Undefined(`parameter '${name}' was not provided`));
  }
}

function compileMacro(node: MacroNode, place: Place): Run {
  const define = compileFunction(node, place);
  const assign = compileTarget({ type: "Name", name: node.name }, place);
  return (frame) => assign(frame, define(frame)) as undefined;
}

function compileCallBlock(node: CallBlockNode, place: Place): Run {
  const define = compileFunction(node, place);
  if (!node.call) {
    return (frame, out) => out.write(toText(define(frame).call([], new Map()))) as undefined;
  }
  const call = compileCall(node.call, place, define);
  return (frame, out) => out.write(toText(call(frame))) as undefined;
}

function compileWith(node: Statement & { readonly type: "With" }, place: Place): Run {
  const scope = new Scope(place.scope);
  for (const { target } of node.pairs) scope.visitParameters(target);
  scope.visitBody(node.body);
  const inside = inner(place, scope);
  const pairs = node.pairs.map(({ target, value }) => ({
    assign: compileTarget(target, inside),
    value: compile(value, place),
  }));
  const body = compileBody(node.body, inside);
  return (frame, out) => {
    enter(scope, frame);
    for (const { assign, value } of pairs) assign(frame, value(frame));
    const signal = body(frame, out);
    leave(scope, frame);
    return signal;
  };
}

/** `{% filter %}` writes the captured text, `{% set %}` assigns it. */
function compileCapture(
  node: Statement & { readonly type: "SetBlock" | "FilterBlock" },
  place: Place,
): Run {
  const scope = new Scope(place.scope);
  if (node.type === "FilterBlock") scope.visitExpression(node.filter);
  scope.visitBody(node.body);
  const inside = inner(place, scope);
  const body = compileBody(node.body, inside);
  const filter = node.filter && compileBlockFilter(node.filter, inside);
  const assign = node.type === "SetBlock" ? compileTarget(node.target, place) : null;
  return (frame, out) => {
    const captured = new Output();
    enter(scope, frame);
    const signal = body(frame, captured);
    if (signal !== undefined) return signal;
    const value = filter ? filter(frame, captured.text) : captured.text;
    if (assign) assign(frame, value);
    else out.write(toText(value));
    leave(scope, frame);
  };
}

/**
 * A block of a template without a parent. It sees only the template's variables; a scoped block
 * also sees the variables of the surrounding scopes.
 */
function compileBlock(node: Statement & { readonly type: "Block" }, place: Place): Run {
  if (place.blocks.has(node.name)) throw new TemplateError(`block '${node.name}' defined twice`);
  place.blocks.add(node.name);
  const scope = new Scope();
  scope.visitBody(node.body);
  const body = compileBody(node.body, { ...inner(place, scope), isInLoop: false });
  return (frame, out) => {
    const around: [string, Value][] = [];
    for (const [name, slot] of node.isScoped ? place.scope.assigned() : []) {
      const value = frame.get(slot);
      if (value !== undefined) around.unshift([name, value]); // the innermost comes last
    }
    const own = new Frame(node.isScoped ? frame.context.derive(around) : frame.context);
    enter(scope, own);
    body(own, out);
    return undefined;
  };
}
