/**
 * Picture of a page of reports for the documents: the top of the page in Chromium.
 *
 *     deno run -A --lock=tests/deno.lock tests/soak/browser/picture.ts REPORTS.json docs/report.png
 *
 * The variable WGSLM_CHROMIUM is the executable of Chromium.
 *
 * @module
 */
import { readHistory } from "../../../cli/report_files.ts";
import { toHtml } from "../../../mod.ts";
import { withBrowser } from "./launch.ts";

const [WIDTH, HEIGHT] = [1200, 1150];

if (import.meta.main) {
  const [reports, picture] = Deno.args;
  const html = toHtml(await readHistory(reports));
  await withBrowser([], async (browser) => {
    const page = await browser.newPage({ viewport: { width: WIDTH, height: HEIGHT } });
    await page.setContent(html);
    await page.screenshot({ path: picture });
  });
}
