import type { Backend } from "../backend.ts";
import { DeviceError } from "../errors.ts";

export function openWasmBackend(): Promise<Backend> {
  return Promise.reject(new DeviceError("not here yet"));
}
