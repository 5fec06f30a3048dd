/** Cache reuse between the turns of a chat: prefilled rows, and equal answers. */
import assert from "node:assert/strict";
import { readArchitecture } from "../../engine/architecture/mod.ts";
import { openCheckpoint } from "../../engine/checkpoint/checkpoint.ts";
import { checkGenerate, type GenerateOptions, generateTokens } from "../../engine/generate.ts";
import { loadModel } from "../../engine/load.ts";
import { Runner } from "../../engine/runner.ts";
import { loadTokenizer } from "../../engine/tokenizer/load.ts";
import type { ChatMessage } from "../../engine/tokenizer/tokenizer.ts";
import { checkpointWeights, uploadWeights } from "../../engine/weights/mod.ts";
import { openJsBackend } from "../../kernels/js/backend.ts";
import { CHAT_TOKENIZER, withChatModel } from "../chat_model.ts";
import { fixture, readJson } from "../testing.ts";

const GREEDY = { temperature: 0, maxNewTokens: 7 };
const CHUNK = 4;

/** A runner of tiny/llama, with the number of rows that each generation prefilled. */
async function openRunner() {
  const stack = new AsyncDisposableStack();
  const backend = stack.use(openJsBackend());
  const a = readArchitecture(readJson("tiny/llama/config.json"), "tiny/llama");
  using checkpoint = await openCheckpoint(fixture("tiny/llama"));
  const weights = await uploadWeights(
    backend,
    a,
    await checkpointWeights(checkpoint, a, "auto"),
    129,
    () => {},
  );
  const runner = await Runner.create(backend, a, weights, { id: "tiny", slots: 128, chunk: CHUNK });
  const { prefill } = runner.plans;
  const run = prefill.run.bind(prefill);
  let rows = 0;
  prefill.run = (step) => {
    rows += step.rows;
    run(step);
  };
  const tokenizer = await loadTokenizer({ ...CHAT_TOKENIZER });
  const model = { runner, tokenizer, eosIds: [], checkAlive: () => {} };
  return {
    generate: async (prompt: readonly number[], options: GenerateOptions) => {
      rows = 0;
      const tokens = await Array.fromAsync(
        generateTokens(model, prompt, checkGenerate({ ...GREEDY, ...options })),
      );
      return { ids: tokens.flatMap(({ id }) => id ?? []), rows };
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

Deno.test("generate() prefills only new messages of a chat, with equal ids", async () => {
  await using kept = await openRunner();
  await using anew = await openRunner();
  let prompt = [1, 40, 41, 42, 43, 44, 45, 46, 47, 3];
  let known = 0; // number of cached ids
  for (let turn = 0; turn < 5; turn++) {
    const { ids, rows } = await kept.generate(prompt, { reusePrompt: "all" });
    assert.equal(rows, prompt.length - 1 - known);
    const again = await anew.generate(prompt, { reusePrompt: false });
    assert.equal(again.rows, prompt.length - 1);
    assert.deepEqual(ids, again.ids, `turn ${turn}`);
    known = prompt.length + ids.length - 1; // all but the last id, which was never fed
    prompt = [...prompt, ...ids, 2, 3, 1, 50 + turn, 51, 3];
  }
});

Deno.test("generate() prefills a rewritten chat from the first difference on", async () => {
  await using kept = await openRunner();
  const prompt = [1, 40, 41, 42, 43, 44, 45, 46, 47, 3];
  const { ids } = await kept.generate(prompt, { reusePrompt: "all" });
  const changed = [...prompt, ...ids.slice(0, 3), 60, 61, 62];
  assert.equal((await kept.generate(changed, { reusePrompt: "all" })).rows, 2);
  const shorter = prompt.slice(0, 5);
  assert.equal((await kept.generate(shorter, { reusePrompt: "all" })).rows, 0);
  await using anew = await openRunner();
  assert.deepEqual(
    (await kept.generate(changed, { reusePrompt: "all" })).ids,
    (await anew.generate(changed, {})).ids,
  );
});

Deno.test("generate() keeps only whole prefilled chunks when reusePrompt is true", async () => {
  await using kept = await openRunner();
  const prompt = [1, 40, 41, 42, 43, 44, 45, 46, 47, 3]; // two and a half chunks
  const { ids } = await kept.generate(prompt, {});
  const longer = [...prompt, ...ids, 60, 61];
  assert.equal((await kept.generate(longer, {})).rows, longer.length - 1 - 2 * CHUNK);
  // Entries that a chat wrote between chunk boundaries do not count as prefilled.
  const chat = [...longer, 62, 63, 64, 65, 66, 67];
  await kept.generate(prompt, {});
  await kept.generate(chat, { reusePrompt: "all" });
  assert.equal((await kept.generate([...chat, 3], {})).rows, chat.length - 2 * CHUNK);
  assert.equal(
    (await kept.generate(chat, { reusePrompt: "all", deterministic: true })).rows,
    chat.length - 1,
  );
});

Deno.test("Model.chat() gives the same answers with the cache kept and without", () =>
  withChatModel(async (folder) => {
    const answers = async (reusePrompt: "all" | false): Promise<string[]> => {
      await using model = await loadModel(folder, { device: "cpu" });
      const messages: ChatMessage[] = [];
      for (const content of ["Hi", "Who?", "你"]) {
        messages.push({ role: "user", content });
        const options = { temperature: 0, maxNewTokens: 8, reusePrompt };
        const tokens = await Array.fromAsync(model.chat(messages, options));
        messages.push({ role: "assistant", content: tokens.map(({ text }) => text).join("") });
      }
      return messages.filter(({ role }) => role === "assistant").map(({ content }) =>
        content as string
      );
    };
    const kept = await answers("all");
    assert.ok(kept.every((text) => text !== ""));
    assert.deepEqual(kept, await answers(false));
  }));
