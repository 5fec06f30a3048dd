import { testGgufs } from "./ggufs.ts";

// tests/soak/gguf_test.ts runs all files without the cache, too.
testGgufs("wasm", { cached: [true] });
