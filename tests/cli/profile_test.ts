import assert from "node:assert/strict";
import { profileTable } from "../../cli/profile.ts";
import type { BenchmarkReport, KernelReport, ProfileReport } from "../../engine/measure/report.ts";
import { fixture } from "../testing.ts";
import { runCli } from "./run.ts";

const run = (...args: string[]) => runCli(args);

const kernel: KernelReport = {
  name: "matmul 8→16",
  calls: 2,
  ms: 0.5,
  share: 1,
  bytes: 1.5e6,
  flops: 2e6,
  gb_per_sec: 3,
  gflops_per_sec: 4,
  limit_share: 0.25,
  limit: "memory",
};

const profileOf = (of: Partial<KernelReport>): ProfileReport => {
  const pass = { ms: 0.6, kernels_ms: 0.5, kernels: [{ ...kernel, ...of }] };
  return {
    limits: { gb_per_sec: 12, gflops_per_sec: 40 },
    decode: { rows: 1, length: 7, ...pass },
    prefill: { rows: 32, length: 32, ...pass },
  };
};

Deno.test("profileTable() has a table for a token and one for a prefill when it is given a profile", () => {
  const text = profileTable(profileOf({}));
  assert.match(text, /limits of this run: 12\.0 GB\/s read, 40\.0 GF\/s calculated\n/);
  assert.match(text, /^a token after 6 tokens: 0\.50 ms in its kernels, 0\.60 ms as a whole$/m);
  assert.match(text, /^a prefill of 32 tokens: /m);
  const row = /^ {2}matmul 8→16 +2 +0\.500 +100\.0 % +1\.50 +2\.00 +3\.0 +4\.0 +25\.0 % memory$/gm;
  assert.equal(text.match(row)?.length, 2, text);
  assert.doesNotMatch(text, /above 100 %/);
});

Deno.test("profileTable() explains a share above 100 % when there is one", () => {
  assert.match(profileTable(profileOf({ limit_share: 1.5 })), /150\.0 % memory\nabove 100 %: /);
});

Deno.test("profileTable() leaves cells empty when a time is too short to be measured", () => {
  const none = { ms: 0, gb_per_sec: null, gflops_per_sec: null, limit_share: null };
  assert.match(
    profileTable(profileOf(none)),
    /^ {2}matmul 8→16 +2 +0\.000 +100\.0 % +1\.50 +2\.00$/m,
  );
});

Deno.test("bench --profile adds tables to standard error and a key to the report", async () => {
  const path = await Deno.makeTempFile();
  try {
    const short = ["--iters", "1", "--gen-tokens", "4", "--warmup-tokens", "0", "--device", "cpu"];
    const { code, stdout, stderr } = await run(
      fixture("labcore/learned"),
      ...short,
      "--profile",
      "--json-out",
      path,
    );
    assert.equal(code, 0, stderr);
    // the row and nothing else
    assert.match(stdout, /^\| Device [^\n]*\n\|---[^\n]*\n\| [^\n]*\n$/);
    assert.match(stderr, /^a token after \d+ tokens: /m);
    assert.match(stderr, /^a prefill of 32 tokens: /m);
    const { generation, results } = JSON.parse(await Deno.readTextFile(path)) as BenchmarkReport;
    const { decode, prefill } = results.profile!;
    assert.equal(decode.length, generation.prompt_tokens + 2);
    assert.equal(prefill.rows, 32);
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("generate has no --profile", async () => {
  const { code, stderr } = await run("generate", "--profile");
  assert.equal(code, 2);
  assert.match(stderr, /generate has no flag --profile; it is one of bench/);
});
