/**
 * Markdown of measurements: tables, and the section of a document that they replace.
 *
 * @module
 */

const MARKERS = ["<!-- measured -->", "<!-- /measured -->"] as const;

/** A table whose first columns are texts, the others numbers. */
export function markdownTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  texts = 3,
): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [head, head.map((_, i) => i < texts ? "---" : "---:"), ...rows].map(line).join("\n");
}

/**
 * Finds the section to replace, before minutes of measuring; returns the function that replaces it.
 */
export async function findPlace(path: string): Promise<(text: string) => Promise<void>> {
  const old = await Deno.readTextFile(path);
  const [begin, end] = MARKERS.map((marker) => old.indexOf(marker));
  if (begin < 0 || end < begin) {
    throw new Error(
      `Cannot write "${path}": expected markers ${MARKERS[0]} and ${MARKERS[1]}, got none`,
    );
  }
  const head = old.slice(0, begin + MARKERS[0].length);
  return async (text) => {
    await Deno.writeTextFile(path, `${head}\n\n${text}\n\n${old.slice(end)}`);
    await new Deno.Command(Deno.execPath(), { args: ["fmt", "--quiet", path] }).output();
  };
}
