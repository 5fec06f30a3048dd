#!/usr/bin/env node
/**
 * The program `wgslm`: the command line on Node and Bun.
 *
 * @module
 */
import process from "node:process";
import { main } from "../../cli.ts";

/** Node warns that `node:sqlite`, which keeps histories, is new; that helps no user. */
const warn = process.emitWarning;
process.emitWarning = (warning: string | Error, ...rest: unknown[]): void => {
  if (!/SQLite is an experimental feature/.test(String(warning))) {
    Reflect.apply(warn, process, [warning, ...rest]);
  }
};

/** Milliseconds after which the process ends although something keeps it alive. */
const LATEST_MS = 2000;

// Trick: not `process.exit`. It waits for V8's compiler threads, which may wait for a GC of this
// thread: 2 of 40 short runs on two busy cores of Node 24 never ended. A process that ends by
// itself stops the compiler first (github.com/nodejs/node/issues/54918).
process.exitCode = await main(process.argv.slice(2));
process.stdin.destroy();
setTimeout(() => process.exit(), LATEST_MS).unref();
