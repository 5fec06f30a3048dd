/**
 * GPT-2's spelling of bytes: each of the 256 as one printable character, so that a vocabulary of
 * bytes is a vocabulary of texts. As `bytes_to_unicode` in GPT-2's encoder.py: what is printable in
 * Latin-1 stands for itself, the others follow from U+0100 on.
 *
 * @module
 */

/** The character of each byte. */
export const BYTE_CHARACTERS: readonly string[] = spellBytes();

/** The byte of each character. */
export const CHARACTER_BYTES: ReadonlyMap<string, number> = new Map(
  BYTE_CHARACTERS.map((character, byte) => [character, byte]),
);

function spellBytes(): string[] {
  const isPrintable = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte !== 0xad);
  let next = 0x100;
  return Array.from(
    { length: 256 },
    (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : next++),
  );
}
