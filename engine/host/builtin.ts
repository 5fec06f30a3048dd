/**
 * Built-in modules of the runtime, without import statements.
 *
 * @module
 */

/** Types of the used modules, by name. */
interface Builtins {
  readonly "node:crypto": typeof import("node:crypto");
  readonly "node:os": typeof import("node:os");
  readonly "node:vm": typeof import("node:vm");
  readonly "node:zlib": typeof import("node:zlib");
}

/**
 * A built-in module; undefined in a page. Deno, Node and Bun have `process.getBuiltinModule`.
 *
 * Not an import: bundlers for pages would need a configuration for `node:` imports.
 */
export function builtin<Name extends keyof Builtins>(name: Name): Builtins[Name] | undefined {
  return globalThis.process?.getBuiltinModule?.(name) as Builtins[Name] | undefined;
}

/** Whether this is a page or a worker of one: no runtime with built-in modules. */
export function isPage(): boolean {
  return !("Deno" in globalThis) && globalThis.process?.getBuiltinModule === undefined;
}
