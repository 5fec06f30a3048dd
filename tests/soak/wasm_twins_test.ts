import { wasmTwinTests } from "../kernels/wasm_twins.ts";

wasmTwinTests({ threads: 2 });
wasmTwinTests({ threads: 2, address: "i64" });
