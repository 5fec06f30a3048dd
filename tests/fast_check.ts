/**
 * fast-check, for property tests. Pinned here and in `tests/deno.lock`, so that users of the engine
 * do not download it.
 *
 * @module
 */
export { default } from "npm:fast-check@4.10.2";
