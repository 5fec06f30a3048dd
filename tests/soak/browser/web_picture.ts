/// <reference lib="dom" />
/**
 * Picture of `web/` for the documents: the page after a benchmark of the demo.
 *
 *     deno run -A --lock=tests/deno.lock tests/soak/browser/web_picture.ts docs/web.png
 *
 * The variable WGSLM_CHROMIUM is the executable of Chromium.
 *
 * @module
 */
import { buildWeb, serveWeb } from "../../../build/web.ts";
import { withBrowser } from "./launch.ts";

if (import.meta.main) {
  const [path] = Deno.args;
  await buildWeb();
  await using server = serveWeb(0);
  await withBrowser([], async (browser) => {
    const page = await browser.newPage({ viewport: { width: 820, height: 900 } });
    await page.goto(`http://127.0.0.1:${server.addr.port}/`);
    await page.getByRole("button", { name: "Load the demo" }).click();
    await page.locator("#loaded").waitFor();
    await page.getByRole("tab", { name: "Benchmark" }).click();
    await page.getByRole("button", { name: "Run the benchmark" }).click();
    await page.locator("#bench-result").waitFor({ timeout: 120_000 });
    await page.screenshot({ path, fullPage: true });
  });
}
