/// <reference lib="dom" />
/**
 * The page of `web/`, used as a visitor does: load, chat, stop, benchmark, download, kernels; with
 * the keyboard, on a phone's width, in the dark. The variable WGSLM_CHROMIUM is Chromium's
 * executable.
 */
import assert from "node:assert/strict";
// deno-lint-ignore no-import-prefix -- an entry in deno.json would make every user download it
import type { Page } from "npm:playwright-core@1.65.1";
import { buildWeb, serveWeb } from "../../build/web.ts";
import type { BenchmarkReport } from "../../mod.ts";
import { HubServer } from "../hub_server.ts";
import { routeHub } from "./browser/hub.ts";
import { CHROMIUM, SWIFTSHADER, withPage } from "./browser/launch.ts";
import { serveModel } from "./browser/model_server.ts";

/** Timeout of a test in milliseconds, longer than any of them takes. */
const TIMEOUT_MS = 240_000;

const DEMO = new URL("../../bench/demo/", import.meta.url);

let built: Promise<URL> | undefined;

/** Builds the page, once; the folder is removed when the process ends. */
async function build(): Promise<URL> {
  const folder = await Deno.makeTempDir({ prefix: "wgslm-web-" });
  globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
  const dist = new URL(`file://${folder}/`);
  await buildWeb(dist);
  return dist;
}

/** Differences from a test on the page's own origin with WebGPU. */
interface Setting {
  readonly flags?: readonly string[];
  /** Errors of the browser's console, and requests to other origins, that the test causes. */
  readonly expected?: RegExp;
}

/** Registers a test with the page in a new browser; it must print no error. */
function onPage(
  name: string,
  test: (page: Page) => Promise<void>,
  { flags = SWIFTSHADER, expected = /^$/ }: Setting = {},
): void {
  Deno.test({
    name: `web/: ${name}`,
    ignore: CHROMIUM === "",
    fn: async () => {
      await using server = serveWeb(0, await (built ??= build()));
      const { origin } = new URL(`http://127.0.0.1:${server.addr.port}/`);
      await withPage(flags, async (page) => {
        page.setDefaultTimeout(TIMEOUT_MS / 2);
        const { errors, foreign } = listen(page, origin);
        await page.goto(`${origin}/`);
        await test(page);
        assert.deepEqual(errors.filter((line) => !expected.test(line)), []);
        assert.deepEqual(foreign.filter((url) => !expected.test(url)), []);
      }, { viewport: { width: 1000, height: 900 }, mostMs: TIMEOUT_MS });
    },
  });
}

/** Collects a page's errors, and its requests to other origins. */
function listen(page: Page, origin: string): { errors: string[]; foreign: string[] } {
  const [errors, foreign]: string[][] = [[], []];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (line) => {
    if (line.type() === "error") errors.push(line.text());
  });
  page.on("request", (request) => {
    if (!/^(blob|data):/.test(request.url()) && !request.url().startsWith(origin)) {
      foreign.push(request.url());
    }
  });
  return { errors, foreign };
}

/** Violations of axe-core's rules, by rule and element. */
async function violations(page: Page): Promise<string[]> {
  // deno-lint-ignore no-import-prefix -- as above
  const { default: axe } = await import("npm:axe-core@4.11.0");
  // Evaluated, not added as a script: the page's policy allows no foreign one.
  await page.evaluate(axe.source);
  return await page.evaluate(async () => {
    const { axe } = globalThis as unknown as {
      axe: {
        run(): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }>;
      };
    };
    const { violations } = await axe.run();
    return violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`));
  });
}

async function loadDemo(page: Page, device?: string): Promise<void> {
  if (device) {
    await page.getByText("Settings").click();
    await page.getByLabel("Device").selectOption(device);
  }
  await page.getByRole("button", { name: "Load the demo" }).click();
  await page.locator("#loaded").waitFor();
}

onPage(
  "a visitor loads the demo, writes, stops, measures and downloads the report",
  async (page) => {
    assert.deepEqual(await violations(page), []);
    await loadDemo(page);
    assert.match(await page.locator("#facts").innerText(), /4,886,784/);
    await page.getByLabel("Beginning of a text").fill("JULIET:");
    await page.keyboard.press("Enter");
    const rate = page.locator("#chat-rate");
    await rate.filter({ hasText: /\d+ tokens, [\d.]+ per second/ }).waitFor();
    await rate.filter({ hasText: "length" }).waitFor();
    assert.match(await page.locator("#chat-log").innerText(), /JULIET:.{100}/s);
    await page.getByText("Sampling").click();
    await page.getByLabel("Tokens at most").fill("100000");
    await page.getByRole("button", { name: "Send" }).click();
    await page.getByRole("button", { name: "Stop", exact: true }).click();
    await rate.filter({ hasText: "stopped" }).waitFor();
    assert.deepEqual(await violations(page), []);

    await page.getByRole("tab", { name: "Benchmark" }).click();
    await page.getByLabel("Generated tokens").fill("8");
    await page.getByRole("button", { name: "Run the benchmark" }).click();
    await page.locator("#bench-result").waitFor();
    assert.match(await page.locator("#bench-facts").innerText(), /passed: same ids as js/);
    assert.deepEqual(await violations(page), []);
    const report: BenchmarkReport = JSON.parse(await downloaded(page, "Download JSON"));
    assert.equal(report.results.iters, 3);
    assert.equal(report.generation.gen_tokens, 8);
    assert.match(report.platform.browser!, /Chrom/);
    assert.match(await downloaded(page, "Download HTML"), /^<!DOCTYPE html>/i);
    await Deno.mkdir("outputs", { recursive: true });
    await page.screenshot({ path: "outputs/web.png", fullPage: true });
  },
);

async function downloaded(page: Page, button: string): Promise<string> {
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: button }).click(),
  ]);
  return await Deno.readTextFile(await download.path());
}

onPage("on WebGPU it shows the kernels, their text and their time", async (page) => {
  await loadDemo(page, "webgpu");
  await page.getByRole("tab", { name: "Kernels" }).click();
  const first = page.locator("#kernels-texts details").first();
  await first.locator("summary").click();
  assert.match(await first.locator("pre").innerText(), /@compute/);
  await page.getByRole("button", { name: "Time the kernels" }).click();
  await page.locator("#kernels-shares table").nth(1).waitFor();
  assert.match(await page.locator("#kernels-shares").innerText(), /One token[^]*matmul[^]*%/);
  assert.deepEqual(await violations(page), []);
});

onPage("errors are sentences; files, keyboard, a phone's width and the dark work", async (page) => {
  await page.setViewportSize({ width: 360, height: 740 });
  await page.emulateMedia({ colorScheme: "dark" });
  assert.deepEqual(await violations(page), []);
  const error = page.locator("#load-error");
  await page.getByLabel("Address of a model").focus();
  await page.keyboard.press("Enter");
  await error.filter({ hasText: "Enter an address" }).waitFor();
  await page.keyboard.type("nothing/");
  await page.keyboard.press("Enter");
  await error.filter({ hasText: "expected a model.safetensors in it" }).waitFor();
  const paths = ["config.json", "tokenizer.json", "model.safetensors"];
  await page.locator("#files").setInputFiles(paths.map((name) => new URL(name, DEMO).pathname));
  await page.locator("#loaded").waitFor();
  assert.ok(await error.isHidden());
  assert.match(await page.locator("#loaded-title").innerText(), /3 files/);
  await page.getByRole("tab", { name: "Chat" }).focus();
  await page.keyboard.press("ArrowRight");
  assert.equal(await page.evaluate(() => document.activeElement?.id), "tab-bench");
  assert.ok(await page.locator("#panel-bench").isVisible());
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= 360, `${width} pixels wide`);
  assert.deepEqual(await violations(page), []);
});

/** Types an address and waits for the error. */
async function refusal(page: Page, address: string, sentence: string | RegExp): Promise<void> {
  await page.getByLabel("Address of a model").fill(address);
  await page.keyboard.press("Enter");
  await page.locator("#load-error").filter({ hasText: sentence }).waitFor();
  assert.ok(await page.locator("#loading").isHidden());
}

const OTHERS = /127\.0\.0\.1|huggingface\.co|Failed to load resource|CORS/;

onPage("a download is stopped and resumes; what a server refuses is a sentence", async (page) => {
  await using server = serveModel(DEMO);
  const { behaviour, url } = server;
  behaviour.stallAfter = 1 << 20;
  await page.getByLabel("Address of a model").fill(url);
  await page.keyboard.press("Enter");
  await page.locator("#loading-text").filter({ hasText: "1.0 MiB of 9.3 MiB" }).waitFor();
  await page.getByRole("button", { name: "Cancel" }).focus();
  await page.keyboard.press("Enter");
  await page.locator("#loading").waitFor({ state: "hidden" });
  assert.ok(await page.locator("#load-error").isHidden());
  await page.getByText("Files kept in this browser").click();
  await page.locator("#stored-list").filter({ hasText: "not complete" }).waitFor();
  behaviour.stallAfter = Infinity;
  await page.getByRole("button", { name: "Load", exact: true }).click();
  await page.locator("#loaded").waitFor();
  assert.ok(server.requests.includes(`GET model.safetensors bytes=${1 << 20}-`));
  await page.getByRole("button", { name: /^Remove / }).click();
  await page.locator("#stored-space").filter({ hasText: "No files are kept" }).waitFor();

  await using other = serveModel(DEMO);
  other.behaviour.cors = false;
  await refusal(page, other.url, "allows this page (CORS)");
  other.behaviour.cors = true;
  await refusal(page, `${other.url}none.gguf`, "there is no such file");
  other.behaviour.answers.set("model.safetensors", () => new Response("<html>".repeat(9)));
  await refusal(page, other.url, /Cannot (open|read) "http/);
  await refusal(page, "ftp://host/model", "expected an http or https URL");
  assert.deepEqual(await violations(page), []);
}, { expected: OTHERS });

onPage("a repository of Hugging Face loads by its id, with the keyboard alone", async (page) => {
  await using hub = new HubServer({ "owner/demo": { files: DEMO.pathname } });
  await routeHub(page, hub);
  await page.keyboard.press("Tab"); // the link that skips
  await page.keyboard.press("Tab");
  await page.keyboard.type("hf:owner/demo");
  await page.keyboard.press("Enter");
  await page.locator("#loaded").waitFor();
  assert.equal(await page.evaluate(() => document.activeElement?.id), "loaded");
  assert.match(await page.locator("#loaded-title").innerText(), /owner\/demo/);
  const at = () => page.evaluate(() => document.activeElement?.id);
  for (let i = 0; await at() !== "prompt"; i++) {
    assert.ok(i < 12, `the keyboard is at ${await at()}`);
    await page.keyboard.press("Tab");
  }
  await page.keyboard.press("Enter");
  const rate = page.locator("#chat-rate");
  await rate.filter({ hasText: "length" }).waitFor();
}, { expected: OTHERS });

onPage(
  "without WebGPU it says so; files that are dropped load, others are refused",
  async (page) => {
    await page.getByText("Settings").click();
    await page.getByLabel("Device").selectOption("webgpu");
    await page.getByRole("button", { name: "Load the demo" }).click();
    const error = page.locator("#load-error");
    await error.filter({ hasText: 'Cannot open "webgpu"' }).waitFor();
    await page.getByLabel("Device").selectOption("auto");
    const drop = (names: readonly string[]) =>
      page.evaluate(async (names) => {
        const dropped = new DataTransfer();
        for (const name of names) {
          dropped.items.add(new File([await (await fetch(`demo/${name}`)).blob()], name));
        }
        const event = new DragEvent("drop", { dataTransfer: dropped, cancelable: true });
        document.getElementById("drop")!.dispatchEvent(event);
      }, names);
    await drop(["tokenizer.json"]);
    await error.filter({ hasText: "expected a model.safetensors in it" }).waitFor();
    await drop(["config.json", "tokenizer.json", "model.safetensors"]);
    await page.locator("#loaded").waitFor();
    assert.ok(await error.isHidden());
    const notes = await page.locator("#notes").innerText();
    assert.match(notes, /Runs on the processor: this browser offers no WebGPU adapter/);
  },
  { flags: ["--disable-gpu", "--disable-features=WebGPU,Vulkan"] },
);
