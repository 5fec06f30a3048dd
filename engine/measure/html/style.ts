/**
 * Style of the page: light and dark, wide and narrow, screen and paper.
 *
 * The six colours of lines differ for readers with any colour vision (blue, orange, green,
 * magenta, ochre, slate); each has a contrast of at least 3 to its ground, and text at least 4.5.
 *
 * @module
 */

const LIGHT = `
  color-scheme: light;
  --page: #fff; --soft: #f4f6f7; --text: #1b2025; --muted: #59636e; --rule: #dfe4e8;
  --accent: #14795e; --fill: #2f9c7c; --good: #12704f; --bad: #b3261e;
  --c0: #0b67b2; --c1: #c4530a; --c2: #0f8a69; --c3: #ab3b8c; --c4: #806600; --c5: #4a5b6d;
  --cx: #8b96a1;
  --m0: #6d7f90; --m1: #2f9c7c; --m2: #d9822b; --m3: #a35fb5;`;

const DARK = `
  color-scheme: dark;
  --page: #101418; --soft: #181e24; --text: #e6eaee; --muted: #9ba6b2; --rule: #2b343d;
  --accent: #4cc49f; --fill: #2d9d7c; --good: #4cc49f; --bad: #ff8f85;
  --c0: #5aaaf0; --c1: #f2934c; --c2: #3fc49d; --c3: #e480c6; --c4: #d4b93f; --c5: #a7b5c4;
  --cx: #6d7985;
  --m0: #7f91a3; --m1: #2d9d7c; --m2: #d58734; --m3: #b078c4;`;

/** The style sheet. */
export const STYLE = `
:root {${LIGHT}
}
@media screen and (prefers-color-scheme: dark) { :root {${DARK}
} }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  font-variant-numeric: tabular-nums; }
body > svg { position: absolute; }
header, main, footer { max-width: 1200px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 48px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -.015em; margin: 0 0 6px; }
h2 { font-size: 20px; line-height: 1.3; letter-spacing: -.01em; margin: 0 0 4px; }
h3 { font-size: 15px; margin: 0 0 8px; }
.after { margin-top: 32px; }
.lead { margin: 0; color: var(--muted); }
.about { max-width: 84ch; margin: 0 0 20px; color: var(--muted); }
section { margin: 56px 0; scroll-margin-top: 16px; }
small { font-size: 12px; color: var(--muted); font-weight: 400; }
a { color: var(--accent); }
nav ul { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 20px 0 0; padding: 12px 0 0;
  border-top: 1px solid var(--rule); list-style: none; }
nav a { text-decoration: none; padding: 4px 0; display: inline-block; }
nav a:hover { text-decoration: underline; }
.skip { position: absolute; left: -999px; }
.skip:focus { left: 16px; top: 8px; background: var(--page); padding: 8px 12px; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 3px; }

.scroll { overflow-x: auto; max-height: 80vh; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: 13.5px;
  line-height: 1.4; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
th, td { padding: 7px 8px; text-align: left; vertical-align: baseline; white-space: nowrap; }
th { font-weight: 600; }
thead th { position: sticky; top: 0; z-index: 2; background: var(--page); vertical-align: bottom;
  box-shadow: inset 0 -1px var(--muted); }
thead small, tbody th small { display: block; }
th:first-child { padding-left: 0; }
tbody th { position: sticky; left: 0; z-index: 1; background: var(--page); font-weight: 500;
  max-width: 300px; white-space: normal; overflow-wrap: anywhere; min-width: 130px; }
tbody tr > * { border-bottom: 1px solid var(--rule); }
tbody tr:hover > * { background: var(--soft); }
[data-v], .n { text-align: right; }
thead button { font: inherit; color: inherit; background: none; border: 0; padding: 0; margin: 0;
  text-align: inherit; cursor: pointer; }
thead button:hover { color: var(--accent); }
thead button span::after { content: "↕"; margin-left: 3px; color: var(--muted); font-weight: 400;
  opacity: .55; }
[aria-sort=ascending] span::after { content: "↑"; color: var(--accent); opacity: 1; }
[aria-sort=descending] span::after { content: "↓"; color: var(--accent); opacity: 1; }
.good { color: var(--good); } .bad { color: var(--bad); }

details { margin-top: 20px; }
summary { cursor: pointer; color: var(--muted); font-size: 13.5px; width: fit-content; }
summary:hover { color: var(--text); }
.doubts ul { margin: 8px 0 0; padding-left: 20px; font-size: 13.5px; }
.doubts > summary { color: var(--bad); }
details > .scroll { margin-top: 8px; max-height: 420px; overflow: auto; }

.plot { display: block; overflow: visible; }
.plot text { font-size: 13px; fill: var(--text); }
.plot .in, .plot .area, .plot .stretch { overflow: visible; }
.plot .more, .plot .tick { fill: var(--muted); font-size: 12px; }
.plot .value { text-anchor: end; font-weight: 600; }
.grid { stroke: var(--rule); }
.bar { fill: var(--fill); }
.row:hover .bar, .row:hover .area { fill: var(--accent); }
.whisker, #end path { stroke: var(--text); stroke-width: 1.5; }
.whisker { marker-start: url(#end); marker-end: url(#end); }
.area { fill: var(--fill); }
.reach { stroke: var(--fill); stroke-width: 1.5; }
.median { stroke: var(--text); stroke-width: 2; }
.tail { stroke: var(--muted); stroke-width: 1.5; }
.bound { stroke: var(--c1); stroke-width: 2.5; }
.line polyline { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round;
  vector-effect: non-scaling-stroke; }
.line circle { fill: var(--c); stroke: var(--page); stroke-width: 1.5; }
.cx polyline { opacity: .6; }
.line circle:hover { stroke: var(--text); }
.line > line { stroke: var(--c); stroke-width: 1.5; }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); }
.c4 { --c: var(--c4); } .c5 { --c: var(--c5); } .cx { --c: var(--cx); }
.m0 { --c: var(--m0); } .m1 { --c: var(--m1); } .m2 { --c: var(--m2); } .m3 { --c: var(--m3); }
rect.m0, rect.m1, rect.m2, rect.m3 { fill: var(--c); stroke: var(--page); }
.c1 polyline { stroke-dasharray: 7 3; } .c2 polyline { stroke-dasharray: 2 3; }
.c3 polyline { stroke-dasharray: 9 3 2 3; } .c4 polyline { stroke-dasharray: 4 4; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 0 0 12px; padding: 0;
  list-style: none; font-size: 13px; }
.legend li::before { content: ""; display: inline-block; width: 12px; height: 12px;
  margin-right: 7px; border-radius: 3px; background: var(--c); vertical-align: -1px; }
.tall { max-height: 720px; overflow: hidden auto; padding-right: 2px; }
.frame { padding: 0 12px 22px 58px; position: relative; }
.unit { display: block; color: var(--muted); font-size: 12px; }
.frame > .unit:first-child { margin: 0 0 8px -50px; }
.unit.x { position: absolute; right: 12px; bottom: -16px; }
.unit:empty { display: none; }
.scroll + .panels { margin-top: 32px; }
.small { --least: 300px; }
.panels { display: grid; --narrowest: min(100%, var(--least, 420px));
  grid-template-columns: repeat(auto-fill, minmax(var(--narrowest), 1fr)); gap: 36px 48px; }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; font-size: 13.5px; margin-bottom: 12px; overflow-wrap: anywhere; }
dl { margin: 0; font-size: 13.5px; }
dl div { display: grid; grid-template-columns: minmax(120px, 2fr) 3fr; gap: 0 12px;
  padding: 6px 0; border-bottom: 1px solid var(--rule); }
.shared { display: flex; flex-wrap: wrap; gap: 2px 24px; margin: 0 0 16px; }
.shared div { display: flex; gap: 6px; border: 0; padding: 0; }
dt { color: var(--muted); }
dd { margin: 0; grid-column: 2; overflow-wrap: anywhere; white-space: pre-wrap; }
footer { padding-bottom: 56px; color: var(--muted); font-size: 13px; }
#tip { position: fixed; z-index: 9; max-width: 320px; padding: 6px 10px; border-radius: 5px;
  background: var(--text); color: var(--page); font-size: 12.5px; line-height: 1.4;
  pointer-events: none; overflow-wrap: anywhere; }

@media (max-width: 640px) {
  header, main, footer { padding-left: 16px; padding-right: 16px; }
  header { padding-top: 28px; }
  h1 { font-size: 25px; }
  section { margin: 44px 0; }
  tbody th { max-width: 44vw; min-width: 110px; }
  .frame { padding-left: 48px; }
  .frame > .unit:first-child { margin-left: -42px; }
}
@media print {
  @page { margin: 14mm; }
  body { font-size: 10pt; }
  header { padding-top: 0; }
  header, main, footer { max-width: none; padding: 0; }
  nav, .skip, #tip, details:not([open]) { display: none; }
  section { margin: 24pt 0; }
  h2, .about, figcaption { break-after: avoid; }
  figure, tr, .frame, dl div { break-inside: avoid; }
  .scroll, .tall, details > .scroll { max-height: none; overflow: visible; }
  small { font-size: inherit; }
  table { font-size: 7.5pt; } th, td { padding: 3pt 4pt; white-space: normal; }
  thead th, tbody th { position: static; min-width: 0; }
  thead button span::after { content: none; }
  .panels { grid-template-columns: 1fr 1fr; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
`;
