/**
 * What `--help` teaches.
 *
 * @module
 */
import { type Command, COMMANDS, type FlagName, SWITCHES, VALUE_FLAGS } from "./flags.ts";
import { columns, styled } from "./terminal.ts";

/** What a command is for, and its use by example. */
const ABOUT: Readonly<
  Record<
    Command,
    { summary: string; usage: string; examples: readonly [string, string][]; more?: string }
  >
> = {
  bench: {
    summary:
      "Measures how fast a model generates: tokens per second and peak memory, as a Markdown " +
      "row and a JSON report.",
    usage: "[bench] [MODEL] [flags]",
    examples: [
      ["the bundled demo, 3 × 256 tokens after a warm-up", ""],
      ["a quick look", "--iters 1 --gen-tokens 64 --warmup-tokens 8"],
      [
        "a model of yours, with files to share",
        "bench exports/mine --json-out outputs/b.json --md-out outputs/b.md",
      ],
      [
        "a shape without its weights",
        "--random-weights --config configs/gpt2.toml --gen-tokens 16",
      ],
    ],
  },
  generate: {
    summary: "Writes text to standard output as the model makes it up.",
    usage: "generate [MODEL] [flags]",
    examples: [
      ["the bundled demo", 'generate --prompt "ROMEO:" --max-tokens 200'],
      ["the same text every time", "generate --seed 1337"],
      ["the likeliest text, up to the end of a line", "generate --temperature 0 --stop $'\\n'"],
      ["an answer of a chat model", 'generate hf:OWNER/NAME --chat --prompt "Who are you?"'],
      ["a conversation", 'generate hf:OWNER/NAME --chat --system "Answer in one sentence."'],
      ["the same from a file, a turn a line", "generate hf:OWNER/NAME --chat < turns.txt"],
    ],
    more:
      "A conversation (--chat without --prompt) ends with /exit, the end of the input, or a full " +
      "context; an interrupt (Ctrl-C) stops an answer, and at the prompt ends the command. Of " +
      "--seed, " +
      "turn i draws with seed + i.",
  },
  inspect: {
    summary: "Tells what a checkpoint holds, the memory that a run would take, " +
      "and which backend has room " +
      "for it. Nothing is loaded.",
    usage: "inspect [MODEL] [flags]",
    examples: [
      ["the bundled demo", "inspect"],
      ["what a shorter context saves", "inspect exports/mine --context 256"],
      ["the same for a program", "inspect exports/mine --json-out fits.json"],
    ],
  },
  kernels: {
    summary:
      "Lists the generated code that a model runs on: WGSL on a GPU, WebAssembly on the CPU.",
    usage: "kernels [MODEL] [flags]",
    examples: [
      ["the bundled demo", "kernels"],
      ["its products, as files to read", "kernels --op matmul --dump outputs/kernels"],
      [
        "the shaders of GPT-2's shape",
        "kernels --random-weights --config configs/gpt2.toml --device webgpu",
      ],
    ],
  },
  devices: {
    summary: "Tells what can run here, and how fast this machine reads memory and calculates.",
    usage: "devices",
    examples: [["", "devices"]],
  },
};

const SUMMARIES: Readonly<Record<Command, string>> = {
  bench: "measure tokens per second (what runs when no command is named)",
  generate: "stream text",
  inspect: "what a checkpoint holds, the memory it takes, and where it fits",
  kernels: "the generated WGSL and WebAssembly of a model's passes",
  devices: "what can run here, and its limits",
};

const RUN = "deno run -A cli.ts";

/** The help of a command; with the list of commands where none was named. */
export function helpText(command: Command, named: boolean): string {
  const { summary, usage, examples, more } = ABOUT[command];
  const width = Math.max(60, Math.min(100, columns()));
  const title = (text: string) => `\n${styled("bold", text)}\n`;
  let out = `${wrap(summary, width, "")}\n${title("Usage")}  ${RUN} ${usage}\n`;
  if (!named) {
    out += title("Commands");
    for (const [name, about] of Object.entries(SUMMARIES)) out += `  ${name.padEnd(10)} ${about}\n`;
    out += `\n  ${RUN} COMMAND --help tells more.\n`;
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
A value on the command line beats --config, which beats the default in brackets. --flag=value and
--flag value are the same; of a flag given twice the last counts.
Exit status: 0 done, 1 failed, 2 bad usage, 130 interrupted.
`;
}

/** Columns that a flag and its value have before what it is for. */
const FLAG_COLUMNS = 28;

function flagHelp(flag: FlagName, width: number): string {
  const indent = " ".repeat(FLAG_COLUMNS);
  const head = `  ${spelling(flag)}`;
  const about = wrap(aboutOf(flag), width, indent);
  // What is too wide for its column has a line of its own.
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
