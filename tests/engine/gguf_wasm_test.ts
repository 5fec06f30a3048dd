import { GGUF_FILES, testGgufs } from "./ggufs.ts";

// tests/soak/gguf_test.ts runs all files, with the cache and without.
const files = GGUF_FILES.filter((file) =>
  !/w256-(q5|iq4_xs|q6)|-q5_|^(starcoder2|granite|phi\.)/.test(file)
);
testGgufs("wasm", { files, cached: [true] });
