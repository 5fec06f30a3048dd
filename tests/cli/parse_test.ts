import assert from "node:assert/strict";
import { COMMANDS, UsageError } from "../../cli/flags.ts";
import { helpText } from "../../cli/help.ts";
import { parseArguments } from "../../cli/parse.ts";
import { bar } from "../../cli/progress.ts";
import { bytes, duration } from "../../cli/format.ts";

function given(line: string) {
  return parseArguments(line.split(" ").filter(Boolean)).given;
}

function refuses(line: string, message: RegExp) {
  assert.throws(
    () => parseArguments(line.split(" ").filter(Boolean)),
    (error) => error instanceof UsageError && message.test(error.message),
    line,
  );
}

Deno.test("no arguments mean bench, unnamed", () => {
  assert.deepEqual(parseArguments([]), {
    command: "bench",
    named: false,
    model: undefined,
    words: [],
    given: {},
    lists: {},
  });
});

Deno.test("the model may come before and after flags, in every command that takes one", () => {
  for (const command of ["bench", "generate", "inspect"]) {
    assert.equal(parseArguments([command, "a/b"]).model, "a/b");
    assert.equal(parseArguments([command, "--dtype", "F32", "a/b"]).model, "a/b");
  }
  assert.equal(parseArguments(["hf:a/b", "--iters", "1"]).model, "hf:a/b");
  assert.equal(parseArguments(["--", "--odd"]).model, "--odd");
});

Deno.test("a value may follow its flag or an equals sign, and begin with a dash", () => {
  assert.equal(given("--iters 5").iters, 5);
  assert.equal(given("--iters=5").iters, 5);
  assert.equal(given("--prompt=a=b").prompt, "a=b");
  assert.equal(given("--prompt -5").prompt, "-5");
  assert.equal(given("--prompt=--iters").prompt, "--iters");
  assert.equal(parseArguments(["--prompt", "--- a line"]).given.prompt, "--- a line");
  assert.equal(parseArguments(["--prompt=two\nlines"]).given.prompt, "two\nlines");
  assert.equal(parseArguments(["--prompt", ""]).given.prompt, "");
  assert.equal(given("generate --temperature 1e-3").temperature, 1e-3);
});

Deno.test("the last of a flag given twice counts, negated or not; stop texts add up", () => {
  assert.equal(given("--iters 1 --iters 2").iters, 2);
  assert.equal(given("--use-kv-cache --no-use-kv-cache")["use-kv-cache"], false);
  assert.equal(given("--no-use-kv-cache --use-kv-cache")["use-kv-cache"], true);
  assert.equal(given("--no-stream").stream, false);
  assert.deepEqual(given("generate --stop a --stop b").stop, ["a", "b"]);
});

Deno.test("choices ignore case and are normalised", () => {
  assert.equal(given("--dtype f16").dtype, "F16");
  assert.equal(given("--device CUDA").device, "cuda");
});

Deno.test("a bad value is bad usage, with the expected and the given value", () => {
  refuses("--iters 0", /^--iters: expected a whole number of at least 1, got "0"$/);
  refuses("--iters -3", /got "-3"/);
  refuses("--iters 1.5", /got "1.5"/);
  refuses("--iters 0x10", /got "0x10"/);
  refuses("--iters 99999999999999999999", /whole number/);
  refuses("--iters=", /got ""/);
  refuses("--gen-tokens many", /got "many"/);
  refuses("--warmup-tokens -1", /at least 0/);
  refuses("--seed -1", /at least 0/);
  refuses("--dtype F8", /one of auto F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q4_K Q5_K Q6_K Q8 Q4, got "F8"/);
  refuses("--dtype Q9", /got "Q9"/);
  refuses("--checkpoint=", /--checkpoint: expected PATH, got an empty text/);
  refuses("generate --top-p -0.1", /expected a number from 0 to 1, got "-0.1"/);
  refuses("generate --top-p 1.1", /from 0 to 1/);
  refuses("generate --temperature NaN", /got "NaN"/);
  refuses("--strict=yes", /takes no value/);
});

Deno.test("a missing value is refused, also if the next flag follows at once", () => {
  refuses("--iters", /--iters needs a value \(N\)/);
  refuses("--prompt --iters 3", /--prompt needs a value \(TEXT\)/);
  refuses("--json-out --no-use-kv-cache", /--json-out needs a value/);
});

Deno.test("an unknown flag suggests the nearest one, or the command that has it", () => {
  refuses("--itres 3", /no flag --itres; did you mean --iters\?/);
  refuses("--gen-token 3", /did you mean --gen-tokens\?/);
  refuses("--kv-cache", /did you mean --use-kv-cache\?/);
  refuses("--no-kv-cache", /did you mean --no-use-kv-cache\?/);
  refuses("-iters 3", /did you mean --iters\?/);
  refuses("--zzzzzzzzz", /no flag --zzzzzzzzz$/);
  refuses("--temperature 1", /bench has no flag --temperature; it is one of generate/);
  refuses("generate --iters 1", /it is one of bench/);
  refuses("--no-strict", /no flag --no-strict/);
});

Deno.test("bench takes lists of values, each value once, and several models", () => {
  const { lists, given, words, model } = parseArguments([
    ...["a", "--threads", "2, 1,2", "--device", "CPU,js", "b", "--dtype=f16,F16"],
    ...["--gen-tokens", "4,8", "--gen-tokens", "16"],
  ]);
  assert.deepEqual(lists, { threads: [2, 1], device: ["cpu", "js"] });
  assert.deepEqual([given.threads, given.device, given.dtype], [2, "cpu", "F16"]);
  assert.equal(given["gen-tokens"], 16, "the last of a flag given twice counts");
  assert.deepEqual([words, model], [["a", "b"], "a"]);
});

Deno.test("a bad value in a list is bad usage, as are a missing one and a unit", () => {
  refuses("--threads 1,65", /^--threads: expected a whole number from 1 to 64, got "65"$/);
  refuses("--threads 1,,2", /got ""$/);
  refuses("--threads 1,", /got ""$/);
  refuses("--gen-tokens 64,1k", /^--gen-tokens: expected a whole number of at least 1, got "1k"$/);
  refuses("--context 512,2KiB", /got "2KiB"$/);
  refuses("--device cpu,gpu", /^--device: expected one of auto .*, got "gpu"$/);
  refuses("--dtype F16,16", /got "16"$/);
  refuses("--iters 1,2", /got "1,2"$/);
  refuses("generate --threads 1,2", /got "1,2"$/);
});

Deno.test("-o is short for --output", () => {
  assert.equal(given("-o CSV").output, "csv");
  assert.equal(given("-o=jsonl").output, "jsonl");
  refuses("-o", /--output needs a value/);
  refuses("-o xml", /one of md json jsonl csv sql, got "xml"/);
  refuses("generate -o md", /generate has no flag --output; it is one of bench/);
});

Deno.test("flags that exclude each other are refused", () => {
  refuses("--prompt a --prompt-tokens 5", /--prompt and --prompt-tokens contradict/);
  refuses("a --checkpoint b", /the model "a" and --checkpoint contradict/);
  refuses("--checkpoint a --repo-id b/c", /contradict/);
  refuses("--source hf --checkpoint a", /contradict/);
  refuses("--source local --repo-id b/c", /contradict/);
  refuses("--checkpoint a --random-weights --config c", /contradict/);
  refuses("--random-weights", /--random-weights needs --config/);
  refuses("generate --system s", /--system needs --chat/);
  refuses("generate a b", /generate takes one model, got "a" and "b"/);
  refuses("a b --checkpoint c", /the model "a" and --checkpoint contradict/);
  refuses("a hf:b/c --source local", /--source local and hf:b\/c contradict/);
  refuses("devices a", /devices takes no model/);
});

Deno.test("--help, -h and help work in every position, and override contradictions", () => {
  for (
    const line of [
      "--help",
      "-h",
      "help",
      "generate --help",
      "help generate",
      "a --checkpoint b -h",
    ]
  ) {
    assert.equal(given(line).help, true, line);
  }
  assert.equal(parseArguments(["help", "generate"]).command, "generate");
});

Deno.test("help has every flag of its command, and lists the commands if none was named", () => {
  for (const [command, groups] of Object.entries(COMMANDS)) {
    const text = helpText(command as keyof typeof COMMANDS, true);
    for (const flag of Object.values(groups).flat()) {
      assert.match(text, new RegExp(`^  --${flag}\\b`, "m"), command);
    }
    assert.doesNotMatch(text, /^Commands$/m);
    assert.ok(text.split("\n").every((line) => line.length <= 100), command);
  }
  for (const command of Object.keys(COMMANDS)) {
    assert.match(helpText("bench", false), new RegExp(`^  ${command} `, "m"));
  }
});

Deno.test("a bar keeps its width and shows the finished share", () => {
  assert.equal(bar("load", 1, 2, "1 of 2", 24), "load [#####-----] 1 of 2");
  for (const width of [0, 1, 10, 40, 200]) {
    assert.ok(bar("iteration 1 of 3", 3, 3, "3 of 3 tokens", width).length <= width);
  }
  assert.equal(bar("load", 5, undefined, "5 B", 80), "load  5 B");
  assert.match(bar("load", 9, 2, "much", 80), /#\]/);
});

Deno.test("bytes and durations have the unit that fits", () => {
  assert.equal(bytes(12), "12 B");
  assert.equal(bytes(1536), "1.5 KiB");
  assert.equal(bytes(19_000_000), "18.1 MiB");
  assert.equal(bytes(5 * 2 ** 40), "5120.0 GiB");
  assert.equal(duration(1.234), "1.23 ms");
  assert.equal(duration(340.4), "340 ms");
  assert.equal(duration(12_340), "12.3 s");
});
