import assert from "node:assert/strict";
import denoJson from "../deno.json" with { type: "json" };
import { FAMILIES } from "../engine/architecture/families.ts";
import { readArchitecture } from "../engine/architecture/mod.ts";
import { DEFAULTS } from "../engine/defaults.ts";
import { BACKEND_NAMES } from "../kernels/backend.ts";
import { OPERATIONS } from "../kernels/calls.ts";
import { BYTES, FORMATS } from "../kernels/formats/mod.ts";
import { runDeno } from "./process.ts";
import { fixture, readJson } from "./testing.ts";

const ROOT = new URL("../", import.meta.url);

/** Paths of the files below a folder, from the root on. */
function filesBelow(folder: string): string[] {
  return [...Deno.readDirSync(new URL(folder, ROOT))].flatMap(({ name, isDirectory }) => {
    const path = `${folder}${name}`;
    return isDirectory ? filesBelow(`${path}/`) : [path];
  }).sort();
}

const SOURCES = [
  "mod.ts",
  "cli.ts",
  ...["kernels/", "engine/", "cli/"].flatMap(filesBelow),
].filter((path) => path.endsWith(".ts"));

const read = (path: string) => Deno.readTextFileSync(new URL(path, ROOT));

/**
 * Code without comments; what looks like one within a text goes too, which these rules do not mind.
 */
function withoutComments(code: string): string {
  return code.replace(/\/\*[^]*?\*\//g, "").replace(/(^|\s)\/\/.*$/gm, "$1");
}

/** Runs this Deno in the project; the standard output, and the standard error. */
async function deno(...args: string[]): Promise<{ out: string; err: string }> {
  const { code, stdout, stderr } = await runDeno(args, { cwd: ROOT });
  assert.equal(code, 0, `deno ${args.join(" ")} failed:\n${stderr}`);
  return { out: stdout, err: stderr };
}

interface ModuleInfo {
  readonly specifier: string;
  readonly error?: string;
  readonly dependencies?: readonly {
    readonly code?: { readonly specifier?: string };
    readonly type?: { readonly specifier?: string };
    readonly isDynamic?: boolean;
  }[];
}

/** Files that are started as workers, by the URL that stands in the code. */
function workers(): string[] {
  return SOURCES.flatMap((path) =>
    [...read(path).matchAll(/new Worker\(\s*new URL\("(\.[^"]+)", import\.meta\.url\)/g)]
      .map(([, url]) => new URL(url, new URL(path, ROOT)).pathname)
  );
}

/** The modules that a file leads to, those that it may load later too. */
async function modulesOf(root: string): Promise<readonly ModuleInfo[]> {
  const { out } = await deno("info", "--json", root);
  return (JSON.parse(out) as { modules: ModuleInfo[] }).modules;
}

/** The specifiers of what a file loads before it runs. */
function loadedAtOnce(root: string, modules: readonly ModuleInfo[]): string[] {
  const dependencies = new Map(modules.map((module) => [module.specifier, module.dependencies]));
  const loaded = new Set([new URL(root, ROOT).href]);
  for (const specifier of loaded) {
    for (const { code, isDynamic } of dependencies.get(specifier) ?? []) {
      if (code?.specifier !== undefined && !isDynamic) loaded.add(code.specifier);
    }
  }
  return [...loaded];
}

/** What each file imports, types too; all paths from the root on. */
async function importGraph(): Promise<ReadonlyMap<string, readonly string[]>> {
  const graph = new Map<string, string[]>();
  const toPath = (specifier: string) => specifier.slice(ROOT.href.length);
  const isOurs = (specifier?: string) => specifier !== undefined && specifier.startsWith(ROOT.href);
  // A worker is a root of its own: nothing imports it, and `deno info` does not follow its URL.
  for (const root of [...Object.values(denoJson.exports), ...workers()]) {
    for (const { specifier, error, dependencies = [] } of await modulesOf(root)) {
      if (!isOurs(specifier)) continue;
      assert.equal(error, undefined, specifier);
      const targets = dependencies.flatMap(({ code, type }) => [code?.specifier, type?.specifier]);
      const paths = targets.filter(isOurs).map((target) => toPath(target!));
      graph.set(toPath(specifier), [...new Set(paths)]);
    }
  }
  return graph;
}

const GRAPH = await importGraph();

/** The first way from a file back to itself. */
function findCircle(graph: ReadonlyMap<string, readonly string[]>): string[] | undefined {
  const done = new Set<string>();
  const visit = (file: string, trail: string[]): string[] | undefined => {
    const at = trail.indexOf(file);
    if (at >= 0) return [...trail.slice(at), file];
    if (done.has(file)) return undefined;
    for (const next of graph.get(file) ?? []) {
      const circle = visit(next, [...trail, file]);
      if (circle) return circle;
    }
    done.add(file);
  };
  for (const file of graph.keys()) {
    const circle = visit(file, []);
    if (circle) return circle;
  }
}

/** Imports from one place that lead to where they may not. */
function strayImports(from: RegExp, to: RegExp): string[] {
  return [...GRAPH].filter(([file]) => from.test(file)).flatMap(([file, targets]) =>
    targets.filter((target) => to.test(target)).map((target) => `${file} imports ${target}`)
  );
}

Deno.test("every source file is reached from the exports", () => {
  assert.deepEqual(SOURCES.filter((path) => !GRAPH.has(path)), []);
});

Deno.test("kernels/ imports nothing of the project but kernels/", () => {
  assert.deepEqual(strayImports(/^kernels\//, /^(?!kernels\/)/), []);
});

/** The floors of kernels/, from the ground up: a file imports its own floor and those below. */
const FLOORS: readonly RegExp[] = [
  /^kernels\/((asm|wgsl)\/|(tensor|step|errors|memory|meter|next_task|host)\.ts$)/,
  /^kernels\/formats\//,
  /^kernels\/ops\//,
  /^kernels\/(calls|fuse)\.ts$/,
  /^kernels\/(backend|profile|kernel_text)\.ts$/,
  /^kernels\/(js|wasm|webgpu)\//,
  /^kernels\/mod\.ts$/,
];

/** Rooms of one floor that know nothing of each other. */
const ROOMS = [/^kernels\/(asm|wgsl)\//, /^kernels\/(js|wasm|webgpu)\//];

Deno.test("every file of kernels/ is on one floor, and imports none above", () => {
  const floorOf = (path: string) => FLOORS.findIndex((floor) => floor.test(path));
  const files = [...GRAPH].filter(([path]) => path.startsWith("kernels/"));
  for (const [path] of files) {
    assert.equal(FLOORS.filter((floor) => floor.test(path)).length, 1, path);
  }
  const upward = files.flatMap(([path, targets]) =>
    targets.filter((target) => floorOf(target) > floorOf(path))
      .map((target) => `${path} imports ${target}`)
  );
  assert.deepEqual(upward, []);
});

Deno.test("no backend imports another, and no language of kernels another", () => {
  const sideways = ROOMS.flatMap((rooms) =>
    [...GRAPH].flatMap(([path, targets]) => {
      const room = rooms.exec(path)?.[1];
      if (!room) return [];
      return targets.filter((target) => (rooms.exec(target)?.[1] ?? room) !== room)
        .map((target) => `${path} imports ${target}`);
    })
  );
  assert.deepEqual(sideways, []);
});

Deno.test("the operands of a call are listed once, by its operation", () => {
  const code = SOURCES.filter((path) => path.startsWith("kernels/"))
    .map((path) => ({ path, text: withoutComments(read(path)) }));
  const list = /^export function (\w+)Operands\([^]*?^}$/gm;
  const listed = code.flatMap(({ text }) => [...text.matchAll(list)].map(([, op]) => op));
  assert.deepEqual(listed.sort(), [...OPERATIONS].sort());
  // An operand's access is said in such a list, and by what the contract offers for scratch.
  const elsewhere = code.filter(({ path }) => path !== "kernels/ops/contract.ts")
    .filter(({ text }) => /\b(reads|writes|updates)\(|\baccess:/.test(text.replace(list, "")));
  assert.deepEqual(elsewhere.map(({ path }) => path), []);
});

Deno.test("engine/ imports neither the command line nor mod.ts", () => {
  assert.deepEqual(strayImports(/^engine\//, /^(?!kernels\/|engine\/)/), []);
});

Deno.test("nothing imports cli.ts, and cli/ is imported by it alone", () => {
  assert.deepEqual(strayImports(/./, /^cli\.ts$/), []);
  assert.deepEqual(strayImports(/^(?!cli)/, /^cli\//), []);
});

Deno.test("no file imports itself in a circle", () => {
  assert.equal(findCircle(GRAPH)?.join(" → "), undefined);
});

Deno.test("findCircle() finds the way round when there is one", () => {
  const graph = new Map([["a", ["b", "c"]], ["b", []], ["c", ["d"]], ["d", ["b", "c"]]]);
  assert.deepEqual(findCircle(graph), ["c", "d", "c"]);
});

/** A use of the runtime: a member of `Deno` or `process`, or a built-in module. */
const RUNTIME = /\bDeno\.|\bprocess\??\.|["'`]node:/;

Deno.test("only the host and the command line use the runtime", () => {
  const portable = SOURCES.filter((path) => !/^engine\/host\/|^cli(\/|\.ts$)/.test(path));
  assert.ok(portable.length > 120, `${portable.length} files`);
  assert.deepEqual(portable.filter((path) => RUNTIME.test(withoutComments(read(path)))), []);
});

Deno.test("only the host uses Deno's API: the rest also runs on Node and Bun", () => {
  const users = SOURCES.filter((path) =>
    /\bDeno\.|\bimport\.meta\.main\b/.test(
      withoutComments(read(path)),
    )
  );
  const others = users.filter((path) => !path.startsWith("engine/host/") && path !== "cli.ts");
  assert.ok(users.length > 1);
  assert.deepEqual(others, []);
  assert.doesNotMatch(withoutComments(read("cli.ts")), /\bDeno\./);
});

for (const root of Object.values(denoJson.exports).filter((path) => path !== "./cli.ts")) {
  Deno.test(`${root} loads in a page, and bundles for one`, async () => {
    const modules = await modulesOf(root);
    const ours = loadedAtOnce(root, modules).filter((specifier) => specifier.startsWith(ROOT.href))
      .map((specifier) => specifier.slice(ROOT.href.length));
    assert.ok(ours.length > 50, `${ours.length} files`);
    assert.deepEqual(ours.filter((path) => /\bDeno\./.test(withoutComments(read(path)))), []);
    // Even an import that is never reached in a page makes bundlers fail.
    const builtins = modules.flatMap(({ specifier, dependencies = [] }) =>
      dependencies.filter(({ code }) => code?.specifier?.startsWith("node:"))
        .map(({ code }) => `${specifier} imports ${code?.specifier}`)
    );
    assert.deepEqual(builtins, []);
  });
}

/** Comparisons with a name: by an operator, in a switch, in a list, or by what it begins with. */
function comparisons(code: string, names: readonly string[]): string[] {
  const name = `["'\`](?:${names.join("|")})["'\`]`;
  const forms = [
    `[=!]==?\\s*\\(?${name}`,
    `${name}\\)?\\s*[=!]==?`,
    `\\bcase\\s+${name}\\s*:`,
    `${name}[^\\[\\]]*\\]\\s*(?:as const\\s*\\)?\\s*)?\\.(?:includes|indexOf|some|find)\\(`,
    `\\.(?:startsWith|endsWith|includes|match|test)\\(\\s*${name}`,
  ];
  return withoutComments(code).match(new RegExp(forms.join("|"), "g")) ?? [];
}

/** Comparisons with a backend's name. */
function backendComparisons(code: string): string[] {
  return comparisons(code, [...BACKEND_NAMES, "cpu"]);
}

/**
 * Comparisons with a dtype's name, and tables with a row for one: each is a fact about a format.
 */
function dtypeComparisons(code: string): string[] {
  const formats = Object.keys(FORMATS).join("|");
  const rows = new RegExp(
    `[{,]\\s*["'\`]?(?:${formats})["'\`]?\\s*:|\\bRecord<\\s*\\w*Dtype\\b`,
    "g",
  );
  const names = [...new Set([...Object.keys(FORMATS), ...Object.keys(BYTES)])];
  return [...comparisons(code, names), ...withoutComments(code).match(rows) ?? []];
}

Deno.test("a backend's name is compared in kernels/mod.ts and cli/ alone", () => {
  const paths = SOURCES.filter((path) => !/^cli(\/|\.ts$)|^kernels\/mod\.ts$/.test(path));
  assert.ok(paths.length > 80);
  const found = paths.flatMap((path) =>
    backendComparisons(read(path)).map((text) => `${path}: ${text}`)
  );
  assert.deepEqual(found, []);
});

Deno.test("backendComparisons() finds every form of a comparison, and no other use of a name", () => {
  const compared = [
    `if (backend.name === "wasm") {}`,
    `const own = "js" !== name ? 1 : 0;`,
    `if ((device as string) == 'webgpu') {}`,
    `switch (name) { case "cpu": break; }`,
    `["webgpu", "wasm"].includes(name)`,
    `(["js", "wasm"] as const).includes(name)`,
    `name.startsWith("web" + "gpu") || name.startsWith("wasm")`,
    `const is = name ===\n  "js";`,
  ];
  for (const code of compared) assert.equal(backendComparisons(code).length, 1, code);
  const others = [
    `readonly name = "wasm";`,
    `const names = ["webgpu", "wasm", "js"] as const;`,
    `type Device = "cpu" | "wasm";`,
    `const type = onGpu ? "webgpu" : "cpu";`,
    `// name === "wasm"`,
    `/** name === "wasm" */`,
    `throw new Error('Cannot use "wasm": it was closed');`,
    `if (kind === "wasm32") {}`,
  ];
  for (const code of others) assert.deepEqual(backendComparisons(code), [], code);
  assert.notEqual(backendComparisons(read("kernels/mod.ts")).length, 0);
});

Deno.test("a dtype's name is compared in kernels/formats/ alone", () => {
  const paths = SOURCES.filter((path) => !path.startsWith("kernels/formats/"));
  assert.ok(paths.length > 80);
  const found = paths.flatMap((path) =>
    dtypeComparisons(read(path)).map((text) => `${path}: ${text}`)
  );
  assert.deepEqual(found, []);
});

Deno.test("dtypeComparisons() finds every form of a comparison, and no other use of a name", () => {
  const compared = [
    `const wide = dtype === "F32";`,
    `if ("BF16" !== weight.dtype) {}`,
    `switch (dtype) { case "F16": break; }`,
    `["F32", "F16"].includes(dtype)`,
    `if (tensor.dtype === "I32" ? 1 : 0) {}`,
    `dtype.endsWith("F16")`,
    `const size = { F32: 4, other: 2 };`,
    `const size = {\n  other: 2,\n  "BF16": 2,\n};`,
    `const SIZES: Readonly<Record<WeightDtype, number>> = sizes;`,
    `const SIZES: Record<Dtype, number> = sizes;`,
  ];
  for (const code of compared) assert.equal(dtypeComparisons(code).length, 1, code);
  const others = [
    `backend.tensor([2], "F32", "activations")`,
    `const SMALLEST: WeightDtype = "BF16";`,
    `backend.tensor(shape, name === "ids" ? "I32" : "F32", "activations")`,
    `export type Dtype = "F32" | "F16" | "BF16";`,
    `const DTYPES = { float32: "F32", float16: "F16" };`,
    `const STORED = { F64: doubles, F32, F16, BF16 };`, // records, among a file format's own
    `const bytes = BYTES.F32 * rows + FORMATS[dtype].bytes;`,
    `if (info.dtype === kept) {}`,
    `// dtype === "F32"`,
  ];
  for (const code of others) assert.deepEqual(dtypeComparisons(code), [], code);
  assert.notEqual(dtypeComparisons(read("kernels/formats/elements.ts")).length, 0);
});

const TYPESCRIPT = [...SOURCES, ...["tests/", "bench/", "build/", "web/"].flatMap(filesBelow)]
  .filter((path) => path.endsWith(".ts") && !path.startsWith("tests/fixtures/"));

Deno.test("processes of tests are started in tests/process.ts alone, which gives them an end", () => {
  const starts = (path: string) =>
    /\bDeno\.Command\b|child_process/.test(withoutComments(read(path)));
  const tests = TYPESCRIPT.filter((path) => path.startsWith("tests/"));
  const others = ["tests/project_test.ts"]; // names it
  assert.deepEqual(tests.filter(starts), ["tests/process.ts", ...others]);
});

Deno.test("files have at most 500 lines", () => {
  const tooLong = TYPESCRIPT.map((path) => ({ path, lines: read(path).split("\n").length - 1 }))
    .filter(({ lines }) => lines > 500);
  assert.deepEqual(tooLong, []);
});

/** Lines of more than 100 columns, with their files. */
function longLines(paths: readonly string[], codeOf = read): { path: string; line: string }[] {
  return paths.flatMap((path) =>
    codeOf(path).split("\n").filter((line) => line.length > 100)
      .map((line) => ({ path, line: line.trim() }))
  );
}

Deno.test("comments have at most 100 columns", () => {
  const withoutShaders = (path: string) => read(path).replace(/\/\* wgsl \*\/ `\n[^]*?\n`;/g, "");
  const comments = longLines(TYPESCRIPT, withoutShaders)
    .filter(({ line }) => /^(\/\/|\/\*|\*)/.test(line) || / \/\/ [^"'`]*$/.test(line));
  assert.deepEqual(comments, []);
});

Deno.test("lines of code have at most 100 columns, but for a few long texts", () => {
  const isSource = (path: string) => SOURCES.includes(path);
  const long = longLines(TYPESCRIPT).filter(({ line }) =>
    !/^(Deno\.test|test|wasmTest)\(/.test(line) // a test's name
  );
  const [inSources, elsewhere] = [true, false].map((which) =>
    long.filter(({ path }) => isSource(path) === which)
  );
  assert.ok(inSources.length <= 15, JSON.stringify(inSources, null, 2));
  assert.ok(elsewhere.length <= 35, JSON.stringify(elsewhere, null, 2));
});

Deno.test("the forward pass has at most 60 lines", () => {
  const pass = read("engine/decoder.ts").match(
    /^export function forward\([^]*?^function mlp\([^]*?^}$/m,
  );
  assert.ok(pass, "forward() … mlp() in engine/decoder.ts");
  assert.ok(pass[0].split("\n").length <= 60, `${pass[0].split("\n").length} lines`);
});

Deno.test("what is published is what the exports need, and no demo and no test", async () => {
  const { err } = await deno("publish", "--dry-run", "--allow-dirty", "--no-check");
  const published = [...err.matchAll(/^\s*(file:\S+) \([\d.]+\w+\)$/gm)]
    .map(([, specifier]) => specifier.slice(ROOT.href.length));
  for (const path of [...GRAPH.keys(), "deno.json", "README.md", "LICENSE", "CHANGELOG.md"]) {
    assert.ok(published.includes(path), `${path} is not published`);
  }
  assert.deepEqual(
    published.filter((path) => /^(bench|build|tests|configs|web|\.ci)\//.test(path)),
    [],
  );
});

/** Folders of models; at least one of each family. */
const FOLDERS = ["labcore", "tiny"].flatMap((parent) =>
  [...Deno.readDirSync(fixture(parent))].filter(({ isDirectory }) => isDirectory)
    .map(({ name }) => `${parent}/${name}`)
);

Deno.test("readArchitecture() returns plain data, for structuredClone and JSON", () => {
  const families = new Set<string>();
  for (const name of FOLDERS) {
    const a = readArchitecture(readJson(`${name}/config.json`), name);
    families.add(a.family);
    assert.deepEqual(structuredClone(a), a, name);
    assert.deepEqual(JSON.parse(JSON.stringify(a)), a, name);
  }
  const missing = [...Object.keys(FAMILIES), "labcore", "gpt2"].filter((name) =>
    !families.has(name)
  );
  assert.deepEqual(missing, []);
});

/** A fallback of an option that is spelt out: `topK ?? 40`, or `topK = 40` in a destructuring. */
const SPELT_OUT = new RegExp(
  Object.entries(DEFAULTS).map(([name, value]) =>
    `\\b${name}\\b(?:"\\])? (?:\\?\\?|=) ${JSON.stringify(value)}(?![\\w.])`
  ).join("|"),
);

Deno.test("no default of the table is spelt out anywhere else", () => {
  assert.match("const { topK = 40 } = options;", SPELT_OUT);
  assert.match('given["iters"] ?? 3,', SPELT_OUT);
  const found = SOURCES.filter((path) => path !== "engine/defaults.ts").flatMap((path) =>
    read(path).split("\n").filter((line) => SPELT_OUT.test(line))
      .map((line) => `${path}: ${line.trim()}`)
  );
  assert.deepEqual(found, []);
});
