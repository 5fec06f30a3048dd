import { testFamilies } from "./families.ts";
import { testGoldens } from "./goldens.ts";

testGoldens("wasm");
testFamilies("wasm");
