// Byte-level tokenizers write each byte as a printable character, so that vocabularies are text.
// Source: bytes_to_unicode of GPT-2's encoder.py.

const isPrintable = (byte: number): boolean =>
  (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff)

/** @internal The character of each byte: itself when it is printable, else the next free one from U+0100. */
export const byteToChar: readonly string[] = (() => {
  let free = 0x100
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : free++))
})()
