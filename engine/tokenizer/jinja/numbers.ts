/**
 * Python's numbers: how floats are written, and arithmetic where it differs from JavaScript's.
 *
 * @module
 */
import { fail, Undefined, type Value } from "./values.ts";

/** Bits of an int: far more than any template counts to, far less than the memory. */
const MAX_BITS = 100_000;

/** Digits that Python writes of an int at most. */
const MAX_DIGITS = 4300;

/** Decimal digits of a float and the exponent of the first: 0.0125 → ["125", -2]. */
export function digitsOf(value: number, precision?: number): [digits: string, exponent: number] {
  const size = Math.abs(value);
  const split = (text: string): [string, number] => {
    const [mantissa, exponent] = text.split("e");
    return [mantissa.replace(".", ""), Number(exponent)];
  };
  if (precision === undefined) return split(size.toExponential());
  const places = Math.min(100, precision);
  const [exact, exponent] = split(size.toExponential(Math.min(100, places + EXACT)));
  const down = exact.slice(0, places + 1);
  return isEvenHalf(down, exact.slice(places + 1))
    ? [down, exponent]
    : split(size.toExponential(places));
}

/** Number of digits read after the last one kept, to detect that the rest is exactly a half. */
const EXACT = 40;

/** Whether a rest is a half after an even digit: Python rounds it down, JavaScript up. */
function isEvenHalf(down: string, rest: string): boolean {
  return /[02468]$/.test(down) && /^50*$/.test(rest);
}

/** `repr(float)`: the shortest digits that read back as the same number. */
export function writeFloat(value: number): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value < 0 ? "-inf" : "inf";
  const sign = value < 0 || Object.is(value, -0) ? "-" : "";
  const [digits, exponent] = digitsOf(value);
  if (exponent < -4 || exponent >= 16) return sign + writeExponent(digits, exponent);
  const text = writePoint(digits, exponent);
  return sign + (text.includes(".") ? text : `${text}.0`);
}

/** Digits with an exponent: "125", -7 → "1.25e-07". */
export function writeExponent(digits: string, exponent: number): string {
  const fraction = digits.length > 1 ? `.${digits.slice(1)}` : "";
  const power = String(Math.abs(exponent)).padStart(2, "0");
  return `${digits[0]}${fraction}e${exponent < 0 ? "-" : "+"}${power}`;
}

/** Digits with a point: "125", -2 → "0.0125". */
export function writePoint(digits: string, exponent: number): string {
  if (exponent < 0) return `0.${"0".repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, "0");
  return digits.length > exponent + 1 ? `${whole}.${digits.slice(exponent + 1)}` : whole;
}

/**
 * Formats a float with `places` digits after the point. Halves round to even; JavaScript rounds
 * them up.
 */
export function toFixed(value: number, places: number): string {
  if (!Number.isFinite(value)) return writeFloat(value);
  if (places > 100) fail("a precision of more than 100 digits");
  const size = Math.abs(value);
  const sign = value < 0 || Object.is(value, -0) ? "-" : "";
  if (size >= 1e21) return `${sign}${BigInt(size)}${places > 0 ? `.${"0".repeat(places)}` : ""}`;
  const further = Math.min(100, places + EXACT);
  const exact = size.toFixed(further);
  const cut = exact.length - further + places;
  const down = places === 0 ? exact.slice(0, cut - 1) : exact.slice(0, cut);
  return sign + (isEvenHalf(down, exact.slice(cut)) ? down : size.toFixed(places));
}

/** `str(int)`. */
export function writeInteger(value: bigint): string {
  const text = String(value);
  if (text.length > MAX_DIGITS + 1) fail(`an integer of more than ${MAX_DIGITS} digits`);
  return text;
}

/** An int as a float. */
export function toFloat(value: bigint | number): number {
  const float = Number(value);
  if (typeof value === "bigint" && !Number.isFinite(float)) {
    fail("int too large to convert to float");
  }
  return float;
}

/** An int as a number of JavaScript, for sizes and places: clamped to ±1e15. */
export function toIndex(value: bigint): number {
  return Number(BigInt.asIntN(64, value) === value ? value : value < 0n ? -1e15 : 1e15);
}

/** A float truncated to an int. */
export function truncate(value: number): bigint {
  if (!Number.isFinite(value)) fail(`cannot convert float ${writeFloat(value)} to integer`);
  return BigInt(Math.trunc(value));
}

type Pair = readonly [bigint, bigint];

/** The result of an operator on two numbers; undefined where one is none. */
export function calculate(operator: string, a: Value, b: Value): bigint | number | undefined {
  const [left, right] = [a, b].map((value) => typeof value === "boolean" ? BigInt(value) : value);
  if (typeof left === "bigint" && typeof right === "bigint") {
    return onIntegers(operator, [left, right]);
  }
  const isNumber = (value: Value) => typeof value === "bigint" || typeof value === "number";
  if (!isNumber(left) || !isNumber(right)) return undefined;
  return onFloats(operator, toFloat(left as number), toFloat(right as number));
}

function onIntegers(operator: string, [a, b]: Pair): bigint | number | undefined {
  switch (operator) {
    case "+":
      return a + b;
    case "-":
      return a - b;
    case "*":
      return checkBits(a, b), a * b;
    case "/":
      return onFloats("/", toFloat(a), toFloat(b));
    case "//":
      if (b === 0n) fail("integer division or modulo by zero");
      return a / b - (a % b !== 0n && (a < 0n) !== (b < 0n) ? 1n : 0n);
    case "%":
      if (b === 0n) fail("integer modulo by zero");
      return a % b + (a % b !== 0n && (a < 0n) !== (b < 0n) ? b : 0n);
    case "**":
      if (b < 0n) return onFloats("**", toFloat(a), toFloat(b));
      if (a !== 0n && a !== 1n && a !== -1n && BigInt(bitsOf(a)) * b > BigInt(MAX_BITS)) {
        fail(`an integer of more than ${MAX_BITS} bits`);
      }
      return a ** b;
  }
}

function bitsOf(value: bigint): number {
  return value.toString(16).length * 4;
}

function checkBits(a: bigint, b: bigint): void {
  const isSmall = BigInt.asIntN(64, a) === a && BigInt.asIntN(64, b) === b;
  if (!isSmall && bitsOf(a) + bitsOf(b) > MAX_BITS) {
    fail(`an integer of more than ${MAX_BITS} bits`);
  }
}

function onFloats(operator: string, a: number, b: number): number | undefined {
  switch (operator) {
    case "+":
      return a + b;
    case "-":
      return a - b;
    case "*":
      return a * b;
    case "/":
      return b === 0 ? fail("division by zero") : a / b;
    case "//": {
      const rest = onFloats("%", a, b)!;
      const quotient = (a - rest) / b;
      if (quotient === 0) return 0 * (a / b);
      return quotient - Math.floor(quotient) > 0.5 ? Math.ceil(quotient) : Math.floor(quotient);
    }
    case "%": {
      if (b === 0) fail("float modulo");
      const rest = a % b;
      if (rest === 0) return b < 0 ? -0 : 0;
      return rest < 0 === b < 0 ? rest : rest + b;
    }
    case "**": {
      if (a === 0 && b < 0) fail("0.0 cannot be raised to a negative power");
      const power = a === 1 ? 1 : a ** b;
      if (Number.isNaN(power) && !Number.isNaN(a) && !Number.isNaN(b)) {
        fail("a complex number, which is not supported");
      }
      if (!Number.isFinite(power) && Number.isFinite(a) && Number.isFinite(b)) {
        fail("numerical result out of range");
      }
      return power;
    }
  }
}

/** Unary `-` and `+`. */
export function negate(operator: string, value: Value): Value {
  if (value instanceof Undefined) value.fail();
  const number = typeof value === "boolean" ? BigInt(value) : value;
  if (typeof number !== "bigint" && typeof number !== "number") {
    return fail(`bad operand type for unary ${operator}`);
  }
  return operator === "-" ? -number : number;
}

/** Parses text as Python's int(); undefined if it is not an int. */
export function parseInteger(text: string, base = 10): bigint | undefined {
  const [, sign, prefix = "", digits] =
    /^([+-]?)(0[xob])?((?:_?[\da-z])+)$/i.exec(text.trim().replace(/^([+-]?)_/, "!")) ?? [];
  if (digits === undefined) return undefined;
  const bases: Record<string, number> = { "0x": 16, "0o": 8, "0b": 2 };
  const named = bases[prefix.toLowerCase()];
  if (prefix !== "" && base !== 0 && base !== named) {
    // "0b1" has the digit b in base 16.
    return base > 11 && base !== 16 ? undefined : parseDigits(sign, prefix + digits, base);
  }
  if (base === 0 && prefix === "" && /^0+[1-9]/.test(digits)) return undefined;
  return parseDigits(sign, digits, named ?? (base === 0 ? 10 : base));
}

function parseDigits(sign: string, digits: string, base: number): bigint | undefined {
  let value = 0n;
  const letters = digits.replaceAll("_", "").toLowerCase();
  if (letters.length > MAX_DIGITS) return undefined;
  for (const letter of letters) {
    const digit = parseInt(letter, 36);
    if (!(digit < base)) return undefined;
    value = value * BigInt(base) + BigInt(digit);
  }
  return sign === "-" ? -value : value;
}

/** Parses text as Python's float(); undefined if it is not a float. */
export function parseFloat(text: string): number | undefined {
  const trimmed = text.trim();
  const special = /^([+-]?)(inf|infinity|nan)$/i.exec(trimmed);
  if (special) {
    const value = special[2].toLowerCase() === "nan" ? NaN : Infinity;
    return special[1] === "-" ? -value : value;
  }
  const isFloat =
    /^[+-]?(?:\d+(?:_\d+)*\.?(?:\d+(?:_\d+)*)?|\.\d+(?:_\d+)*)(?:e[+-]?\d+(?:_\d+)*)?$/i;
  return isFloat.test(trimmed) ? Number(trimmed.replaceAll("_", "")) : undefined;
}

/** `round()`: halves go to the even digit. */
export function round(value: bigint | number, places: number): bigint | number {
  if (typeof value === "bigint") {
    if (places >= 0) return value;
    const unit = 10n ** BigInt(Math.min(-places, MAX_DIGITS));
    const rest = ((value % unit) + unit) % unit;
    const down = value - rest;
    const isUp = rest * 2n > unit || (rest * 2n === unit && (down / unit) % 2n !== 0n);
    return isUp ? down + unit : down;
  }
  if (!Number.isFinite(value) || places > 300) return value;
  if (places >= 0) return places > 20 ? value : Number(toFixed(value, places));
  const unit = 10 ** -places;
  const scaled = value / unit;
  const whole = Math.trunc(scaled);
  const half = Math.abs(scaled - whole);
  const isUp = half > 0.5 || (half === 0.5 && whole % 2 !== 0);
  return (isUp ? whole + Math.sign(scaled) : whole) * unit;
}
