/**
 * `strftime` as in Python on Linux: English names, local time.
 *
 * @module
 */

const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS = [
  "January",
  "February",
  "March",
  "April",
  "May",
  "June",
  "July",
  "August",
  "September",
  "October",
  "November",
  "December",
];

const DAY_MS = 864e5;

/** Directives that expand to others. */
const COMPOSED: Readonly<Record<string, string>> = {
  c: "%a %b %e %H:%M:%S %Y",
  D: "%m/%d/%y",
  F: "%Y-%m-%d",
  r: "%I:%M:%S %p",
  R: "%H:%M",
  T: "%H:%M:%S",
  x: "%m/%d/%y",
  X: "%H:%M:%S",
};

/**
 * Formats a date. Flags before a directive's letter: `-` removes the padding, `_` pads with spaces,
 * `0` pads with zeros, `^` converts to upper case, `#` does so too, except AM and PM to lower case.
 * An unknown directive stays unchanged.
 */
export function formatTime(date: Date, format: string): string {
  const [numbers, words] = [numbersOf(date), wordsOf(date)];
  return format.replace(/%([-_0^#]?)([A-Za-z%])/g, (written, flag: string, letter: string) => {
    if (Object.hasOwn(COMPOSED, letter)) return cased(formatTime(date, COMPOSED[letter]), flag);
    if (Object.hasOwn(words, letter)) return cased(words[letter], flag, letter);
    if (!Object.hasOwn(numbers, letter)) return written;
    const [value, digits, fill = "0"] = numbers[letter];
    if (flag === "-") return String(value);
    return String(value).padStart(digits, flag === "_" ? " " : flag === "0" ? "0" : fill);
  });
}

function cased(text: string, flag: string, letter = ""): string {
  if (flag === "#" && letter === "p") return text.toLowerCase();
  return flag === "^" || flag === "#" ? text.toUpperCase() : text;
}

type NumberField = readonly [value: number, digits: number, fill?: string];

function numbersOf(date: Date): Readonly<Record<string, NumberField>> {
  const [year, hour, weekday] = [date.getFullYear(), date.getHours(), date.getDay()];
  const yearDay = dayOfYear(date);
  const [isoYear, isoWeek] = isoWeekOf(date);
  return {
    Y: [year, 4],
    C: [Math.floor(year / 100), 2],
    y: [year % 100, 2],
    G: [isoYear, 4],
    g: [isoYear % 100, 2],
    m: [date.getMonth() + 1, 2],
    d: [date.getDate(), 2],
    e: [date.getDate(), 2, " "],
    j: [yearDay, 3],
    U: [Math.floor((yearDay + 6 - weekday) / 7), 2], // weeks from the first Sunday
    W: [Math.floor((yearDay + 6 - (weekday + 6) % 7) / 7), 2], // from the first Monday
    V: [isoWeek, 2],
    u: [weekday || 7, 1],
    w: [weekday, 1],
    H: [hour, 2],
    I: [hour % 12 || 12, 2],
    k: [hour, 2, " "],
    l: [hour % 12 || 12, 2, " "],
    M: [date.getMinutes(), 2],
    S: [date.getSeconds(), 2],
    s: [Math.floor(date.getTime() / 1000), 1],
    f: [date.getMilliseconds() * 1000, 6],
  };
}

function wordsOf(date: Date): Readonly<Record<string, string>> {
  const [day, month] = [DAYS[date.getDay()], MONTHS[date.getMonth()]];
  const half = date.getHours() < 12 ? "AM" : "PM";
  return {
    A: day,
    a: day.slice(0, 3),
    B: month,
    b: month.slice(0, 3),
    h: month.slice(0, 3),
    p: half,
    P: half.toLowerCase(),
    n: "\n",
    t: "\t",
    "%": "%",
    // Python's datetime.now() has no time zone.
    z: "",
    Z: "",
  };
}

function dayOfYear(date: Date): number {
  const midnight = Date.UTC(date.getFullYear(), date.getMonth(), date.getDate());
  return (midnight - Date.UTC(date.getFullYear(), 0, 0)) / DAY_MS;
}

/** ISO 8601 week: it belongs to the year of its Thursday. */
function isoWeekOf(date: Date): [year: number, week: number] {
  const thursday = new Date(
    date.getFullYear(),
    date.getMonth(),
    date.getDate() + 4 - (date.getDay() || 7),
  );
  return [thursday.getFullYear(), Math.ceil(dayOfYear(thursday) / 7)];
}
