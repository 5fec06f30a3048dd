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

process.exit(await main(process.argv.slice(2)));
