/**
 * Dates as Python's `strftime` writes them where no language was chosen: English names, local time.
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

/** Writes a date; `%-d` leaves out leading zeros. A letter that is not known stands as it is. */
export function formatTime(date: Date, format: string): string {
  const [day, month] = [DAYS[date.getDay()], MONTHS[date.getMonth()]];
  const midnight = Date.UTC(date.getFullYear(), date.getMonth(), date.getDate());
  const numbers: Record<string, readonly [value: number, digits: number]> = {
    Y: [date.getFullYear(), 4],
    y: [date.getFullYear() % 100, 2],
    m: [date.getMonth() + 1, 2],
    d: [date.getDate(), 2],
    j: [(midnight - Date.UTC(date.getFullYear(), 0, 0)) / 864e5, 3],
    H: [date.getHours(), 2],
    I: [date.getHours() % 12 || 12, 2],
    M: [date.getMinutes(), 2],
    S: [date.getSeconds(), 2],
    f: [date.getMilliseconds() * 1000, 6],
    w: [date.getDay(), 1],
    u: [date.getDay() || 7, 1],
  };
  const words: Record<string, string> = {
    A: day,
    a: day.slice(0, 3),
    B: month,
    b: month.slice(0, 3),
    h: month.slice(0, 3),
    p: date.getHours() < 12 ? "AM" : "PM",
    n: "\n",
    t: "\t",
    "%": "%",
  };
  const short: Record<string, string> = { D: "%m/%d/%y", F: "%Y-%m-%d", R: "%H:%M", T: "%H:%M:%S" };
  return format.replace(/%(-?)([A-Za-z%])/g, (written, minus: string, letter: string) => {
    if (Object.hasOwn(short, letter)) return formatTime(date, short[letter]);
    if (Object.hasOwn(words, letter)) return words[letter];
    if (!Object.hasOwn(numbers, letter)) return written;
    const [value, digits] = numbers[letter];
    return minus ? String(value) : String(value).padStart(digits, "0");
  });
}
