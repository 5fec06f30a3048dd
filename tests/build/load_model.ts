/**
 * A page's program that loads models and no more.
 *
 * @module
 */
export { loadModel } from "../../mod.ts";
