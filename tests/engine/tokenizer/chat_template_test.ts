import assert from "node:assert/strict";
import fc from "../../fast_check.ts";
import { CheckpointError } from "../../../engine/errors.ts";
import { loadModel } from "../../../engine/load.ts";
import { ChatTemplate } from "../../../engine/tokenizer/chat_template.ts";
import { loadTokenizer } from "../../../engine/tokenizer/load.ts";
import { formatTime } from "../../../engine/tokenizer/strftime.ts";
import type { ChatMessage, Tokenizer } from "../../../engine/tokenizer/tokenizer.ts";
import { CHAT_TEMPLATE, CHAT_TOKENIZER, withChatModel } from "../../chat_model.ts";
import { within } from "../../patience.ts";
import { inTempFolder } from "../../safetensors.ts";
import { fixture, readJson } from "../../testing.ts";

/** Written by tests/fixtures/chat/make_goldens.py; a case has a text or an error. */
interface Golden {
  readonly variables: Readonly<Record<string, unknown>>;
  readonly templates: Readonly<Record<string, string>>;
  readonly cases: readonly {
    readonly template: string;
    readonly messages: readonly ChatMessage[];
    readonly add_generation_prompt: boolean;
    readonly text?: string;
    readonly error?: string;
  }[];
  readonly times: readonly string[];
  /** Format → the formatted `times`, joined by " ¦ ". */
  readonly formats: Readonly<Record<string, string>>;
  readonly short: readonly { readonly template: string; readonly text: string }[];
}

const GOLDEN = readJson<Golden>("chat/golden.json");
const HI: readonly ChatMessage[] = [{ role: "user", content: "Hi there" }];
const ANSWERED = [...HI, { role: "assistant", content: "Yes" }];

type Json = Record<string, unknown>;

/** Loads the chat model's tokenizer with a tokenizer_config.json and other files. */
async function tokenizerWith(
  config: Json,
  files: Readonly<Record<string, string>> = {},
): Promise<Tokenizer> {
  let made: Tokenizer | undefined;
  await inTempFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/tokenizer.json`, JSON.stringify(CHAT_TOKENIZER));
    await Deno.writeTextFile(`${folder}/tokenizer_config.json`, JSON.stringify(config));
    for (const [name, text] of Object.entries(files)) {
      await Deno.writeTextFile(`${folder}/${name}`, text);
    }
    made = await loadTokenizer(folder);
  });
  return made!;
}

/** The rendered text, or the reason of the error. */
async function outcome(
  chat_template: unknown,
  messages = HI,
  addGenerationPrompt = true,
  config: Json = GOLDEN.variables,
): Promise<{ text: string } | { error: string }> {
  const tokenizer = await tokenizerWith({ ...config, chat_template });
  try {
    return { text: tokenizer.applyChatTemplate(messages, { addGenerationPrompt }) };
  } catch (error) {
    assert.ok(error instanceof CheckpointError, `${error}`);
    const [, reason] = /^Cannot apply the chat template of ".*tokenizer\.json": (.*)$/
      .exec(error.message) ?? assert.fail(error.message);
    return { error: reason };
  }
}

for (const [name, template] of Object.entries(GOLDEN.templates)) {
  Deno.test(`applyChatTemplate() renders as transformers when it is ${name}`, async () => {
    const cases = GOLDEN.cases.filter((one) => one.template === name);
    assert.ok(cases.length > 0);
    for (const { messages, add_generation_prompt, text, error } of cases) {
      const expected = text === undefined ? { error } : { text };
      const where = JSON.stringify(messages);
      assert.deepEqual(await outcome(template, messages, add_generation_prompt), expected, where);
    }
  });
}

Deno.test("applyChatTemplate() prints Python values as transformers does", async () => {
  assert.ok(GOLDEN.short.length > 10);
  for (const { template, text } of GOLDEN.short) {
    assert.deepEqual(await outcome(template), { text }, template);
  }
});

Deno.test("applyChatTemplate() strips as Python does when strip() gets characters", async () => {
  const cases = {
    "{{ '\n\n a \n'.strip('\n') }}|": " a |",
    "{{ 'xxaxx'.lstrip('x') }}|{{ 'xxaxx'.rstrip('x') }}": "axx|xxa",
    "{{ 'abcba'.strip('ab') }}|{{ 'aa'.strip('a') }}|": "c||",
    "{{ ' a '.strip() }}|{{ 'a-b'.split('-')[1] }}": "a|b",
    "{{ '😀a😀'.strip('😀') }}": "a",
  };
  for (const [template, text] of Object.entries(cases)) {
    assert.deepEqual(await outcome(template), { text }, template);
  }
});

Deno.test("applyChatTemplate() ends with the assistant's header unless disabled", async () => {
  const tokenizer = await tokenizerWith({ chat_template: CHAT_TEMPLATE });
  const turn = "<|im_start|>user\nHi there<|im_end|>\n";
  assert.equal(tokenizer.applyChatTemplate(HI), `${turn}<|im_start|>assistant\n`);
  assert.equal(tokenizer.applyChatTemplate(HI, { addGenerationPrompt: false }), turn);
});

Deno.test("applyChatTemplate() finds the template in every configuration format", async () => {
  const named = [{ name: "rag", template: "no" }, { name: "default", template: "yes" }];
  for (const template of ["yes", named, { default: "yes", rag: "no" }]) {
    assert.deepEqual(await outcome(template), { text: "yes" });
  }
  const error = `expected a template named "default", got "rag"`;
  assert.deepEqual(await outcome([named[0]]), { error });
  assert.deepEqual(await outcome(5), { error: "expected chat_template to be text, got 5" });
  const files = { "chat_template.jinja": "{{ 'a' }}\n" };
  assert.equal((await tokenizerWith({}, files)).applyChatTemplate(HI), "a");
  assert.equal((await tokenizerWith({ chat_template: "no" }, files)).applyChatTemplate(HI), "a");
});

Deno.test("applyChatTemplate() defines the named special tokens as variables", async () => {
  const config = {
    bos_token: { __type: "AddedToken", content: "<|im_start|>", lstrip: true },
    pad_token: null,
    extra_special_tokens: { image_token: "<image>" },
    additional_special_tokens: ["<|a|>", { content: "<|b|>" }],
  };
  const template = "{{ bos_token }},{{ pad_token }},{{ image_token }},{{ eos_token }}," +
    "{{ additional_special_tokens[1] }},{{ tools is none }},{{ cls_token is defined }}";
  const files = { "special_tokens_map.json": JSON.stringify({ eos_token: "<|im_end|>" }) };
  const tokenizer = await tokenizerWith({ ...config, chat_template: template }, files);
  assert.equal(
    tokenizer.applyChatTemplate(HI),
    "<|im_start|>,,<image>,<|im_end|>,<|b|>,True,False",
  );
});

Deno.test("applyChatTemplate() throws when a message has no role or no content", async () => {
  const tokenizer = await tokenizerWith({ chat_template: CHAT_TEMPLATE });
  const calls = (value: unknown) => ({ role: "assistant", tool_calls: value });
  for (
    const message of [
      null,
      {},
      { role: "user" },
      { role: "user", content: 5 },
      { role: "user", content: undefined },
      { content: "Hi" },
      calls(undefined),
    ]
  ) {
    assert.throws(
      () => tokenizer.applyChatTemplate([message as unknown as ChatMessage]),
      new RegExp(
        "^TypeError: Cannot apply a chat template: " +
          "expected each message to have a role and content, got ",
      ),
    );
  }
});

Deno.test("encode() works when the chat template is broken", async () => {
  const tokenizer = await tokenizerWith({ chat_template: "{% if %}", eos_token: "<|im_end|>" });
  assert.deepEqual(tokenizer.encode("<|im_end|>a"), [2, 69]);
  assert.deepEqual(tokenizer.eosIds, [2]);
});

/** Hostile or broken templates, and the reason of the error. */
const HOSTILE: Readonly<Record<string, RegExp>> = {
  "{{ raise_exception('Only\nusers') }}": /^Only users$/,
  "{{ raise_exception('x' * 1000) }}": /^x{199}…$/,
  "{{ nobody.knows() }}": /'nobody' is undefined/,
  "{{ 'a' | nofilter }}": /no filter named nofilter/,
  "{% if messages is notest %}{% endif %}": /no test named notest/,
  "{% import 'os' as os %}": /unknown statement "import"/,
  "{% include '/etc/passwd' %}": /unknown statement "include"/,
  "{% if true %}": /expected elif or else or endif, got the end of the template/,
  "{{ 'a": /unexpected "'"/,
  "{{": /unexpected end of template/,
  "{{ ''.__class__.__mro__ }}": /access to attribute '__class__' of 'str' object is unsafe/,
  "{{ messages.append(1) }}": /access to attribute 'append' of 'list' object is unsafe/,
  "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}":
    /does not come to an end/,
  "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}":
    /does not come to an end/,
  "{% set x = range(100000) | list %}{% for a in x %}{{ x == x[:] }}{% endfor %}":
    /does not come to an end/,
  "{% set ns = namespace(s='ab') %}{% for a in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}":
    /makes a text of \d+ characters/,
  "{% set ns = namespace(s=[1]) %}{% for a in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}":
    /makes a list of \d+ items/,
  "{{ range(100001) }}": /at most 100000 numbers/,
  "{{ range(0, 5, 0) }}": /a step other than 0/,
  "{{ range('a') }}": /range\(\): expected int, got str/,
  "{{ 'a' | indent(1000000000) }}": /makes a text of 1000000000 characters/,
  "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": /it exceeds a limit of JavaScript/,
  [`{{ ${"(".repeat(1e5)}1${")".repeat(1e5)} }}`]: /it exceeds a limit of JavaScript/,
  [`{{ ${"not ".repeat(1e5)}a }}`]: /it exceeds a limit of JavaScript/,
  ["a".repeat(2e6)]: /at most 1000000 characters/,
};

Deno.test("applyChatTemplate() throws when a template is broken or hostile", async () => {
  for (const [template, reason] of Object.entries(HOSTILE)) {
    const got = await within(template.slice(0, 80), () => outcome(template));
    assert.ok("error" in got, template.slice(0, 80));
    assert.match(got.error, reason);
  }
});

Deno.test("applyChatTemplate() gives text or a CheckpointError when corrupted", () => {
  const templates = Object.values(GOLDEN.templates);
  const junk = fc.constantFrom(
    "",
    "{%",
    "%}",
    "{{",
    "}}",
    "{#",
    "'",
    "(",
    "|",
    " - ",
    "[0]",
    "\\",
    "for ",
  );
  fc.assert(
    fc.property(fc.nat(), fc.nat(), fc.nat(9), junk, (which, where, length, junk) => {
      const template = templates[which % templates.length];
      const at = where % template.length;
      const broken = template.slice(0, at) + junk + template.slice(at + length);
      try {
        new ChatTemplate(broken, GOLDEN.variables, "it").render(ANSWERED);
      } catch (error) {
        assert.ok(error instanceof CheckpointError, `${error}`);
        assert.match(error.message, /^Cannot apply the chat template of it: .+$/);
      }
    }),
    { seed: 1, numRuns: 3000 },
  );
});

Deno.test("applyChatTemplate() passes tools, documents and variables to the template", async () => {
  const template = "{{ tools }}|{{ documents }}|{{ enable_thinking }}|{{ depth }}|{{ bos_token }}";
  const tokenizer = await tokenizerWith({ bos_token: "<s>", chat_template: template });
  assert.equal(tokenizer.applyChatTemplate(HI), "None|None|||<s>");
  const unset = { tools: undefined, documents: null, enable_thinking: undefined };
  assert.equal(tokenizer.applyChatTemplate(HI, unset), "None|None|||<s>");
  const options = {
    tools: [{ type: "function", function: { name: "f", parameters: { items: {} } } }],
    documents: [{ title: "A", text: "it's" }],
    enable_thinking: false,
    depth: 1.5,
    bos_token: "B",
  };
  assert.equal(
    tokenizer.applyChatTemplate(HI, options),
    "[{'type': 'function', 'function': {'name': 'f', 'parameters': {'items': {}}}}]|" +
      `[{'title': 'A', 'text': "it's"}]|False|1.5|B`,
  );
  assert.throws(
    () => tokenizer.applyChatTemplate(HI, { enable_thinking: () => true }),
    /^TypeError: Cannot apply a chat template: expected plain data, got a function$/,
  );
});

Deno.test(`applyChatTemplate() selects the template "tool_use" when tools are given`, async () => {
  const named = [{ name: "tool_use", template: "tools" }, { name: "default", template: "plain" }];
  const tokenizer = await tokenizerWith({ chat_template: named });
  assert.equal(tokenizer.applyChatTemplate(HI), "plain");
  assert.equal(tokenizer.applyChatTemplate(HI, { tools: [] }), "tools");
  assert.equal(tokenizer.applyChatTemplate(HI, { tools: null }), "plain");
});

Deno.test("applyChatTemplate() accepts content that is in parts, null or missing", async () => {
  const parts: ChatMessage[] = [{
    role: "user",
    content: [{ type: "text", text: "Hi" }, { type: "text", text: "there" }],
  }];
  const textOf = async (template: string, messages: readonly ChatMessage[]) => {
    const got = await outcome(template, messages);
    return "text" in got ? got.text : `refused: ${got.error}`;
  };
  const each = "{% for p in messages[0].content %}{{ p.text }};{% endfor %}";
  assert.equal(await textOf(each, parts), "Hi;there;");
  assert.equal(await textOf("{{ messages[0].content | length }}", parts), "2");
  // A template that fails on parts gets their joined text.
  assert.equal(await textOf("{{ 'User: ' + messages[0].content }}", parts), "User: Hi\nthere");
  const refusing =
    "{% if messages[0].content is not string %}{{ raise_exception('text') }}{% endif %}";
  assert.equal(await textOf(refusing, parts), "refused: text");
  const image = [{ role: "user", content: [{ type: "image" }] }];
  assert.match(await textOf("{{ 'User: ' + messages[0].content }}", image), /^refused: can only/);
  const call = { role: "assistant", tool_calls: [{ function: { name: "f", arguments: {} } }] };
  const template = "{{ messages[0].content is defined }} {{ messages[0].tool_calls[0] }}";
  assert.equal(
    await textOf(template, [call]),
    "False {'function': {'name': 'f', 'arguments': {}}}",
  );
  assert.equal(await textOf("{{ messages[0].content }}", [{ ...call, content: null }]), "None");
});

Deno.test("applyChatTemplate() names a message's reasoning as transformers does", async () => {
  const template = "{% for m in messages %}{{ m.reasoning_content }},{{ m.thinking }};{% endfor %}";
  const messages = ["reasoning", "thinking", "reasoning_content"].map((name) => ({
    role: "assistant",
    content: "",
    [name]: name,
  }));
  assert.deepEqual(await outcome(template, [...messages, { role: "user", content: "" }]), {
    text: "reasoning,reasoning;thinking,thinking;reasoning_content,reasoning_content;,;",
  });
});

Deno.test("applyChatTemplate() stays within its limits when a chat has 1000 turns", async () => {
  const messages = Array.from({ length: 1000 }, (_, i) => ({
    role: ["user", "assistant"][i % 2],
    content: `Message ${i}. `.repeat(50),
  }));
  for (const [name, template] of Object.entries(GOLDEN.templates)) {
    assert.ok("text" in await outcome(template, messages), name);
  }
});

Deno.test("eosIds contains the token that the chat template writes after an answer", async () => {
  const eosOf = async (config: Json) => (await tokenizerWith(config)).eosIds;
  const eos_token = "<|endoftext|>";
  assert.deepEqual(await eosOf({ eos_token }), [0]);
  assert.deepEqual(await eosOf({ eos_token, chat_template: CHAT_TEMPLATE }), [0, 2]);
  assert.deepEqual(await eosOf({ chat_template: CHAT_TEMPLATE }), [2]);
  const after = (text: string) => `{% for m in messages %}{{ m.content }}${text}{% endfor %}`;
  assert.deepEqual(await eosOf({ eos_token, chat_template: after(" {{ eos_token }}") }), [0]);
  for (const rest of ["", "\n", "### User", "a<|im_end|>"]) {
    assert.deepEqual(await eosOf({ eos_token, chat_template: after(rest) }), [0], rest);
  }
  const refusing = "{{ raise_exception('no') }}";
  assert.deepEqual(await eosOf({ eos_token, chat_template: refusing }), [0]);
});

Deno.test("generate() stops at the chat template's end token when no configuration names it", () =>
  withChatModel(async (folder) => {
    await Deno.writeTextFile(`${folder}/generation_config.json`, `{"eos_token_id":[0]}`);
    await using model = await loadModel(folder, { device: "js" });
    assert.deepEqual(model.config.eosIds, [0]);
    // At temperature 5, both end tokens are drawn within a few of the 100 seeds.
    const options = { temperature: 5, topK: 0, maxNewTokens: 110, seed: 0 };
    const seen = new Set<number>();
    for (; seen.size < 2 && options.seed < 100; options.seed++) {
      const tokens = await Array.fromAsync(model.generate("Hi", options));
      const ends = tokens.flatMap(({ id, finishReason }) =>
        id === 0 || id === 2 ? [[id, finishReason]] : []
      );
      assert.ok(ends.length <= 1);
      for (const [id, reason] of ends) {
        assert.equal(reason, "eos");
        seen.add(id as number);
      }
    }
    assert.deepEqual([...seen].sort(), [0, 2]);
  }));

Deno.test("loadModel() reads one or several EOS ids from generation_config.json", () =>
  withChatModel(async (folder) => {
    for (const [eos, ids] of [[7, [7]], [[5, 6], [5, 6]], [null, [2]]] as const) {
      const path = `${folder}/generation_config.json`;
      await Deno.writeTextFile(path, JSON.stringify({ eos_token_id: eos }));
      await using model = await loadModel(folder, { device: "js" });
      assert.deepEqual(model.config.eosIds, ids);
    }
  }));

Deno.test("formatTime() formats as Python's strftime", () => {
  assert.ok(Object.keys(GOLDEN.formats).length > 40);
  for (const [format, texts] of Object.entries(GOLDEN.formats)) {
    const got = GOLDEN.times.map((time) => formatTime(new Date(time), format));
    assert.equal(got.join(" ¦ "), texts, format);
  }
});

Deno.test("applyChatTemplate() throws when the tokenizer has no chat template", async () => {
  const digits = fixture("tokenizers/digits");
  const none = `"${digits}/tokenizer.json" comes without one`;
  for (
    const [path, reason] of [[digits, none], [
      fixture("labcore/learned"),
      "a character vocabulary has none",
    ]]
  ) {
    const tokenizer = await loadTokenizer(path);
    assert.throws(
      () => tokenizer.applyChatTemplate(ANSWERED),
      new CheckpointError(`Cannot apply a chat template: ${reason}`),
    );
  }
});

Deno.test("a model rejects an id of its tokenizer when the embedding has no row for it", () =>
  withChatModel(async (folder) => {
    const more = [320, 321, 400].map((id) => ({ id, content: `<extra_${id}>`, special: true }));
    const file = { ...CHAT_TOKENIZER, added_tokens: [...CHAT_TOKENIZER.added_tokens, ...more] };
    await Deno.writeTextFile(`${folder}/tokenizer.json`, JSON.stringify(file));
    await using model = await loadModel(folder, { device: "js" });
    const { vocabSize } = model.config;
    assert.deepEqual([vocabSize, model.tokenizer.vocabSize], [320, 401]);
    assert.equal((await model.logits(model.tokenizer.encode("Hi"))).length, 2 * vocabSize);
    for (const { id, content } of more) {
      const expected = new RangeError(`Cannot run id ${id}: expected an integer from 0 to 319`);
      assert.throws(() => model.generate(`Hi${content}`), expected);
      await assert.rejects(model.logits(model.tokenizer.encode(content)), expected);
      assert.equal(model.tokenizer.decode([id], { skipSpecialTokens: false }), content);
    }
  }));
