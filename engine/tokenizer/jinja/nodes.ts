/**
 * Syntax tree of a template, as jinja2.nodes.
 *
 * @module
 */
import type { Value } from "./values.ts";

/** Arguments of a call, a filter or a test. */
export interface Arguments {
  readonly args: readonly Expression[];
  readonly kwargs: readonly { readonly key: string; readonly value: Expression }[];
  /** `*list` */
  readonly rest: Expression | null;
  /** `**dict` */
  readonly named: Expression | null;
}

export interface Name {
  readonly type: "Name";
  readonly name: string;
}

/** `namespace.attribute` as the target of a set. */
export interface NamespaceTarget {
  readonly type: "NamespaceTarget";
  readonly name: string;
  readonly attribute: string;
}

export interface TupleNode<Item = Expression> {
  readonly type: "Tuple";
  readonly items: readonly Item[];
}

/** An assignment target. */
export type Target = Name | NamespaceTarget | TupleNode<Target>;

export interface CallNode extends Arguments {
  readonly type: "Call";
  readonly callee: Expression;
}

/** A filter; without a node it takes the text of a block. */
export interface FilterNode extends Arguments {
  readonly type: "Filter";
  readonly node: Expression | null;
  readonly name: string;
}

export type Expression =
  | { readonly type: "Const"; readonly value: Value }
  | Name
  | TupleNode
  | { readonly type: "List"; readonly items: readonly Expression[] }
  | {
    readonly type: "Dict";
    readonly pairs: readonly { readonly key: Expression; readonly value: Expression }[];
  }
  | {
    readonly type: "Conditional";
    readonly test: Expression;
    readonly then: Expression;
    readonly otherwise: Expression | null;
  }
  | { readonly type: "And" | "Or"; readonly left: Expression; readonly right: Expression }
  | { readonly type: "Not"; readonly node: Expression }
  | { readonly type: "Unary"; readonly operator: "+" | "-"; readonly node: Expression }
  | {
    readonly type: "Binary";
    readonly operator: string;
    readonly left: Expression;
    readonly right: Expression;
  }
  | {
    readonly type: "Compare";
    readonly first: Expression;
    readonly rest: readonly { readonly operator: string; readonly node: Expression }[];
  }
  | { readonly type: "Concat"; readonly items: readonly Expression[] }
  | { readonly type: "Attribute"; readonly node: Expression; readonly name: string }
  | { readonly type: "Item"; readonly node: Expression; readonly key: Expression }
  | {
    readonly type: "Slice";
    readonly node: Expression;
    readonly bounds: readonly (Expression | null)[];
  }
  | CallNode
  | FilterNode
  | ({ readonly type: "Test"; readonly node: Expression; readonly name: string } & Arguments);

/** Parameters of a macro or of a call block; the last ones may have defaults. */
export interface Signature {
  readonly parameters: readonly string[];
  readonly defaults: readonly Expression[];
}

export type Body = readonly Statement[];

export type ForNode = {
  readonly type: "For";
  readonly target: Target;
  readonly items: Expression;
  readonly test: Expression | null;
  readonly isRecursive: boolean;
  readonly body: Body;
  readonly otherwise: Body;
};

export type MacroNode =
  & { readonly type: "Macro"; readonly name: string; readonly body: Body }
  & Signature;

/** `{% call %}`; without a call it is `{% generation %}`, whose text is printed as it is. */
export type CallBlockNode = {
  readonly type: "CallBlock";
  readonly call: CallNode | null;
  readonly body: Body;
} & Signature;

export type Statement =
  | { readonly type: "Data"; readonly text: string }
  | { readonly type: "Output"; readonly node: Expression }
  | ForNode
  | {
    readonly type: "If";
    readonly branches: readonly { readonly test: Expression; readonly body: Body }[];
    readonly otherwise: Body;
  }
  | MacroNode
  | CallBlockNode
  | { readonly type: "FilterBlock"; readonly filter: FilterNode; readonly body: Body }
  | {
    readonly type: "With";
    readonly pairs: readonly { readonly target: Target; readonly value: Expression }[];
    readonly body: Body;
  }
  | { readonly type: "Set"; readonly target: Target; readonly value: Expression }
  | {
    readonly type: "SetBlock";
    readonly target: Target;
    readonly filter: FilterNode | null;
    readonly body: Body;
  }
  | {
    readonly type: "Block";
    readonly name: string;
    readonly isScoped: boolean;
    readonly body: Body;
  }
  | { readonly type: "Break" }
  | { readonly type: "Continue" };

/** Names that a target assigns to. */
export function targetNames(target: Target): string[] {
  if (target.type === "Tuple") return target.items.flatMap(targetNames);
  return target.type === "Name" ? [target.name] : [];
}
