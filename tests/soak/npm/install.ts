/**
 * The npm package as a user has it: built, packed, and installed into an empty folder.
 *
 * @module
 */
import assert from "node:assert/strict";
import { buildPackage } from "../../../build/npm.ts";
import { run } from "../../process.ts";

/** Folder of Node 22, Node 24, Bun and TypeScript; `get_runtimes.sh` makes it. */
const FOLDER = Deno.env.get("WGSLM_RUNTIMES") ?? "";

/** Whether the tests can run. */
export const hasRuntimes: boolean = FOLDER !== "";
if (!hasRuntimes) console.warn("npm_test.ts: SKIPPED, since WGSLM_RUNTIMES is not set");

/** A runtime: its name, and its program. */
export interface Runtime {
  readonly name: string;
  readonly program: string;
}

/** The runtimes that the package is for. */
export const RUNTIMES: readonly Runtime[] = [
  { name: "Node 22", program: `${FOLDER}/node22/node_modules/.bin/node` },
  { name: "Node 24", program: `${FOLDER}/node24/node_modules/.bin/node` },
  { name: "Bun", program: `${FOLDER}/bun/node_modules/.bin/bun` },
];

/** Folder with TypeScript and the package `webgpu`. */
export const TOOLS = `${FOLDER}/tools/node_modules`;

/** Runs a program that must succeed; returns its standard output. */
async function output(program: string, args: readonly string[], cwd: string): Promise<string> {
  const { code, stdout, stderr } = await run(program, args, { cwd });
  assert.equal(code, 0, `${program} ${args.join(" ")}: ${stderr}`);
  return stdout;
}

/** A folder in which the package is installed. */
export interface Installed {
  readonly folder: string;
  /** The program's file, for a runtime. */
  readonly bin: string;
}

let installed: Promise<Installed> | undefined;

/** Installs the package, once; the folder is removed when the process ends. */
export function install(): Promise<Installed> {
  return installed ??= installAnew();
}

async function installAnew(): Promise<Installed> {
  const scratch = await Deno.makeTempDir({ prefix: "wgslm-npm-" });
  globalThis.addEventListener("unload", () => Deno.removeSync(scratch, { recursive: true }));
  const [source, folder] = [`${scratch}/npm`, `${scratch}/use`];
  await buildPackage(source);
  const name = (await output("npm", ["pack", "--silent", "--pack-destination", scratch], source))
    .trim();
  await Deno.mkdir(folder);
  await Deno.writeTextFile(`${folder}/package.json`, '{ "type": "module", "private": true }\n');
  const flags = ["--silent", "--no-audit", "--no-fund", "--offline"]; // it has no dependencies
  await output("npm", ["install", ...flags, `${scratch}/${name}`], folder);
  return { folder, bin: `${folder}/node_modules/wgslm/node/bin.js` };
}
