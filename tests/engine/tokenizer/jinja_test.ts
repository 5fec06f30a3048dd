import assert from "node:assert/strict";
import { compile, TemplateError } from "../../../engine/tokenizer/jinja/mod.ts";
import { fromJs } from "../../../engine/tokenizer/jinja/values.ts";
import { readJson } from "../../testing.ts";

/** Written by tests/fixtures/chat/make_jinja.py: templates and their output in Jinja2. */
interface Golden {
  readonly variables: Readonly<Record<string, unknown>>;
  readonly kinds: Readonly<
    Record<string, readonly { readonly template: string; readonly text?: string }[]>
  >;
}

const { variables, kinds } = readJson<Golden>("chat/jinja.json");
const VALUES = new Map(Object.entries(variables).map(([name, value]) => [name, fromJs(value)]));

/** The rendered text, or null if the template is rejected. */
function render(template: string): string | null {
  try {
    return compile(template).render(VALUES, 1000, (format) => format);
  } catch (error) {
    assert.ok(error instanceof TemplateError, `${template}: ${error}`);
    return null;
  }
}

for (const [kind, cases] of Object.entries(kinds)) {
  Deno.test(`compile() renders as Jinja2 when it is ${kind}`, () => {
    assert.ok(cases.length > 0);
    for (const { template, text } of cases) assert.equal(render(template), text ?? null, template);
  });
}

Deno.test("the Jinja goldens have over 450 rendered and over 100 rejected templates", () => {
  const all = Object.values(kinds).flat();
  assert.ok(all.filter(({ text }) => text !== undefined).length > 450);
  assert.ok(all.filter(({ text }) => text === undefined).length > 100);
});

Deno.test("fromJs() keeps the order of a Map's keys, and converts a whole number to int", () => {
  const value = new Map<unknown, unknown>([[10, "a"], ["2", [1, 1.5, -0, 2 ** 60]], [1, null]]);
  const shown = compile("{{ x }}|{{ x | tojson }}").render(
    new Map([["x", fromJs(value)]]),
    0,
    String,
  );
  assert.equal(
    shown,
    "{10: 'a', '2': [1, 1.5, -0.0, 1.152921504606847e+18], 1: None}|" +
      '{"10": "a", "2": [1, 1.5, -0.0, 1.152921504606847e+18], "1": null}',
  );
});

Deno.test("fromJs() throws when a value is not plain data", () => {
  const cyclic: unknown[] = [];
  cyclic.push(cyclic);
  for (const value of [() => 1, Symbol("a"), { a: [() => 1] }, cyclic]) {
    assert.throws(
      () => fromJs(value),
      /^TypeError: Cannot apply a chat template: expected plain data, got /,
    );
  }
});

Deno.test("render() throws a RangeError when a macro recurses without end", () => {
  const template = compile("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}");
  assert.throws(() => template.render(new Map(), 0, String), RangeError);
});

/** Templates whose values would exhaust memory, and the reason of the error. */
const GREEDY: Readonly<Record<string, RegExp>> = {
  "{{ 'a' * 10**12 }}": /a text of/,
  "{{ [1] * 10**9 }}": /a list of/,
  "{{ 'a'.center(10**12) }}": /a text of/,
  "{{ '%1000000000d' % 5 }}": /a text of/,
  "{{ '{:1000000000}'.format(5) }}": /a text of/,
  "{{ '%.1000000000f' % 5 }}": /a text of/,
  "{{ '{:.1000000000f}'.format(5.0) }}": /a text of/,
  "{{ ('a' * 10000) | replace('', 'b' * 10000) }}": /a text of/,
  "{{ ('a' * 10000) | join('b' * 10000) }}": /a text of/,
  "{{ ('b' * 10000).join('a' * 10000) }}": /a text of/,
  "{{ '\t' .expandtabs(10**9) }}": /a text of/,
  "{{ ('a\n' * 10000) | indent(10000) }}": /a text of/,
  "{{ ('<' * 5000000) | e }}": /a text of/,
  "{{ 2 ** 1000000000 }}": /more than 100000 bits/,
  "{{ (2 ** 99999) * (2 ** 99999) }}": /more than 100000 bits/,
  "{{ 10 ** 5000 }}": /more than 4300 digits/,
  "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}":
    /a text of/,
  "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s | tojson }}":
    /a text of/,
  "{% set ns = namespace(s=(1,)) %}{% for i in range(60) %}{% set ns.s = (ns.s, ns.s) %}{% endfor %}{{ {ns.s: 1} }}":
    /a text of/,
  "{{ (' ' * 9000000) | urlencode }}": /a text of/,
  "{{ (('ŉ' * 6000000) | upper) }}": /a text of/,
  "{% for i in range(100000) %}{{ 'abcdefghij' * 100 }}{% endfor %}": /a text of|come to an end/,
  "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = ns.l + [range(100000) | list] %}{% endfor %}":
    /does not come to an end/,
  "{{ 'a,' * 200000 | int }}{{ ('a,' * 200000).split(',') }}": /a list of/,
};

Deno.test("render() throws when a template would exhaust memory", () => {
  for (const [template, reason] of Object.entries(GREEDY)) {
    assert.throws(
      () => compile(template).render(VALUES, 0, String),
      (error) => error instanceof TemplateError && reason.test(error.message),
      template,
    );
  }
});
