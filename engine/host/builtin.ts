/**
 * The runtime's built-in modules.
 *
 * @module
 */

/** The modules in use, by name. */
interface Builtins {
  readonly "node:crypto": typeof import("node:crypto");
  readonly "node:os": typeof import("node:os");
  readonly "node:vm": typeof import("node:vm");
}

/**
 * A built-in module, if the runtime has it: Deno, Node and Bun do, a page does not.
 *
 * Used in place of an import, which every bundler for pages would have to be configured for.
 */
export function builtin<Name extends keyof Builtins>(name: Name): Builtins[Name] | undefined {
  return globalThis.process?.getBuiltinModule?.(name) as Builtins[Name] | undefined;
}
