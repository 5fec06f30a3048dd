/**
 * The page of reports in Chromium; the variable WGSLM_CHROMIUM is its executable.
 *
 * The page opens without an error and without a request, every plot has its marks, the overview is
 * sorted from the keyboard, and it works on a narrow screen and without scripts.
 */
import assert from "node:assert/strict";
// deno-lint-ignore no-import-prefix -- an entry in deno.json would make every user download it
import type { Browser, BrowserContextOptions, Page } from "npm:playwright-core@1.65.1";
import { type BenchmarkReport, toHtml } from "../../mod.ts";
import { sampleReport } from "../engine/measure/sample_report.ts";
import { inTempFolder } from "../safetensors.ts";
import { CHROMIUM, withBrowser } from "./browser/launch.ts";

/** Times of the tokens of three iterations, seeded by a number. */
function iterations(seed: number, tokens = 64): BenchmarkReport["results"]["per_iter"] {
  return [0, 1, 2].map((i) => ({
    ...{ started_ms: 900 * i, seconds: 0.8, tokens_per_sec: tokens / 0.8, seed: i },
    token_ms: Array.from({ length: tokens }, (_, k) => 5 + seed + (k * 7919 % 101) / 100 + i / 10),
  }));
}

const KERNELS = ["matmul", "attention", "norm", "sample"].map((name, i) => ({
  ...{ name, calls: i + 1, ms: 4 - i, share: (4 - i) / 10, bytes: 1e6, flops: 1e6 },
  ...{ gb_per_sec: 5, gflops_per_sec: 5, limit_share: 0.4 + 0.3 * i, limit: "memory" as const },
}));
const PASS = { rows: 1, length: 9, ms: 11, kernels_ms: 10, kernels: KERNELS };
const PROFILE = {
  limits: { gb_per_sec: 10, gflops_per_sec: 50 },
  decode: PASS,
  prefill: { ...PASS, rows: 32, length: 32 },
};

/** Report of a setup on a day of January. */
function report(threads: number, rate: number, day = 1, profile?: typeof PROFILE): BenchmarkReport {
  return sampleReport({
    timestamp: `2026-01-${String(day).padStart(2, "0")}T10:00:00Z`,
    engine: { threads },
    results: {
      tokens_per_sec: { mean: rate, min: 1, max: 999, stddev: 1, low: rate - 5, high: rate + 4 },
      per_iter: iterations(threads),
      ...profile && { profile },
    },
  });
}

/** Three numbers of threads; one of them measured on three days, and one with a profile. */
const REPORTS = [
  report(1, 100),
  report(2, 180, 1, PROFILE),
  report(4, 300, 1),
  report(4, 310, 2),
  report(4, 305, 3),
];

/** What a page did: its errors, messages and requests. */
interface Opened {
  readonly page: Page;
  readonly noise: readonly string[];
}

/** Opens a page from a file. */
async function open(
  browser: Browser,
  html: string,
  folder: string,
  options: BrowserContextOptions = {},
): Promise<Opened> {
  const path = `${folder}/page.html`;
  await Deno.writeTextFile(path, html);
  const page = await (await browser.newContext(options)).newPage();
  page.setDefaultTimeout(0); // the test has a deadline
  const noise: string[] = [];
  page.on("console", (message) => noise.push(`console: ${message.text()}`));
  page.on("pageerror", (error) => noise.push(`error: ${error.message}`));
  page.on("request", (request) => noise.push(`request: ${request.url()}`));
  await page.goto(`file://${path}`);
  assert.deepEqual(noise.splice(0), [`request: file://${path}`]);
  return { page, noise };
}

/** Registers a test with a browser. */
function inBrowser(name: string, test: (browser: Browser, folder: string) => Promise<void>): void {
  Deno.test({
    name: `page of reports: ${name}`,
    ignore: CHROMIUM === "",
    fn: () => inTempFolder((folder) => withBrowser([], (browser) => test(browser, folder))),
  });
}

/** Counts elements that have a size on the screen. */
async function visible(page: Page, selector: string): Promise<number> {
  const boxes = await page.$$eval(selector, (all) =>
    all.map((element) => {
      const { width, height } = element.getBoundingClientRect();
      return width + height;
    }));
  return boxes.filter((size) => size > 1).length;
}

inBrowser("every plot has its marks, a title and a description", async (browser, folder) => {
  const { page, noise } = await open(browser, toHtml(REPORTS), folder);
  const marks: Record<string, number> = {
    "#overview tbody tr": 5,
    "#rates .bar": 5,
    "#rates .whisker": 5,
    "#times .area path": 5,
    "#times .median": 5,
    "#times .tail": 5,
    "#context .line": 5,
    "#context .line circle": 5 * 7, // 63 tokens, at least 8 a point
    "#threads .line": 1,
    "#threads .line circle": 3,
    "#kernels figure": 2,
    "#kernels .bar": 8,
    "#kernels .bound": 8,
    "#memory figure": 5,
    "#memory rect": 5 * 4 * 4,
    "#history .line": 1,
    "#history .line circle": 3,
    "#history .line > line": 3, // intervals
  };
  for (const [selector, count] of Object.entries(marks)) {
    assert.equal(await visible(page, selector), count, selector);
  }
  const plots = await page.$$eval("svg.plot", (all) =>
    all.map((svg) => {
      const of = (name: string) =>
        svg.ownerDocument.getElementById(svg.getAttribute(name) ?? "")?.textContent ?? "";
      return [svg.getAttribute("role"), of("aria-labelledby"), of("aria-describedby")];
    }));
  assert.equal(plots.length, 1 + 1 + 1 + 1 + 2 + 5 + 1);
  for (const [role, title, description] of plots) {
    assert.equal(role, "img");
    assert.ok(title!.length > 5 && description!.length > 20, `${title}: ${description}`);
  }
  const widths = await page.$$eval(
    "#rates .bar",
    (all) => all.map((bar) => bar.getBoundingClientRect().width),
  );
  const ratios = widths.map((width) => width / widths[0]);
  const expected = [310, 305, 300, 180, 100].map((rate) => rate / 310);
  assert.ok(ratios.every((ratio, i) => Math.abs(ratio - expected[i]) < 0.01), `${ratios}`);
  await page.hover("#rates .bar");
  assert.match(
    await page.innerText("#tip"),
    /^demo .*310\.0\stok\/s, 95 % interval 305\.0 to 314\.0$/,
  );
  assert.deepEqual(noise, []);
});

inBrowser("the overview is sorted by keyboard, and says how", async (browser, folder) => {
  const { page } = await open(browser, toHtml(REPORTS), folder);
  const means = () =>
    page.$$eval(
      "#overview tbody tr",
      (rows) => rows.map((row) => Number(row.querySelector("b")!.textContent)),
    );
  const head = page.locator("#overview thead th", { hasText: "Mean" });
  const button = head.getByRole("button");
  await button.focus();
  await page.keyboard.press("Enter");
  assert.equal(await head.getAttribute("aria-sort"), "descending");
  assert.deepEqual(await means(), [310, 305, 300, 180, 100]);
  await page.keyboard.press("Space");
  assert.equal(await head.getAttribute("aria-sort"), "ascending");
  assert.deepEqual(await means(), [100, 180, 300, 305, 310]);
  await page.keyboard.press("Shift+Tab");
  await page.keyboard.press("Enter");
  assert.equal(await page.locator("[aria-sort]").count(), 1, "one column at a time");
  const focused = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle");
  assert.equal(focused, "solid", "the focus is visible");
});

inBrowser("it fits a narrow screen, and needs no script", async (browser, folder) => {
  for (const colorScheme of ["light", "dark"] as const) {
    const { page, noise } = await open(browser, toHtml(REPORTS), folder, {
      ...{ viewport: { width: 390, height: 844 }, javaScriptEnabled: false, colorScheme },
    });
    assert.equal(await visible(page, "#rates .bar"), 5);
    assert.equal(await page.locator("thead button").count(), 0);
    // Frames around wide tables scroll; the page does not.
    const { width } = (await page.locator("main").boundingBox())!;
    assert.ok(width <= 390, `${width}`);
    const wide = await page.locator("section").evaluateAll((all) =>
      all.filter((section) => section.scrollWidth > 390).map(({ id }) => id)
    );
    assert.deepEqual(wide, []);
    assert.deepEqual(noise, []);
  }
});

inBrowser("a report cannot run a script", async (browser, folder) => {
  const id = `</script><script>document.title = "run"</script><img src=x onerror="alert(1)">`;
  const hostile = sampleReport({ model: { id }, generation: { prompt: id } });
  const { page, noise } = await open(browser, toHtml([hostile, sampleReport()]), folder);
  assert.match(await page.title(), /^Benchmark of/);
  assert.equal(await page.locator("img").count(), 0);
  assert.ok((await page.innerText("#overview")).includes(id));
  assert.deepEqual(noise, []);
});

inBrowser("200 reports open quickly", async (browser, folder) => {
  const many = Array.from({ length: 200 }, (_, i) =>
    sampleReport({
      engine: { threads: 1 + i % 8 },
      model: { id: `models/of/somebody/name-${i >> 3}.safetensors` },
      results: { per_iter: iterations(i % 8, 256), profile: PROFILE },
    }));
  const html = toHtml(many);
  assert.ok(html.length < 1.5e6, `${html.length} bytes`);
  const { page } = await open(browser, html, folder);
  assert.equal(await visible(page, "#rates .bar"), 200);
  const ms = await page.evaluate(
    "performance.timing.loadEventEnd - performance.timing.navigationStart",
  ) as number;
  console.log(`200 reports: ${html.length} bytes, loaded in ${ms} ms`);
  assert.ok(ms < 60_000, `${ms} ms`); // not a measurement: 0.7 s on two quiet cores
});
