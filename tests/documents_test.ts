/** The documents: links and paths that exist, the chart, dependencies and their locks. */
import assert from "node:assert/strict";
import { drawChart } from "../bench/chart.ts";
import denoJson from "../deno.json" with { type: "json" };

const ROOT = new URL("../", import.meta.url);

/** Paths of the files below a folder, from the root on. */
function filesBelow(folder: string): string[] {
  return [...Deno.readDirSync(new URL(folder, ROOT))].flatMap(({ name, isDirectory }) => {
    const path = `${folder}${name}`;
    return isDirectory ? filesBelow(`${path}/`) : [path];
  }).sort();
}

const read = (path: string) => Deno.readTextFileSync(new URL(path, ROOT));

function exists(url: URL): boolean {
  try {
    Deno.statSync(url);
    return true;
  } catch {
    return false;
  }
}

Deno.test("every path of this project that a document names exists", () => {
  const documents = ["README.md", "CONTRIBUTING.md", ...filesBelow("docs/")]
    .filter((path) => path.endsWith(".md"));
  const folders = "kernels|engine|cli|tests|bench|build|docs|\\.ci";
  const pattern = new RegExp(`(?<![\\w/.-])((?:${folders})/[\\w./-]*|(?:mod|cli)\\.ts)`, "g");
  const named = documents.flatMap((document) =>
    [...read(document).matchAll(pattern)].map(([, path]) => ({
      document,
      path: path.replace(/\.$/, ""),
    }))
  );
  assert.ok(named.filter(({ document }) => document === "CONTRIBUTING.md").length > 20);
  const missing = named.filter(({ path }) => {
    try {
      return !Deno.statSync(new URL(path, ROOT));
    } catch {
      return true;
    }
  });
  assert.deepEqual(missing, []);
});

Deno.test("docs/dependencies.md names every dependency, with its version, and no other", () => {
  const imported = Object.values(denoJson.imports).filter((target) => target.startsWith("npm:"));
  const ofTests = ["tests/", "build/"].flatMap(filesBelow)
    .filter((path) => path.endsWith(".ts")).flatMap((path) =>
      [...read(path).matchAll(/(?: from |\bimport\()"(npm:[^"]+)"/g)].map(([, specifier]) =>
        specifier
      )
    );
  const named = [...read("docs/dependencies.md").matchAll(/`(npm:[^`]+)`/g)]
    .map(([, specifier]) => specifier);
  assert.deepEqual(named.sort(), [...new Set([...imported, ...ofTests])].sort());
});

Deno.test("deno.lock has no package that tests alone load, and the tests' lock agrees with it", () => {
  const packages = (path: string) =>
    JSON.parse(read(path)).npm as Record<string, { integrity: string }>;
  const [run, tests] = [packages("deno.lock"), packages("tests/deno.lock")];
  for (const [name, entry] of Object.entries(run)) assert.deepEqual(tests[name], entry, name);
  const added = Object.keys(tests).filter((name) => !(name in run));
  assert.ok(added.some((name) => name.startsWith("fast-check@")));
  assert.ok(!Object.keys(run).some((name) => name.startsWith("fast-check@")));
});

Deno.test("docs/decode.svg is the chart of docs/measurements.md", () => {
  assert.equal(drawChart(read("docs/measurements.md")), read("docs/decode.svg"));
});

Deno.test("links of the documents lead to files", () => {
  const documents = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "bench/demo/README.md"]
    .concat(filesBelow("docs/").filter((path) => path.endsWith(".md")));
  const broken = documents.flatMap((path) =>
    [...read(path).matchAll(/\]\(([^)#\s]+)[^)]*\)/g)]
      .map(([, target]) => target)
      .filter((target) => !/^https?:/.test(target) && !exists(new URL(target, new URL(path, ROOT))))
      .map((target) => `${path} → ${target}`)
  );
  assert.deepEqual(broken, []);
});

Deno.test("the README has at most 150 lines and a picture on its first screen", () => {
  const lines = read("README.md").split("\n");
  assert.ok(lines.length <= 150, `${lines.length} lines`);
  assert.ok(lines.slice(0, 25).some((line) => /^!\[[^\]]+\]\(docs\/\w+\.svg\)/.test(line)));
});
