import assert from "node:assert/strict";
import { i32, ints, ModuleBuilder } from "../../../kernels/asm/assembler.ts";
import { call } from "../../../kernels/asm/assembler.ts";
import { lineOf, panelBlockBytes } from "../../../kernels/formats/block_panels.ts";
import type { BlockForm } from "../../../kernels/formats/format.ts";
import { FORMATS, storedBytes, wasmOf, type WeightDtype } from "../../../kernels/formats/mod.ts";
import { PANEL_COLUMNS } from "../../../kernels/formats/panels.ts";
import { blockedDtypes } from "../twins_blocks.ts";

/** The blocks of a panel's 16 rows, as the file stores them. */
function unpack(panel: DataView, form: BlockForm, bytes: number, blocks: number): Uint8Array {
  const rowBytes = blocks * bytes;
  const rows = new DataView(new ArrayBuffer(PANEL_COLUMNS * rowBytes));
  const flipped = form.flipped ? 0x80008000 : 0; // the first byte of a word is its highest here
  for (let row = 0; row < PANEL_COLUMNS; row++) {
    for (let block = 0; block < blocks; block++) {
      const from = block * panelBlockBytes(form);
      const to = row * rowBytes + block * bytes;
      for (let word = 0; word < form.words; word++) {
        const at = from + lineOf(form, word) + 4 * row;
        const bits = panel.getUint32(at) ^ flipped;
        rows.setUint32(to + form.first + 4 * word, bits);
        if (word !== form.fifths) continue;
        for (let bit = 0; bit < 4; bit++) {
          let byte = 0;
          for (let i = 0; i < 8; i++) {
            const [group, of] = [2 * bit + (i >> 2), i & 3];
            byte |= (panel.getUint8(at + of) >> group & 1) << i;
          }
          rows.setUint8(to + form.first + 4 * word + bit, byte);
        }
      }
      if (form.half !== null) rows.setUint16(to + form.half, panel.getUint16(from + 2 * row));
    }
  }
  return new Uint8Array(rows.buffer);
}

for (const dtype of blockedDtypes("wasm")) {
  Deno.test(`panels hold the bits of the file's blocks, and no more (${dtype})`, () => {
    const { block, bytes } = FORMATS[dtype as WeightDtype];
    const wasm = wasmOf(dtype);
    const K = 2 * block;
    const rowBytes = storedBytes(dtype, K);
    const stored = new Uint8Array(PANEL_COLUMNS * rowBytes);
    for (let i = 0; i < stored.length; i++) stored[i] = Math.imul(i, 0x9e3779b1) >>> 24 & 0xbb;
    assert.equal(wasm.layout([PANEL_COLUMNS, K]).apart, stored.length);

    const m = new ModuleBuilder();
    const pack = wasm.pack(m, "NK");
    const run = m.define(
      ints("to", "from"),
      "int",
      (_, { to, from }) => call(pack, { to, from, count: K, pitch: rowBytes, mask: i32.const(0) }),
    );
    m.export("run", run);
    const memory = new WebAssembly.Memory({ initial: 2 });
    const module = new WebAssembly.Module(m.toBytes());
    const { exports } = new WebAssembly.Instance(module, { env: { memory } });
    new Uint8Array(memory.buffer).set(stored, 65536);
    assert.equal((exports.run as (to: number, from: number) => number)(0, 65536), 0);
    assert.deepEqual(
      unpack(new DataView(memory.buffer, 0, stored.length), wasm.blocks!, bytes, 2),
      stored,
    );
  });
}
