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

const [WIDTH, HEIGHT] = [1200, 1150];

if (import.meta.main) {
  const [reports, picture] = Deno.args;
  const html = toHtml(await readHistory(reports));
  // deno-lint-ignore no-import-prefix -- an entry in deno.json would make every user download it
  const { chromium } = await import("npm:playwright-core@1.65.1");
  const browser = await chromium.launch({
    executablePath: Deno.env.get("WGSLM_CHROMIUM"),
    args: ["--no-sandbox"], // it does not work as root
  });
  const page = await browser.newPage({ viewport: { width: WIDTH, height: HEIGHT } });
  await page.setContent(html);
  await page.screenshot({ path: picture });
  await browser.close();
}
