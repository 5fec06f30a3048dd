/**
 * Plans of the WebAssembly backend: a program to run, and its text.
 *
 * @module
 */
import type { KernelText, Plan } from "../backend.ts";
import { onlySegment, type Segment, type Step, type StepRoom } from "../step.ts";
import type { Call } from "../calls.ts";
import { type Code, kernelTexts } from "../kernel_text.ts";
import { functionText, type LocalNames, moduleText, readModule } from "../asm/text.ts";
import type { Run } from "./control.ts";
import type { Entry } from "./program.ts";

/** A recorded pass. Disposing drops the reference to its program, and so to the memory. */
export class WasmPlan implements Plan {
  #run: ((segment: Segment) => void) | null;

  constructor(
    readonly room: StepRoom,
    run: (segment: Segment) => void,
    readonly fail: (error: unknown) => void,
    readonly release: () => void,
  ) {
    this.#run = run;
  }

  run(step: Step | Segment): void {
    const segment = onlySegment(step, this.room);
    try {
      this.#run?.(segment);
    } catch (error) {
      this.fail(error);
    }
  }

  [Symbol.dispose](): void {
    if (!this.#run) return;
    this.#run = null;
    this.release();
  }
}

/** Runs a program on the calling thread only. */
export function runAlone(run: Run): (segment: Segment) => void {
  return ({ rows, position, slot, length }) => void run(0, 0, rows, position, slot, length);
}

/** Texts of a module's kernels, each with the functions it calls, and of the whole module. */
export function programTexts(
  { bytes, names }: { readonly bytes: Uint8Array; readonly names: LocalNames },
  calls: readonly Call[],
  lowered: readonly (readonly Entry[])[],
): KernelText[] {
  const module = readModule(bytes, names);
  const codes = new Map<number, Code>();
  const codeOf = ({ kernel: { index } }: Entry): Code => {
    const code = codes.get(index) ?? functionText(module, index);
    codes.set(index, code);
    return code;
  };
  const program = { op: "program", name: "program", language: "wat", calls: 1 } as const;
  const operands: readonly string[] = [];
  return [
    ...kernelTexts(calls, lowered, "wat", codeOf),
    { ...program, operands, bytes: bytes.length, text: moduleText(bytes, names) },
  ];
}
