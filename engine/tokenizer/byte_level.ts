/**
 * GPT-2's byte-to-character table: one printable character for each of the 256 bytes, so that
 * tokens of arbitrary bytes can be stored as text. As `bytes_to_unicode` in GPT-2's encoder.py: a
 * byte that is printable in Latin-1 maps to its own character, the others to U+0100 and up.
 *
 * @module
 */

/** Character of each byte [256]. */
export const BYTE_CHARACTERS: readonly string[] = byteCharacters();

/** Inverse of `BYTE_CHARACTERS`: character to byte. */
export const CHARACTER_BYTES: ReadonlyMap<string, number> = new Map(
  BYTE_CHARACTERS.map((character, byte) => [character, byte]),
);

function byteCharacters(): string[] {
  const isPrintable = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte !== 0xad);
  let next = 0x100;
  return Array.from(
    { length: 256 },
    (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : next++),
  );
}
