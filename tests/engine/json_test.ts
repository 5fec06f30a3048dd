import assert from "node:assert/strict";
import { isDeep, isRecord, MAX_NESTING, parseJson } from "../../engine/json.ts";
import fc from "../fast_check.ts";

/** Parses objects with these first keys and then a backslash: V8 remembers their shapes. */
function teachShapes(...keys: readonly string[]): unknown[] {
  return keys.map((key) => JSON.parse(`{${key}"\\\\":1}`));
}

Deno.test("JSON.parse() misreads an escaped key after a similar object", () => {
  // If this fails after an upgrade, V8 is fixed and parseJson() can be removed.
  const shapes = teachShapes(`"first":0,`);
  assert.deepEqual(Object.keys(JSON.parse(`{"first":0,"\\"":1}`)), ["first", "\\"]);
  assert.equal(shapes.length, 1);
});

Deno.test("parseJson() reads keys that V8 would misread", () => {
  const shapes = teachShapes("", `"!":0,`, `"a":{},`);
  assert.deepEqual(parseJson(`{"!":0,"\\"":1}`), { "!": 0, '"': 1 });
  assert.deepEqual(parseJson(`{"!":0,"\\n":1}`), { "!": 0, "\n": 1 });
  assert.deepEqual(parseJson(`[{"\\\\":1},{"\\"":2},{"a":{},"\\u0022":3}]`), [
    { "\\": 1 },
    { '"': 2 },
    { a: {}, '"': 3 },
  ]);
  assert.equal(shapes.length, 3);
});

Deno.test("parseJson() returns the written value of random JSON", () => {
  const escapes = fc.string({ unit: fc.constantFrom("a", '"', "\\", "{", "}", ":", "\n", "é") });
  const { value } = fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 4 },
      escapes,
      fc.integer(),
      fc.constant(null),
      fc.array(tie("value"), { maxLength: 4 }),
      fc.array(fc.tuple(escapes, tie("value")), { maxLength: 4 }).map(Object.fromEntries),
    ),
  }));
  fc.assert(
    fc.property(value, fc.constantFrom(0, 2), (value, spaces) => {
      assert.deepEqual(parseJson(JSON.stringify(value, null, spaces)), value);
    }),
    { seed: 1, numRuns: 500 },
  );
});

Deno.test("parseJson() throws the errors of JSON.parse()", () => {
  for (const text of ["", "{", `{"\\":1}`, `{,"\\n":1}`, `{"\\n":1,}`, `["\\n"`, `{"\\n"}`, "\\"]) {
    let expected: unknown;
    try {
      JSON.parse(text);
    } catch (error) {
      expected = error;
    }
    assert.ok(expected instanceof SyntaxError);
    assert.throws(() => parseJson(text), { name: "SyntaxError", message: expected.message });
  }
});

Deno.test("isRecord() is true for objects, not for arrays", () => {
  assert.ok(isRecord({}));
  assert.ok(isRecord(JSON.parse('{"__proto__": 1}')));
  for (const value of [null, undefined, [], "a", 1, true]) assert.ok(!isRecord(value));
});

Deno.test("parseJson() takes MAX_NESTING levels and no more, in lists and objects", () => {
  for (const [open, close] of [["[", "]"], ['{"a":', "}"], ['{"\\n":', "}"]]) {
    const nested = (levels: number) => open.repeat(levels) + "1" + close.repeat(levels);
    const most = parseJson(nested(MAX_NESTING));
    assert.equal(isDeep(most), false);
    assert.equal(isDeep([most]), true);
    for (const levels of [MAX_NESTING + 1, 200_000]) {
      assert.throws(() => parseJson(nested(levels)), {
        name: "SyntaxError",
        message: `more than ${MAX_NESTING} levels of nesting`,
      });
    }
  }
});
