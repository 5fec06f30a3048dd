/**
 * The tests' hub at the address of the real one, for pages.
 *
 * @module
 */
// deno-lint-ignore no-import-prefix -- an entry in deno.json would make every user download it
import type { Page } from "npm:playwright-core@1.65.1";
import type { HubServer } from "../../hub_server.ts";

/** Sends a page's requests to huggingface.co to the server; they fail once it is closed. */
export async function routeHub(page: Page, hub: HubServer): Promise<void> {
  await page.context().route("https://huggingface.co/**", async (route) => {
    const { pathname, search } = new URL(route.request().url());
    try {
      const response = await route.fetch({ url: hub.url + pathname + search });
      const headers = { ...response.headers(), "access-control-allow-origin": "*" };
      await route.fulfill({ response, headers });
    } catch {
      await route.abort(); // the server or the page is closed
    }
  });
}
