/**
 * Repeatability of the benchmark: pairs of runs of one build, their means and their intervals.
 *
 *     deno run -A bench/pairs.ts --runs 20 --iters 10 --history outputs/pairs.jsonl
 *     deno run -A bench/pairs.ts --history outputs/pairs.jsonl        what is there so far
 *
 * Each run is a process of the first command of the README. Neighbouring runs are a pair.
 *
 * @module
 */
import { parseArgs } from "node:util";
import denoJson from "../deno.json" with { type: "json" };
import { meanOf } from "../engine/measure/statistics.ts";
import { type BenchmarkReport, compareReports } from "../mod.ts";

const { values: flags } = parseArgs({
  options: {
    runs: { type: "string", default: "0" },
    iters: { type: "string", default: "3" },
    history: { type: "string", default: "outputs/pairs.jsonl" },
  },
});

for (let run = 1; run <= Number(flags.runs); run++) {
  const [program, ...args] = denoJson.tasks.start.split(" ");
  const asked = ["--iters", flags.iters, "--append", flags.history];
  const { success, stderr } = await new Deno.Command(
    program === "deno" ? Deno.execPath() : program,
    { args: [...args, ...asked], env: { NO_COLOR: "1" }, stdout: "null", stderr: "piped" },
  ).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
}

const text = await Deno.readTextFile(flags.history);
const reports = text.split("\n").filter((line) => line).map((line) =>
  JSON.parse(line) as BenchmarkReport
).filter(({ results }) => results.iters === Number(flags.iters));

const percent = (share: number | null) => share === null ? "–" : `${(100 * share).toFixed(1)} %`;
const column = (values: readonly string[]) => values.map((value) => value.padStart(11)).join(" ");
console.log(
  column(["base", "new", "ratio", "low", "high", "holds 1", "in 3 %", "others", "stolen"]),
);
const pairs = Array.from({ length: reports.length >> 1 }, (_, i) => {
  const [base, next] = [reports[2 * i], reports[2 * i + 1]];
  const rate = compareReports(base, next).metrics[0];
  const holds = rate.low !== null && rate.low <= 1 && rate.high! >= 1;
  const near = Math.abs(rate.ratio - 1) <= 0.03;
  const most = (key: "other_cpu_share" | "stolen_cpu_share") =>
    percent(Math.max(...[base, next].map(({ results }) => results.machine[key] ?? 0)));
  console.log(column([
    ...[rate.base, rate.next].map((value) => value.toFixed(1)),
    ...[rate.ratio, rate.low, rate.high].map((value) => value?.toFixed(3) ?? "–"),
    ...[holds, near].map((is) => is ? "yes" : "no"),
    ...[most("other_cpu_share"), most("stolen_cpu_share")],
  ]));
  return { holds, near, rate };
});
const count = (key: "holds" | "near") => pairs.filter((pair) => pair[key]).length;
const width = pairs.map(({ rate: { low, high } }) => high! / low! - 1);
console.log(
  `${pairs.length} pairs of ${flags.iters} iterations: ${count("holds")} intervals hold 1, ` +
    `${count("near")} means within 3 %; an interval spans ${percent(meanOf([width]))}`,
);
