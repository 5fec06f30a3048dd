import assert from "node:assert/strict";
import {
  doublings,
  fromZero,
  linear,
  logarithmic,
  type Scale,
  time,
} from "../../../../engine/measure/html/plot.ts";

const labels = ({ ticks }: Scale) => ticks.map(({ label }) => label);
const text = (value: number) => String(Math.round(value * 1e6) / 1e6);

Deno.test("linear() has round ticks within its range", () => {
  assert.deepEqual(labels(linear(0.3, 2.1, text)), ["0.5", "1", "1.5", "2"]);
  assert.deepEqual(labels(linear(-7, 12, text)), ["-5", "0", "5", "10"]);
  assert.equal(linear(10, 20, text).at(12.5), 25);
});

Deno.test("linear() puts the only value of an empty range in its middle", () => {
  for (const value of [0, 5, -3]) assert.equal(linear(value, value, text).at(value), 50);
});

Deno.test("fromZero() ends at a round number", () => {
  const scale = fromZero(2686, text);
  assert.deepEqual(labels(scale), ["0", "1000", "2000", "3000"]);
  assert.equal(scale.at(3000), 100);
  assert.deepEqual(labels(fromZero(0, text)).slice(0, 2), ["0", "0.2"]);
});

Deno.test("logarithmic() has ticks at 1, 2 and 5, and at powers over many of them", () => {
  assert.deepEqual(labels(logarithmic(0.4, 22, text)), ["0.5", "1", "2", "5", "10", "20"]);
  assert.deepEqual(labels(logarithmic(0.001, 10, text)), ["0.001", "0.01", "0.1", "1", "10"]);
  assert.ok(Math.abs(logarithmic(1, 100, text).at(10) - 50) < 1e-9);
});

Deno.test("doublings() spaces doublings equally and has a tick for each value", () => {
  const scale = doublings([4, 1, 2, 2], text);
  assert.deepEqual(scale.ticks, [{ at: 0, label: "1" }, { at: 50, label: "2" }, {
    at: 100,
    label: "4",
  }]);
});

Deno.test("time() has ticks at round times in UTC", () => {
  const at = Date.parse;
  assert.deepEqual(
    labels(time(at("2026-01-01T10:00Z"), at("2026-01-09T10:00Z"))),
    ["2026-01-03", "2026-01-05", "2026-01-07", "2026-01-09"],
  );
  assert.deepEqual(
    labels(time(at("2026-01-01T10:10Z"), at("2026-01-01T14:20Z"))),
    ["12:00", "14:00"],
  );
  assert.equal(time(5000, 5000).at(5000), 50);
});
