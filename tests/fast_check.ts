/**
 * Property tests. Pinned here and in `tests/deno.lock`, so that running the engine does not download it.
 *
 * @module
 */
export { default } from "npm:fast-check@4.10.2";
