import assert from "node:assert/strict";
import { CheckpointError } from "../../../engine/errors.ts";
import { ChatTemplate } from "../../../engine/tokenizer/chat_template.ts";
import type { ChatMessage } from "../../../engine/tokenizer/tokenizer.ts";
import { readJson } from "../../testing.ts";

/** Written by tests/fixtures/chat/make_real.py: real templates and their output in transformers. */
interface Real {
  readonly clock: string;
  readonly variables: Readonly<Record<string, unknown>>;
  readonly tools: readonly Readonly<Record<string, unknown>>[];
  readonly conversations: Readonly<Record<string, readonly ChatMessage[]>>;
  readonly calls: Readonly<Record<string, Call>>;
  readonly templates: Readonly<Record<string, string>>;
  readonly rendered: Readonly<Record<string, Readonly<Record<string, string | { error: string }>>>>;
}

interface Call {
  readonly conversation: string;
  readonly add_generation_prompt: boolean;
  readonly tools: boolean;
  readonly variables: Readonly<Record<string, unknown>>;
}

const REAL = readJson<Real>("chat/real.json");

/** Runs work with the clock set to the time of the goldens. */
function atClock<T>(work: () => T): T {
  const real = globalThis.Date;
  globalThis.Date = class extends real {
    constructor() {
      super(REAL.clock);
    }
  } as DateConstructor;
  try {
    return work();
  } finally {
    globalThis.Date = real;
  }
}

/** The rendered text, or null if the template rejects the conversation. */
function render(template: ChatTemplate, call: Call): string | null {
  const { conversation, add_generation_prompt, tools, variables } = call;
  try {
    return atClock(() =>
      template.render(REAL.conversations[conversation], {
        addGenerationPrompt: add_generation_prompt,
        tools: tools ? REAL.tools : null,
        ...variables,
      })
    );
  } catch (error) {
    assert.ok(error instanceof CheckpointError, `${error}`);
    return null;
  }
}

for (const [name, source] of Object.entries(REAL.templates)) {
  Deno.test(`ChatTemplate.render() renders as transformers when it is ${name}`, () => {
    const template = new ChatTemplate(source, REAL.variables, name);
    const cases = Object.entries(REAL.rendered[name]);
    assert.equal(cases.length, Object.keys(REAL.calls).length);
    for (const [call, expected] of cases) {
      const got = render(template, REAL.calls[call]);
      if (typeof expected === "string") assert.equal(got, expected, call);
      // Unlike transformers, render() retries with joined parts if a template fails on parts.
      else if (!call.startsWith("parts") || expected.error.startsWith("TemplateError")) {
        assert.equal(got, null, call);
      }
    }
  });
}

Deno.test("the goldens of real templates have over 600 texts and some rejections", () => {
  const all = Object.values(REAL.rendered).flatMap((cases) => Object.values(cases));
  const texts = all.filter((one) => typeof one === "string");
  assert.ok(texts.length > 600, `${texts.length} of ${all.length}`);
  assert.ok(all.some((one) => typeof one !== "string" && one.error.startsWith("TemplateError")));
});
