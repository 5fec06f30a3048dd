/**
 * Built-in modules on request in Node 22.0 to 22.2, which have no `process.getBuiltinModule`.
 *
 * @module
 */
import { createRequire } from "node:module";
import process from "node:process";

process.getBuiltinModule ??= createRequire(import.meta.url) as typeof process.getBuiltinModule;
