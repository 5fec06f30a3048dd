/**
 * JSON parser that reads escaped keys correctly, and checks of parsed values.
 *
 * V8's JSON.parse can misread an escaped key: after an object `{ …, "\\": … }`, the key `"\""` of
 * another object with the same first keys is read as `"\\"`. Byte-level vocabularies have both
 * keys.
 *
 * @module
 */

/**
 * JSON.parse() with correct keys.
 *
 * Trick: a unique first key in every object gives it its own shape, so that V8 cannot reuse the
 * shape of an earlier object. It can go when V8 reads escaped keys correctly; a test checks that.
 * @throws {SyntaxError} If the text is not JSON, or nests deeper than `MAX_NESTING`.
 */
export function parseJson(text: string): unknown {
  // Without a backslash no key is escaped.
  if (!text.includes("\\")) return expectShallow(JSON.parse(text));
  const prefix = crypto.randomUUID();
  let guarded: unknown;
  try {
    guarded = JSON.parse(withFirstKeys(text, prefix));
  } catch {
    return expectShallow(JSON.parse(text)); // throws with the position in the original text
  }
  return withoutFirstKeys(expectShallow(guarded), prefix);
}

/** Levels of nesting that a file may have; real ones have fewer than 20. */
export const MAX_NESTING = 512;

/** Whether a value nests deeper than `MAX_NESTING`, where recursion could overflow the stack. */
export function isDeep(value: unknown, level = 1): boolean {
  if (typeof value !== "object" || value === null) return false;
  if (level > MAX_NESTING) return true;
  // Loops, not lists of keys or values: a vocabulary has 100,000.
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) if (isDeep(value[i], level + 1)) return true;
    return false;
  }
  for (const key in value) {
    if (isDeep((value as Record<string, unknown>)[key], level + 1)) return true;
  }
  return false;
}

function expectShallow(value: unknown): unknown {
  if (!isDeep(value)) return value;
  throw new SyntaxError(`more than ${MAX_NESTING} levels of nesting`);
}

/** Adds a unique first key to every object. */
function withFirstKeys(text: string, prefix: string): string {
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
      pieces.push(text.slice(from, at + 1), `"${prefix}${objects++}":0${comma}`);
      from = at + 1;
    }
  }
  return pieces.join("") + text.slice(from);
}

/** Removes the keys that `withFirstKeys` added. */
function withoutFirstKeys(value: unknown, prefix: string): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) withoutFirstKeys(value[i], prefix);
    return value;
  }
  const record = value as Record<string, unknown>;
  for (const key in record) {
    if (key.startsWith(prefix)) delete record[key];
    else withoutFirstKeys(record[key], prefix);
  }
  return record;
}

/** Whether a parsed value is a plain object. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether a parsed value is an array of natural numbers below 2^53. */
export function isNaturals(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0);
}

/** Sets a key of a record; `__proto__` is treated as any other key. */
export function define(record: object, key: string, value: unknown): void {
  Object.defineProperty(record, key, {
    value,
    enumerable: true,
    writable: true,
    configurable: true,
  });
}
