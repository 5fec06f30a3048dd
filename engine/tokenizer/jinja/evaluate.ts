/**
 * Expressions as functions: each node of the syntax tree becomes a closure from a frame to a value.
 *
 * @module
 */
import { getAttribute, getItem, getSlice } from "./attributes.ts";
import { COMPARISONS } from "./compare.ts";
import { FILTERS } from "./filters.ts";
import type { Arguments, CallNode, Expression, FilterNode } from "./nodes.ts";
import { negate } from "./numbers.ts";
import { join, operate } from "./operators.ts";
import { quote } from "./repr.ts";
import type { Frame } from "./runtime.ts";
import type { Scope } from "./scope.ts";
import { type Filter, find, type Tables } from "./tables.ts";
import { TESTS } from "./tests.ts";
import {
  Dict,
  fail,
  isTrue,
  iterate,
  type Kwargs,
  orElse,
  textOf,
  Thing,
  Tuple,
  Undefined,
  type Value,
} from "./values.ts";

const TABLES: Tables = { filters: FILTERS, tests: TESTS };

export type Evaluate = (frame: Frame) => Value;

/** Compile-time surroundings of an expression. */
export interface Site {
  readonly scope: Scope;
  /** Inside an `if`: an unknown filter or test fails when it is reached, not at compile time. */
  readonly isSoft: boolean;
}

type Run<Result> = (...given: Parameters<Filter>) => Result;

/** Kinds of nodes that create values; other nodes return existing ones. */
const MAKERS = new Set(["Binary", "Call", "Concat", "Dict", "Filter", "List", "Slice", "Tuple"]);

/**
 * Compiles an expression.
 * @throws {TemplateError} If it names a filter or a test that does not exist.
 */
export function compile(node: Expression, site: Site): Evaluate {
  const evaluate = compileNode(node, site);
  if (node.type === "Const") return evaluate;
  return MAKERS.has(node.type)
    ? (frame) => frame.context.budget.takeFor(evaluate(frame))
    : (frame) => {
      frame.context.budget.take();
      return evaluate(frame);
    };
}

function compileNode(node: Expression, site: Site): Evaluate {
  const of = (inner: Expression) => compile(inner, site);
  switch (node.type) {
    case "Const":
      return () => node.value;
    case "Name": {
      const slot = site.scope.slot(node.name);
      const missing = () => new Undefined(`${quote(node.name)} is undefined`);
      return (frame) => orElse(frame.get(slot), missing);
    }
    case "Tuple":
    case "List":
    case "Concat":
      return compileItems(node.type, node.items.map(of));
    case "Dict": {
      const pairs = node.pairs.map(({ key, value }) => [of(key), of(value)] as const);
      return (frame) => new Dict(pairs.map(([key, value]) => [key(frame), value(frame)]));
    }
    case "Conditional":
      return compileConditional(node, site);
    case "Attribute": {
      const inner = of(node.node);
      return (frame) => getAttribute(inner(frame), node.name);
    }
    case "Item": {
      const [inner, key] = [of(node.node), of(node.key)];
      return (frame) => getItem(inner(frame), key(frame));
    }
    case "Slice": {
      const inner = of(node.node);
      const bounds = node.bounds.map((bound) => bound && of(bound));
      return (frame) => getSlice(inner(frame), bounds.map((bound) => bound?.(frame)));
    }
    case "Call":
      return compileCall(node, site);
    case "Filter":
    case "Test":
      return compileFilter(node, site);
    default:
      return compileOperator(node, site);
  }
}

function compileItems(type: "Tuple" | "List" | "Concat", items: readonly Evaluate[]): Evaluate {
  const evaluate = (frame: Frame) => items.map((item) => item(frame));
  if (type === "List") return evaluate;
  return type === "Tuple"
    ? (frame) => new Tuple(evaluate(frame))
    : (frame) => join(evaluate(frame));
}

type Operator = Expression & {
  readonly type: "And" | "Or" | "Not" | "Unary" | "Binary" | "Compare";
};

function compileOperator(node: Operator, site: Site): Evaluate {
  const of = (inner: Expression) => compile(inner, site);
  switch (node.type) {
    case "And":
    case "Or": {
      const [left, right] = [of(node.left), of(node.right)];
      const isAnd = node.type === "And";
      return (frame) => {
        const value = left(frame);
        return isTrue(value) === isAnd ? right(frame) : value;
      };
    }
    case "Not": {
      const inner = of(node.node);
      return (frame) => !isTrue(inner(frame));
    }
    case "Unary": {
      const inner = of(node.node);
      return (frame) => negate(node.operator, inner(frame));
    }
    case "Binary": {
      const [left, right] = [of(node.left), of(node.right)];
      return (frame) => operate(node.operator, left(frame), right(frame));
    }
    case "Compare":
      return compileCompare(node, site);
  }
}

/** A filter or a test of a value. */
function compileFilter(
  node: Expression & { readonly type: "Filter" | "Test" },
  site: Site,
): Evaluate {
  const run: Run<Value> = node.type === "Filter"
    ? lookup(TABLES.filters, "filter", node.name, site)
    : lookup(TABLES.tests, "test", node.name, site);
  const [inner, given] = [compile(node.node!, site), compileArguments(node, site)];
  return (frame) => {
    const value = inner(frame);
    return run(value, ...given(frame), TABLES);
  };
}

function compileConditional(
  node: Expression & { readonly type: "Conditional" },
  site: Site,
): Evaluate {
  const soft = { ...site, isSoft: true };
  const [test, then] = [compile(node.test, soft), compile(node.then, soft)];
  const otherwise = node.otherwise && compile(node.otherwise, soft);
  const none = new Undefined("the inline if-expression evaluated to false and has no else");
  return (frame) => isTrue(test(frame)) ? then(frame) : otherwise ? otherwise(frame) : none;
}

/** `a < b < c` is `a < b and b < c`. */
function compileCompare(node: Expression & { readonly type: "Compare" }, site: Site): Evaluate {
  const first = compile(node.first, site);
  const rest = node.rest.map((operand) => ({
    holds: COMPARISONS[operand.operator],
    value: compile(operand.node, site),
  }));
  return (frame) => {
    let left = first(frame);
    for (const { holds, value } of rest) {
      const right = value(frame);
      if (!holds(left, right)) return false;
      left = right;
    }
    return true;
  };
}

/** Arguments as a function of the frame. */
function compileArguments(
  { args, kwargs, rest, named }: Arguments,
  site: Site,
): (frame: Frame) => [Value[], Kwargs] {
  const places = args.map((arg) => compile(arg, site));
  const names = kwargs.map(({ key, value }) => [key, compile(value, site)] as const);
  const [more, further] = [rest && compile(rest, site), named && compile(named, site)];
  return (frame) => {
    const values = places.map((place) => place(frame));
    if (more) values.push(...iterate(more(frame)));
    const byName = new Map(names.map(([key, value]) => [key, value(frame)]));
    const dict = further?.(frame);
    if (dict !== undefined) {
      if (!(dict instanceof Dict)) return fail("argument after ** must be a mapping");
      for (const [key, value] of dict.entries()) {
        byName.set(textOf(key) ?? fail("keywords must be strings"), value);
      }
    }
    return [values, byName];
  };
}

/** A call; with a caller, that is one more argument by name. */
export function compileCall(
  node: CallNode,
  site: Site,
  caller?: (frame: Frame) => Value,
): Evaluate {
  const [callee, given] = [compile(node.callee, site), compileArguments(node, site)];
  return (frame) => {
    const value = callee(frame);
    const [args, kwargs] = given(frame);
    if (value instanceof Undefined) return value.fail();
    const named = caller ? new Map([...kwargs, ["caller", caller(frame)]]) : kwargs;
    return value instanceof Thing
      ? value.call(args, named)
      : fail(`${describe(node.callee)} is not callable`);
  };
}

function describe(node: Expression): string {
  return node.type === "Name" || node.type === "Attribute" ? quote(node.name) : "the value";
}

/** The filters of a block: a function of the block's text. */
export function compileBlockFilter(
  node: FilterNode,
  site: Site,
): (frame: Frame, text: string) => Value {
  const inner = node.node && compileBlockFilter(node.node as FilterNode, site);
  const filter = lookup(TABLES.filters, "filter", node.name, site);
  const given = compileArguments(node, site);
  return (frame, text) => filter(inner ? inner(frame, text) : text, ...given(frame), TABLES);
}

/**
 * A filter or a test that a template names; within an if, one that does not exist fails where it is
 * reached.
 */
function lookup<Result>(
  table: Readonly<Record<string, Run<Result>>>,
  kind: string,
  name: string,
  { isSoft }: Site,
): Run<Result> {
  return isSoft && !Object.hasOwn(table, name)
    ? (...given) => find(table, kind, name)(...given)
    : find(table, kind, name);
}
