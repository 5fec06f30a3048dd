/**
 * Panel layout of a weight on a GPU: groups of 32 outputs interleaved, and the packing shader.
 *
 * A group is four neighbouring inputs of one output: 16 bytes in F32, 8 in F16 and BF16. The groups
 * of 32 outputs are neighbours in memory, so that 32 lanes read one contiguous range:
 *
 *     groups [⌈N/32⌉][⌈K/4⌉][32], zeros past N and past K
 *
 *     panel 0 (outputs 0…31)                                    panel 1 (outputs 32…63)
 *     ┌── inputs 0…3 ──────┬── inputs 4…7 ──────┬─ … ─┐ ┌── inputs 0…3 ──────┬─
 *     │ n0 │ n1 │ … │ n31  │ n0 │ n1 │ … │ n31  │     │ │ n32│ n33│ … │ n63  │
 *     └────┴────┴───┴──────┴────┴────┴───┴──────┴─ … ─┘ └────┴────┴───┴──────┴─
 *
 *     group k of output n is at ((n / 32) · ⌈K/4⌉ + k) · 32 + n % 32
 *
 * @module
 */
import { mainWgsl } from "../wgsl/shader.ts";
import type { Chunk, GpuPacking, PackShader } from "./format.ts";

/** Outputs per panel. */
export const PANEL = 32;

/** Inputs per group. */
export const GROUP = 4;

/** Lanes per workgroup of the packing shader. */
const LANES = 64;

/** WGSL that moves elements of one size. */
interface Element {
  /** WGSL type of a group of four. */
  readonly group: string;
  /** Body of `bits_at`: element i of the chunk, in the lower bits of a u32. */
  readonly bits: string;
  /** A group from the bits of four elements, `v`. */
  readonly join: string;
}

const ELEMENTS: Readonly<Record<2 | 4, Element>> = {
  2: {
    group: "vec2u",
    bits: "return (source[i / 2u] >> (16u * (i % 2u))) & 0xffffu;",
    join: "vec2u(v.x | (v.y << 16u), v.z | (v.w << 16u))",
  },
  4: { group: "vec4u", bits: "return source[i];", join: "v" },
};

/** WGSL that finds a lane's group in a chunk of rows, by the order of the file. */
interface Order {
  /** Panel and group `k` of lane `i`. */
  readonly place: string;
  /** Whether output `n` and group `k` are in the chunk. */
  readonly inside: string;
  /** Index of element (output `n`, `input`) in the chunk. */
  readonly at: string;
  /** Number of panels that a chunk touches, times its groups per panel. */
  readonly count: (chunk: Chunk) => number;
}

/** NK: rows of a chunk are outputs. */
function byOutputs({ shape: [, K] }: GpuPacking): Order {
  const groups = Math.ceil(K / GROUP);
  return {
    place: `let panel = chunk.row / ${PANEL}u + i / ${PANEL * groups}u;
  let k = (i / ${PANEL}u) % ${groups}u;`,
    inside: "n >= chunk.row && n < chunk.row + chunk.rows",
    at: `(n - chunk.row) * ${K}u + input`,
    count: ({ row, rows }) => groups * (Math.ceil((row + rows) / PANEL) - Math.floor(row / PANEL)),
  };
}

/** KN: rows of a chunk are inputs, in whole groups. */
function byInputs({ shape: [N, K], first, count }: GpuPacking): Order {
  return {
    place: `let deep = (chunk.rows + 3u) / 4u;
  let panel = i / (${PANEL}u * deep);
  let k = chunk.row / 4u + (i / ${PANEL}u) % deep;`,
    inside: `n < ${count}u && k < ${Math.ceil(K / GROUP)}u`,
    at: `(input - chunk.row) * ${N}u + ${first}u + n`,
    count: ({ rows }) => Math.ceil(rows / GROUP) * Math.ceil(count / PANEL),
  };
}

/**
 * The shader that moves rows of elements into panels, bit for bit; a lane moves one group.
 * Bindings: 0 the panels, 1 the chunk's bytes. In group 0, `chunk` replaces `run`.
 */
export function packElements(bytes: 2 | 4, packing: GpuPacking): PackShader {
  const { shape: [, K], stored } = packing;
  const element = ELEMENTS[bytes];
  const groups = Math.ceil(K / GROUP);
  const order = stored === "NK" ? byOutputs(packing) : byInputs(packing);
  const move = stored === "NK" && K % GROUP === 0
    ? wholeGroups(element, groups)
    : singleElements(element, order, K);
  const wgsl = /* wgsl */ `
struct Chunk { row: u32, rows: u32 }
@group(0) @binding(0) var<uniform> chunk: Chunk;
@group(1) @binding(0) var<storage, read_write> panels: array<${element.group}>;
${move.declare}

${mainWgsl(LANES)} {
  let i = index_of(group, grid) * ${LANES}u + lane;
  ${order.place}
  let n = panel * ${PANEL}u + i % ${PANEL}u;
  if (!(${order.inside})) { return; }
  ${move.read}
  panels[(panel * ${groups}u + k) * ${PANEL}u + i % ${PANEL}u] = ${move.join};
}
`;
  const groupsOf = (chunk: Chunk) => Math.ceil(PANEL * order.count(chunk) / LANES);
  return { wgsl, workgroupBytes: 0, groups: groupsOf };
}

/** K is a multiple of four: whole groups are moved. */
function wholeGroups({ group }: Element, groups: number) {
  return {
    declare: `@group(1) @binding(1) var<storage, read> source: array<${group}>;`,
    read: `let v = source[(n - chunk.row) * ${groups}u + k];`,
    join: "v",
  };
}

/** Elements are moved one by one; those past K stay zero. */
function singleElements({ bits, join }: Element, { at }: Order, K: number) {
  const take = (j: number) => {
    const always = `{ let input = 4u * k + ${j}u; v[${j}] = bits_at(${at}); }`;
    return K % GROUP === 0 ? always : `if (4u * k + ${j}u < ${K}u) ${always}`;
  };
  return {
    declare: `@group(1) @binding(1) var<storage, read> source: array<u32>;
fn bits_at(i: u32) -> u32 { ${bits} }`,
    read: `var v = vec4u(0u);
  ${[0, 1, 2, 3].map(take).join("\n  ")}`,
    join,
  };
}
