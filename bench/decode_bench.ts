/**
 * Benches of the decode loop: the demo, and with `-- --random-weights` GPT-2's shape.
 *
 * @module
 */
import { decodeShare, measureDecode, openDemoLoop, openGpt2Loop } from "./decode.ts";
import { sharesAfter } from "./measuring.ts";

const loops = { demo: await openDemoLoop() };
if (Deno.args.includes("--random-weights")) {
  Object.assign(loops, { "GPT-2's shape": await openGpt2Loop() });
}

for (const [name, loop] of Object.entries(loops)) {
  // Deno.bench awaits only functions declared async.
  Deno.bench(`a token, ${name}`, async () => await loop.next());
}

sharesAfter("decode", async () => {
  const shares = [];
  for (const [name, loop] of Object.entries(loops)) {
    shares.push(decodeShare(`a token, ${name}`, await measureDecode(loop)));
  }
  return shares;
});
