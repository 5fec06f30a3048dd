/**
 * Chromium for tests: the variable WGSLM_CHROMIUM is its executable.
 *
 * @module
 */
// deno-lint-ignore no-import-prefix -- an entry in deno.json would make every user download it
import type { Browser, BrowserContextOptions, Page } from "npm:playwright-core@1.65.1";
import { within } from "../../patience.ts";

/** Path of the executable; empty if the tests in a browser are skipped. */
export const CHROMIUM = Deno.env.get("WGSLM_CHROMIUM") ?? "";
if (CHROMIUM === "") console.warn("SKIPPED: tests in a browser, since WGSLM_CHROMIUM is not set");

/** Milliseconds that a test in a browser may take; compiling every shader takes 150 s. */
const MOST_MS = 600_000;

/** Flags for WebGPU in software. */
export const SWIFTSHADER: readonly string[] = [
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
];

/** Runs a test with a page of a new browser; a failure leaves a picture of the page. */
export async function withPage(
  flags: readonly string[],
  test: (page: Page) => Promise<void>,
  { mostMs, ...options }: BrowserContextOptions & { readonly mostMs: number },
): Promise<void> {
  await withBrowser(flags, async (browser) => {
    const page = await browser.newPage(options);
    try {
      await test(page);
    } catch (error) {
      const path = await Deno.makeTempFile({ prefix: "wgslm-", suffix: ".png" });
      await page.screenshot({ path, fullPage: true, timeout: 5_000 }).catch(() => {});
      console.error(`Picture of the page: ${path}`);
      throw error;
    }
  }, mostMs);
}

/** Runs a test in a new browser; flags beside those that every test needs. */
export async function withBrowser(
  flags: readonly string[],
  test: (browser: Browser) => Promise<void>,
  mostMs = MOST_MS,
): Promise<void> {
  // deno-lint-ignore no-import-prefix -- as above
  const { chromium } = await import("npm:playwright-core@1.65.1"); // only if the test runs
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    // No sandbox: it does not work as root, and the pages load only this project.
    args: ["--no-sandbox", ...flags],
    timeout: mostMs,
  });
  try {
    await within("the end of a test in a browser", () => test(browser), mostMs);
  } finally {
    await browser.close();
  }
}
