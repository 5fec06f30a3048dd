/** The schema of reports: against types, real reports, and the keys that the document explains. */
import assert from "node:assert/strict";
import type { AnySchemaObject } from "../../ajv.ts";
import { benchmark, loadModel, profile, toJsonl } from "../../../mod.ts";
import { SCHEMA as KEYS } from "../../cli/report_keys.ts";
import { sampleReport } from "./sample_report.ts";
import { assertRecords, SCHEMA } from "./schema.ts";

/** The keys of a schema's leaves: "a.b" of an object, "a[]" of a list. */
function leavesOf(schema: AnySchemaObject, path = ""): string[] {
  if (schema.$ref) return leavesOf(SCHEMA.definitions[schema.$ref.split("/").at(-1)], path);
  if (schema.properties) {
    return Object.entries<AnySchemaObject>(schema.properties)
      .flatMap(([key, inner]) => leavesOf(inner, path ? `${path}.${key}` : key));
  }
  const isStrings = schema.items?.type === "string"; // the flags of V8: one value
  return schema.items && !isStrings ? leavesOf(schema.items, `${path}[]`) : [path];
}

/** The keys in the tables of docs/report.md, with dots and braces expanded. */
function documentedKeys(): string[] {
  const text = Deno.readTextFileSync(new URL("../../../docs/report.md", import.meta.url));
  return text.split("\n").filter((line) => line.startsWith("| `")).flatMap((line) => {
    let last = "";
    const keys = [...line.split("|")[1].matchAll(/`([^`]+)`/g)].map(([, key]) =>
      last = key.startsWith(".") ? last.replace(/\.[^.]*$/, "") + key : key
    );
    return keys.flatMap((key) => {
      const [, head, names, tail] = /^(.*)\{(.*)\}(.*)$/.exec(key) ?? [];
      return names === undefined ? [key] : names.split(",").map((name) => head + name + tail);
    });
  });
}

const definitions: Readonly<Record<string, AnySchemaObject>> = SCHEMA.definitions;

Deno.test("docs/report.md explains every key of the schema, and no other", () => {
  const keys = ["report", "failure", "bench"].flatMap((name) => leavesOf(definitions[name]));
  assert.ok(keys.length > 100);
  assert.deepEqual([...new Set(documentedKeys())].sort(), [...new Set(keys)].sort());
});

Deno.test("the schema has exactly the keys of a report", () => {
  const keys = leavesOf(definitions.report).filter((key) => !key.startsWith("results.profile."));
  const expected = Object.keys(KEYS).map((key) => key.replace(/\.0(?=\.|$)/g, "[]"));
  const runtimes = ["platform.node", "platform.bun", "platform.browser"]; // in them alone
  const optional = ["engine.v8_flags", "results.machine.load_average[]", ...runtimes];
  assert.deepEqual(
    keys.filter((key) => !optional.includes(key)).sort(),
    expected.filter((key) => !key.startsWith("results.machine.load_average")).sort(),
  );
});

Deno.test("a measured report with its profile validates, and an unknown key does not", async () => {
  await using model = await loadModel({
    config: {
      ...{ model_type: "gpt2", vocab_size: 64, n_embd: 16, n_head: 2, n_layer: 1 },
      n_positions: 32,
    },
  }, { device: "js" });
  const report = await benchmark(model, { genTokens: 4, warmupTokens: 0, iters: 2, prompt: [1] });
  report.results.profile = await profile(model, { length: 8 });
  assertRecords(report);
  assertRecords([report, sampleReport()]);
  assertRecords(toJsonl([report]).trimEnd().split("\n").map((line) => JSON.parse(line)));
  for (const path of ["", "engine", "results", "results.limit", "results.memory.0"]) {
    const changed = structuredClone(report);
    const object = path.split(".").filter(Boolean)
      .reduce(
        (inner, key) => inner[key] as typeof inner,
        changed as unknown as Record<string, unknown>,
      );
    object.unknown_key = 1;
    assert.throws(() => assertRecords(changed), /must NOT have additional properties/, path);
  }
  const { results: _, ...torn } = report;
  assert.throws(() => assertRecords(torn), /must have required property 'results'/);
});
