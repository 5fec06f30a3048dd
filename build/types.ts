/**
 * Declarations of the public API, for `tsc`.
 *
 * `deno pack` makes them from the exports alone, since their types are explicit ("no slow types");
 * this file takes them out of its archive, and makes them independent of the types of Deno.
 *
 * @module
 */
import { gunzipSync } from "node:zlib";
import denoJson from "../deno.json" with { type: "json" };

const ROOT = new URL("../", import.meta.url);

/** Writes the declarations of `mod.ts` and `kernels/mod.ts`, and of what they name. */
export async function writeTypes(folder: string): Promise<void> {
  const files = declarationsIn(await packed());
  const isExport = new Set(["mod.d.ts", "kernels/mod.d.ts"]);
  for (const path of reached(files, [...isExport])) {
    const head = isExport.has(path) ? `/// <reference lib="esnext.disposable" />\n` : "";
    const target = `${folder}/${path}`;
    await Deno.mkdir(target.slice(0, target.lastIndexOf("/")), { recursive: true });
    await Deno.writeTextFile(target, head + portable(files.get(path)!));
  }
}

/** The archive that `deno pack` makes of the project. */
async function packed(): Promise<Uint8Array> {
  const path = await Deno.makeTempFile({ prefix: "wgslm-", suffix: ".tgz" });
  try {
    const { success, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["pack", "--allow-dirty", "--no-source-maps", "--output", path],
      cwd: ROOT,
      env: { NO_COLOR: "1" },
    }).output();
    if (!success) throw new Error(`Cannot pack: ${new TextDecoder().decode(stderr)}`);
    return gunzipSync(await Deno.readFile(path));
  } finally {
    await Deno.remove(path);
  }
}

/** Bytes of a block of a tar archive. */
const BLOCK = 512;

/** The declarations in a tar archive, by path. The header has name, size (octal) and prefix. */
function declarationsIn(archive: Uint8Array): ReadonlyMap<string, string> {
  const text = (from: number, bytes: number) =>
    new TextDecoder().decode(archive.subarray(from, from + bytes)).replace(/\0.*$/s, "");
  const files = new Map<string, string>();
  for (let at = 0; archive[at];) {
    const [name, size, prefix] = [
      text(at, 100),
      parseInt(text(at + 124, 12), 8),
      text(at + 345, 155),
    ];
    const path = `${prefix && `${prefix}/`}${name}`.replace(/^package\//, "");
    if (path.endsWith(".d.ts")) files.set(path, text(at + BLOCK, size));
    at += BLOCK * (1 + Math.ceil(size / BLOCK));
  }
  return files;
}

/** The paths that some files lead to by their imports, and their own. */
function reached(files: ReadonlyMap<string, string>, roots: readonly string[]): Iterable<string> {
  const found = new Set(roots);
  for (const path of found) {
    const text = files.get(path);
    if (text === undefined) throw new Error(`Cannot write types: expected "${path}", got none`);
    for (const [, target] of text.matchAll(/(?:from|import\()\s*"(\.[^"]+)\.js"/g)) {
      found.add(new URL(`${target}.d.ts`, `file:///${path}`).pathname.slice(1));
    }
  }
  return found;
}

/** Types of the web platform that not every program has: its own, or any object. */
const WEB_TYPES = ["GPU", "Worker"];

/** A declaration for programs with and without the types of pages, under the package's name. */
function portable(text: string): string {
  const used = WEB_TYPES.filter((name) => new RegExp(`: ${name}\\b`).test(text));
  const own = used.map((name) =>
    `type ${name} = typeof globalThis extends { ${name}: { prototype: infer T } } ? T : object;\n`
  );
  return text.replaceAll(denoJson.name, "wgslm") + own.join("");
}
