/**
 * Bytes that this thread reads of files, for tests.
 *
 * @module
 */
import assert from "node:assert/strict";
import { Spy } from "./kernels/spy.ts";

/** Runs `work` and asserts that it reads less than 4 MiB: it must seek, not scan the file. */
export async function expectSeeks(work: () => Promise<void>): Promise<void> {
  let bytes = 0;
  using spy = new Spy();
  spy.on(Deno.FsFile, "readSync", (_, count) => bytes += Number(count ?? 0));
  spy.on(Deno.FsFile, "read", (_, count) => {
    (count as Promise<number | null>).then((count) => bytes += Number(count ?? 0));
  });
  await work();
  assert.ok(bytes > 0 && bytes < 2 ** 22, `${bytes} bytes were read`);
}
