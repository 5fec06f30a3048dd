/**
 * The npm package `wgslm` in `npm/`: bundles for Node, Bun and pages, types, and the program.
 *
 *     npm/  package.json  README.md  LICENSE  CHANGELOG.md  THIRD_PARTY.md
 *           node/   mod.js  kernels.js  worker.js  bin.js  chunk-….js    Node, Bun, Deno
 *           web/    mod.js  kernels.js  engine.js  worker.js  chunk-….js pages
 *           types/  mod.d.ts  kernels/mod.d.ts  …                        public declarations
 *
 * The packages that the library uses are within the bundles, so that a user installs this one only:
 * of js-tiktoken's 22 MB they hold GPT-2's ranks, half a megabyte.
 *
 * @module
 */
import denoJson from "../deno.json" with { type: "json" };
import { bundle, LIBRARY, NODE_LIBRARY } from "./bundle.ts";
import { writeTypes } from "./types.ts";

const ROOT = new URL("../", import.meta.url);

/** The package's name on npm; on JSR names have a scope. */
const NAME = "wgslm";

/** Where each export's code and types are, by the export's name in `deno.json`. */
const EXPORTS = { ".": ["mod.js", "mod.d.ts"], "./kernels": ["kernels.js", "kernels/mod.d.ts"] };

/** Conditions of an export, in the order in which a runtime or a bundler tries them. */
function conditionsOf([code, types]: readonly string[]): Record<string, string> {
  const [node, web] = [`./node/${code}`, `./web/${code}`];
  return { types: `./types/${types}`, deno: node, bun: node, browser: web, node, default: web };
}

function packageJson(): unknown {
  return {
    name: NAME,
    version: denoJson.version,
    description: "Runs GPT checkpoints as they are, on WebGPU and WebAssembly, in TypeScript",
    keywords: ["gpt", "llm", "webgpu", "wgsl", "webassembly", "gguf", "safetensors"],
    license: denoJson.license,
    type: "module",
    engines: { node: ">=22" },
    bin: { [NAME]: "./node/bin.js" },
    exports: {
      ...Object.fromEntries(
        Object.entries(EXPORTS).map(([name, files]) => [name, conditionsOf(files)]),
      ),
      "./package.json": "./package.json",
    },
    // Entries of old resolvers, which know no exports.
    main: "./node/mod.js",
    types: "./types/mod.d.ts",
    // The GPU of Node, by the program's choice.
    peerDependencies: { webgpu: ">=0.4" },
    peerDependenciesMeta: { webgpu: { optional: true } },
  };
}

/** Makes `npm/` anew. */
export async function buildPackage(folder: string): Promise<void> {
  await Deno.remove(folder, { recursive: true }).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
  await Deno.mkdir(folder, { recursive: true });
  await bundle({ entries: NODE_LIBRARY, folder: `${folder}/node`, platform: "node" });
  await bundle({ entries: LIBRARY, folder: `${folder}/web`, platform: "browser", minify: true });
  await writeTypes(`${folder}/types`);
  const write = (name: string, text: string) => Deno.writeTextFile(`${folder}/${name}`, text);
  await write("package.json", `${JSON.stringify(packageJson(), null, 2)}\n`);
  await write("THIRD_PARTY.md", await thirdParty());
  for (const name of ["LICENSE", "CHANGELOG.md"]) {
    await Deno.copyFile(new URL(name, ROOT), `${folder}/${name}`);
  }
  // The project's own README is about Deno, and its links lead to files that are not here.
  await Deno.copyFile(new URL("docs/node.md", ROOT), `${folder}/README.md`);
}

/** The licences of the packages within the bundles. */
async function thirdParty(): Promise<string> {
  const sections = Object.values(denoJson.imports).filter((target) => target.startsWith("npm:"))
    .map(async (target) => {
      const [name, version] = target.slice("npm:".length).split(/(?<=.)@/);
      const [base] = import.meta.resolve(name).split(`/${name}/${version}/`);
      const read = (file: string) =>
        Deno.readTextFile(new URL(`${base}/${name}/${version}/${file}`));
      const { license } = JSON.parse(await read("package.json"));
      const text = await read("LICENSE").catch(() => "");
      return `## ${name} ${version}\n\n${license}\n\n${text}`.trimEnd();
    });
  return `# Packages within the bundles\n\n${(await Promise.all(sections)).join("\n\n")}\n`;
}

if (import.meta.main) {
  const folder = decodeURIComponent(new URL("npm", ROOT).pathname);
  await buildPackage(folder);
  console.log(`wrote ${folder}`);
}
