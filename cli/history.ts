/**
 * History of a conversation's lines, kept in a file of the user's cache folder.
 *
 * @module
 */
import { cacheFolder } from "../engine/host/tile_cache.ts";
import { runtime } from "../engine/host/runtime.ts";

/** Entries that are offered; the file is cut to them when it has twice as many. */
const MOST_ENTRIES = 1000;

/** Lines typed before, the oldest first. */
export class History {
  readonly entries: string[] = [];
  /** null: kept in memory only, without a home folder or without permission. */
  #path: string | null = null;

  constructor() {
    try {
      const folder = `${cacheFolder()}/wgslm`;
      runtime.mkdirSync(folder, { recursive: true });
      this.#path = `${folder}/chat_history`;
      this.#read(this.#path);
    } catch { // optional, as the tile cache is
    }
  }

  #read(path: string): void {
    let text: string;
    try {
      text = runtime.readTextFileSync(path);
    } catch (error) {
      if (error instanceof runtime.errors.NotFound) return; // the first conversation
      throw error;
    }
    // An entry a line, as JSON, since an entry may have several lines.
    const all = text.split("\n").filter(Boolean).flatMap((line) => {
      try {
        return [String(JSON.parse(line))];
      } catch { // torn by a crash
        return [];
      }
    });
    this.entries.push(...all.slice(-MOST_ENTRIES));
    if (all.length <= 2 * MOST_ENTRIES) return;
    runtime.writeTextFileSync(path, this.entries.map(toLine).join(""), { mode: 0o600 });
  }

  /** Adds a line that is neither empty nor the last one again. */
  add(entry: string): void {
    if (!entry.trim() || entry === this.entries.at(-1)) return;
    this.entries.push(entry);
    if (this.#path === null) return;
    try {
      runtime.writeTextFileSync(this.#path, toLine(entry), { append: true, mode: 0o600 });
    } catch {
      this.#path = null; // as if there were no folder
    }
  }
}

function toLine(entry: string): string {
  return `${JSON.stringify(entry)}\n`;
}
