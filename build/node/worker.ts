/**
 * Worker thread of the WebAssembly backend on Node and Bun.
 *
 * @module
 */
import "./scope.ts";
import "../../kernels/wasm/worker.ts";
