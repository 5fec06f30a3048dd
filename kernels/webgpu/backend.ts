import type { Backend } from "../backend.ts";
import { DeviceError } from "../errors.ts";

export function openWebGpuBackend(): Promise<Backend> {
  return Promise.reject(new DeviceError("not here yet"));
}
