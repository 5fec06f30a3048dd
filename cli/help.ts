/**
 * The text of `--help`: purpose, usage, examples and flags of a command.
 *
 * @module
 */
import { type Command, COMMANDS, type FlagName, SWITCHES, VALUE_FLAGS } from "./flags.ts";
import { columns, styled } from "./terminal.ts";

/** Purpose and examples of each command. */
const ABOUT: Readonly<
  Record<
    Command,
    { summary: string; usage: string; examples: readonly [string, string][]; more?: string }
  >
> = {
  bench: {
    summary:
      "Measure how fast a model generates: tokens per second and peak memory, as a Markdown row " +
      "of LabCore's benchmark and a JSON report.",
    usage: "[bench] [MODEL…] [flags]",
    examples: [
      ["measure the bundled demo: 3 × 256 tokens after a warm-up", ""],
      ["measure it in a second", "--iters 1 --gen-tokens 64 --warmup-tokens 8"],
      [
        "measure a checkpoint, and write both files",
        "bench exports/mine --json-out outputs/b.json --md-out outputs/b.md",
      ],
      [
        "measure a shape with random weights",
        "--random-weights --config configs/gpt2.toml --gen-tokens 16",
      ],
      ["measure eight combinations", "--threads 1,2 --dtype F16,F32 --prompt-tokens 32,256"],
      ["add the report to a history", "bench exports/mine --append outputs/history.sqlite"],
    ],
    more: "--device, --dtype, --kv-dtype, --threads, --context, --prompt-tokens and --gen-tokens " +
      "take lists such as 1,2,4, and there may be several models: every combination is a row of " +
      "a sweep, and their iterations alternate. Ctrl-C ends a sweep and prints the rows so far.",
  },
  generate: {
    summary:
      "Stream text to standard output. The prompt is --prompt, --ids, or standard input if it is " +
      "no terminal; a model without a tokenizer prints ids.",
    usage: "generate [MODEL] [flags]",
    examples: [
      ["continue a text with the bundled demo", 'generate --prompt "ROMEO:" --max-tokens 200'],
      ["continue a file", "generate exports/mine < prompt.txt"],
      ["draw the same text every time", "generate --seed 1337"],
      ["take the likeliest tokens of one line", "generate --temperature 0 --stop $'\\n'"],
      ["ask a chat model", 'generate hf:OWNER/NAME --chat --prompt "Who are you?"'],
      ["chat on the terminal", 'generate hf:OWNER/NAME --chat --system "Answer in one sentence."'],
      ["chat from a file, one turn per line", "generate hf:OWNER/NAME --chat < turns.txt"],
    ],
    more:
      "--chat without --prompt is a conversation: /help lists its commands, /exit ends it, as " +
      "the end of the input and a full context do. Ctrl-C stops an answer, and at the prompt " +
      "ends the command. Turn i draws with --seed + i.",
  },
  inspect: {
    summary: "Show the tensors of a checkpoint, the memory of a run, and the backends that it " +
      "fits. Loads no weights.",
    usage: "inspect [MODEL] [flags]",
    examples: [
      ["inspect the bundled demo", "inspect"],
      ["see what a shorter context saves", "inspect exports/mine --context 256"],
      ["write the same as JSON", "inspect exports/mine --json-out fits.json"],
    ],
  },
  kernels: {
    summary: "List the generated code that a model runs on: WGSL on a GPU, WebAssembly on the CPU.",
    usage: "kernels [MODEL] [flags]",
    examples: [
      ["list the kernels of the bundled demo", "kernels"],
      ["write its matmuls to files", "kernels --op matmul --dump outputs/kernels"],
      [
        "list the shaders of GPT-2's shape",
        "kernels --random-weights --config configs/gpt2.toml --device webgpu",
      ],
    ],
  },
  perplexity: {
    summary:
      "Compute the perplexity of a text in sliding windows, and how far the predictions of another " +
      "model, dtype or device are from these. FILE may be - for standard input.",
    usage: "perplexity [MODEL] FILE [flags]",
    examples: [
      ["score a text with the bundled demo", "perplexity speech.txt"],
      ["see what 16 bits cost", "perplexity exports/mine text.txt --dtype F16 --against-dtype F32"],
      ["compare two models", "perplexity exports/new text.txt --against exports/old"],
    ],
  },
  devices: {
    summary: "List the backends that run here, and measure how fast they read and calculate.",
    usage: "devices",
    examples: [["", "devices"]],
  },
  append: {
    summary:
      "Append reports, and results of deno bench, to a history. The files are reports in JSON, one " +
      "report a line, histories, or the output of deno bench --json; without a file, standard input.",
    usage: "append HISTORY.jsonl|HISTORY.sqlite [FILE…]",
    examples: [
      ["add two reports", "append outputs/history.sqlite a.json b.json"],
      [
        "add the times of a kernel, read from deno bench -A --json bench/norm_bench.ts",
        "append outputs/history.jsonl < norm.json",
      ],
      ["copy a history into another format", "append history.sqlite history.jsonl"],
    ],
  },
  compare: {
    summary:
      "Compare reports: the ratio of each metric with its 95 % interval, a verdict, and what differs " +
      "in machine, versions and settings. Several files of a side are several runs of one build; " +
      "reports of a sweep are compared combination by combination.",
    usage: "compare BASE.json NEW.json, or compare BASE… -- NEW… [flags]",
    examples: [
      ["compare two runs", "compare base.json new.json"],
      [
        "fail in CI if the new build is more than 5 % slower",
        "compare base*.json -- new*.json --fail-below 0.95",
      ],
    ],
    more: "Exit status 3: below --fail-below, by the upper end of the interval.",
  },
  report: {
    summary:
      "Draw reports as one HTML page: a table and plots of rates, token times, threads, kernels, " +
      "memory and history. The page needs no network.",
    usage: "report FILE… --html-out FILE.html",
    examples: [
      ["compare two runs", "report a.json b.json --html-out outputs/page.html"],
      ["draw a history", "report history.sqlite --html-out outputs/history.html"],
    ],
  },
};

const SUMMARIES: Readonly<Record<Command, string>> = {
  bench: "measure tokens per second (the default command)",
  generate: "stream text",
  inspect: "show tensors, memory, and the backends that a run fits",
  kernels: "list the generated WGSL and WebAssembly of a model",
  perplexity: "score a text, and compare two models on it",
  devices: "list the backends and their measured limits",
  append: "append reports or results of deno bench to a history",
  compare: "compare the reports of two builds, machines or settings",
  report: "draw reports as one HTML page",
};

const RUN = "Deno" in globalThis ? "deno run -A cli.ts" : "npx wgslm";

/** The help of a command; lists the commands if none was named. */
export function helpText(command: Command, named: boolean): string {
  const { summary, usage, examples, more } = ABOUT[command];
  const width = Math.max(60, Math.min(100, columns()));
  const title = (text: string) => `\n${styled("bold", text)}\n`;
  let out = `${wrap(summary, width, "")}\n${title("Usage")}  ${RUN} ${usage}\n`;
  if (!named) {
    out += title("Commands");
    for (const [name, about] of Object.entries(SUMMARIES)) out += `  ${name.padEnd(10)} ${about}\n`;
    out += `\n  ${RUN} COMMAND --help lists its flags.\n`;
  }
  out += title("Examples");
  for (const [about, args] of examples) {
    if (about) out += `  ${styled("dim", `# ${about}`)}\n`;
    out += `  ${`${RUN} ${args}`.trim()}\n`;
  }
  for (const [group, flags] of Object.entries(COMMANDS[command])) {
    out += title(group);
    for (const flag of flags) out += flagHelp(flag, width);
  }
  if (more) out += `\n${wrap(more, width, "")}\n`;
  return `${out}
A flag overrides --config, which overrides the default in brackets. --flag=value and --flag value
are the same; the last of a flag given twice counts, but every --stop and --lora.
Exit status: 0 done, 1 failed, 2 bad usage, 130 interrupted.
`;
}

/** Width of the column with a flag and its value. */
const FLAG_COLUMNS = 28;

function flagHelp(flag: FlagName, width: number): string {
  const indent = " ".repeat(FLAG_COLUMNS);
  const head = `  ${spelling(flag)}`;
  const about = wrap(aboutOf(flag), width, indent);
  // A head that is too wide for its column gets a line of its own.
  return head.length < FLAG_COLUMNS - 1
    ? `${head.padEnd(FLAG_COLUMNS)}${about.trimStart()}\n`
    : `${head}\n${about}\n`;
}

function spelling(flag: FlagName): string {
  if (flag in VALUE_FLAGS) {
    return `--${flag} ${VALUE_FLAGS[flag as keyof typeof VALUE_FLAGS].value}`;
  }
  const negatable = SWITCHES[flag as keyof typeof SWITCHES].negatable;
  return negatable ? `--${flag}, --no-${flag}` : `--${flag}`;
}

function aboutOf(flag: FlagName): string {
  return { ...VALUE_FLAGS, ...SWITCHES }[flag].about;
}

function wrap(text: string, width: number, indent: string): string {
  const lines: string[] = [];
  let line = indent;
  for (const word of text.split(" ")) {
    if (line.trim() && line.length + 1 + word.length > width) {
      lines.push(line);
      line = indent;
    }
    line += line.trim() ? ` ${word}` : word;
  }
  return [...lines, line].join("\n");
}
