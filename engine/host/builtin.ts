/**
 * Built-in modules of the runtime, without import statements.
 *
 * @module
 */

/** Types of the used modules, by name. */
interface Builtins {
  readonly "node:child_process": typeof import("node:child_process");
  readonly "node:crypto": typeof import("node:crypto");
  readonly "node:fs": typeof import("node:fs");
  readonly "node:os": typeof import("node:os");
  readonly "node:path": typeof import("node:path");
  readonly "node:tty": typeof import("node:tty");
  readonly "node:util": typeof import("node:util");
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
