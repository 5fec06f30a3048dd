import { testFamilies } from "../engine/families.ts";

testFamilies("wasm", { threads: 2 });
