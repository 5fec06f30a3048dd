/**
 * Bar chart of the README: decode rates of SmolLM2 by engine, from the first table of
 * `docs/measurements.md`.
 *
 * `deno run -A bench/chart.ts` writes `docs/decode.svg`; a test compares the file with the table.
 *
 * @module
 */

/** An engine with one dtype of weights. */
interface Bar {
  readonly label: string;
  readonly tokensPerSec: number;
  readonly ours: boolean;
}

const MODEL = "SmolLM2-135M-Instruct";
const ROOT = new URL("../", import.meta.url);

/** Pixels. */
const [WIDTH, LABEL, BAR, GAP, TOP] = [720, 230, 22, 10, 64];

/** Rows of the table: | model | engine | weights | decode, tok/s | … */
function barsOf(markdown: string): Bar[] {
  const rows = markdown.split("\n").filter((line) => line.startsWith(`| ${MODEL} `));
  const bars = rows.map((row) => {
    const [, , engine, weights, rate] = row.split("|").map((cell) => cell.trim());
    const name = engine.startsWith("transformers")
      ? "PyTorch (transformers)"
      : engine.split(" ")[0];
    return { label: `${name}, ${weights}`, tokensPerSec: Number(rate), ours: name === "wgslm" };
  });
  if (!bars.length || bars.some(({ tokensPerSec }) => !(tokensPerSec > 0))) {
    throw new Error(`docs/measurements.md: expected rows of ${MODEL} with rates`);
  }
  return bars.sort((a, b) => b.tokensPerSec - a.tokensPerSec);
}

/** The chart as SVG text. */
export function drawChart(markdown: string): string {
  const bars = barsOf(markdown);
  const most = bars[0].tokensPerSec;
  const room = WIDTH - LABEL - 90;
  const height = TOP + bars.length * (BAR + GAP) + 14;
  const rows = bars.map(({ label, tokensPerSec, ours }, i) => {
    const y = TOP + i * (BAR + GAP);
    const width = Math.round(room * tokensPerSec / most);
    const text = y + BAR / 2 + 5;
    return `  <text x="${LABEL - 12}" y="${text}" class="label${
      ours ? " ours" : ""
    }">${label}</text>
  <rect x="${LABEL}" y="${y}" width="${width}" height="${BAR}" rx="3" class="${
      ours ? "bar ours" : "bar"
    }"/>
  <text x="${LABEL + width + 8}" y="${text}" class="value${ours ? " ours" : ""}">${
      tokensPerSec.toFixed(1)
    }</text>`;
  });
  const title = "Decode, SmolLM2-135M-Instruct, 2 CPU cores";
  const figures = bars.map((bar) => `${bar.label} ${bar.tokensPerSec.toFixed(1)}`).join("; ");
  const size = `width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}"`;
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} role="img"
  aria-label="${title}: ${figures} tokens per second">
  <style>
    text { font: 14px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
    .title { font-weight: 600; font-size: 16px; }
    .unit { font-size: 12px; fill: #59636e; }
    .label { text-anchor: end; }
    .ours { font-weight: 600; }
    .page { fill: #ffffff; stroke: #d1d9e0; }
    .bar { fill: #afb8c1; }
    .bar.ours { fill: #1a7f64; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .unit { fill: #9198a1; }
      .page { fill: #0d1117; stroke: #3d444d; }
      .bar { fill: #59636e; }
      .bar.ours { fill: #2da886; }
    }
  </style>
  <rect x="0.5" y="0.5" width="${WIDTH - 1}" height="${height - 1}" rx="8" class="page"/>
  <text x="20" y="30" class="title">${title}</text>
  <text x="20" y="49" class="unit">tokens per second, higher is better</text>
${rows.join("\n")}
</svg>
`;
}

if (import.meta.main) {
  const markdown = Deno.readTextFileSync(new URL("docs/measurements.md", ROOT));
  Deno.writeTextFileSync(new URL("docs/decode.svg", ROOT), drawChart(markdown));
}
