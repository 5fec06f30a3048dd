/**
 * A JSON parser that keeps every key as written, and checks of parsed values.
 *
 * V8's own parser can misread a key with an escape: once an object `{ …, "\\": … }` was parsed, the
 * key `"\""` of another that begins alike is read as `"\\"`. A byte-level vocabulary has both.
 *
 * @module
 */

/**
 * As JSON.parse(), every key as written.
 * @throws {SyntaxError} when the text is no JSON.
 */
export function parseJson(text: string): unknown {
  // Without a backslash there is no escape to misread.
  if (!text.includes("\\")) return JSON.parse(text);
  const mark = crypto.randomUUID();
  let guarded: unknown;
  try {
    guarded = JSON.parse(withFirstKeys(text, mark));
  } catch {
    return JSON.parse(text); // whose message tells the place in the text as it is
  }
  return withoutFirstKeys(guarded, mark);
}

/** Begins every object with a new key, so that V8 reuses no earlier object's shape. */
function withFirstKeys(text: string, mark: string): string {
  const pieces: string[] = [];
  let from = 0;
  let objects = 0;
  let quoted = false;
  for (let at = 0; at < text.length; at++) {
    const character = text[at];
    if (quoted) {
      if (character === "\\") at++;
      else if (character === '"') quoted = false;
    } else if (character === '"') {
      quoted = true;
    } else if (character === "{") {
      let next = at + 1;
      while (next < text.length && " \t\n\r".includes(text[next])) next++;
      const comma = text[next] === "}" ? "" : ",";
      pieces.push(text.slice(from, at + 1), `"${mark}${objects++}":0${comma}`);
      from = at + 1;
    }
  }
  return pieces.join("") + text.slice(from);
}

function withoutFirstKeys(value: unknown, mark: string): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) {
    for (const item of value) withoutFirstKeys(item, mark);
    return value;
  }
  const record = value as Record<string, unknown>;
  for (const [key, item] of Object.entries(record)) {
    if (key.startsWith(mark)) delete record[key];
    else withoutFirstKeys(item, mark);
  }
  return record;
}

/** Whether a parsed value is a plain object. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether a parsed value is a list of natural numbers. */
export function isNaturals(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0);
}

/** Sets a key of a record, `__proto__` as any other. */
export function define(record: object, key: string, value: unknown): void {
  Object.defineProperty(record, key, {
    value,
    enumerable: true,
    writable: true,
    configurable: true,
  });
}
