import { wasmTwinTests } from "../kernels/wasm_twins.ts";

wasmTwinTests(2);
