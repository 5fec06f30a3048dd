import assert from "node:assert/strict";
import {
  readSafetensorsHeader,
  type StoredTensor,
} from "../../../../engine/checkpoint/safetensors.ts";
import { readTorch, type TorchContents } from "../../../../engine/checkpoint/torch/mod.ts";
import { CheckpointError } from "../../../../engine/errors.ts";
import { threefry } from "../../../../kernels/ops/sample/mod.ts";
import { fixture, readJson } from "../../../testing.ts";
import {
  Built,
  Call,
  inMemory,
  latin1,
  name,
  pickleBytes,
  Raw,
  storage,
  tensor,
  torchBytes,
  torchMembers,
  type TorchOptions,
  Tuple,
  zipPieces,
} from "../../../torch.ts";

async function bytesOf({ source, offset, byteLength }: StoredTensor): Promise<Uint8Array> {
  const bytes = new Uint8Array(byteLength);
  await source.read(offset, bytes);
  return bytes;
}

function openFixture(path: string): Promise<TorchContents> {
  return readTorch(inMemory(Deno.readFileSync(fixture(path))));
}

function open(value: unknown, options?: TorchOptions): Promise<TorchContents> {
  return readTorch(inMemory(torchBytes(value, options)));
}

/** Asserts that opening throws a CheckpointError that names the file. */
async function refuses(opening: Promise<unknown>, message: RegExp): Promise<void> {
  await assert.rejects(opening, (error: Error) => {
    assert.ok(error instanceof CheckpointError, error.stack);
    assert.match(error.message, /^Cannot (open|read) "x\.pt": /);
    assert.match(error.message, message);
    return true;
  });
}

/** F32 numbers 0 to 5. */
const six = new Uint8Array(Float32Array.of(0, 1, 2, 3, 4, 5).buffer);
const stored = storage("0", "FloatStorage", 6);
const plain = tensor(stored, [2, 3], [3, 1]);
const storages = { 0: six };

async function numbersOf(tensor: StoredTensor): Promise<number[]> {
  return [...new Float32Array((await bytesOf(tensor)).slice().buffer)];
}

Deno.test("readTorch() reads the weights, config and tokenizer of a LabCore export", async () => {
  for (const model of ["learned", "rope66", "rope-bias"]) {
    const { tensors, metadata, config, tokenizer } = await openFixture(
      `labcore/${model}/ckpt_last.pt`,
    );
    const file = Deno.readFileSync(fixture(`labcore/${model}/model.safetensors`));
    const exported = (await readSafetensorsHeader(inMemory(file))).tensors;
    for (const [name, expected] of exported) {
      const { dtype, shape } = expected;
      const tensor = tensors.get(name)!;
      assert.deepEqual({ dtype: tensor.dtype, shape: [...tensor.shape] }, {
        dtype,
        shape: [...shape],
      });
      assert.deepEqual(await bytesOf(tensor), await bytesOf(expected), `${model}: ${name}`);
    }
    // The export has one of the two tied tensors.
    const extra = [...tensors.keys()].filter((name) => !exported.has(name));
    assert.ok(extra.every((name) => /^(wte|lm_head)\.weight$/.test(name)), `${extra}`);
    assert.equal(tensors.get("wte.weight")!.offset, tensors.get("lm_head.weight")!.offset);

    assert.deepEqual(metadata, { step: "12", "losses.train": "1.5", "losses.val": "1.6" });
    const exportedConfig = readJson<Record<string, unknown>>(`labcore/${model}/config.json`);
    const { architectures: _, model_type: __, ...keys } = exportedConfig;
    assert.deepEqual(config, { kind: "labcore", record: keys });
    assert.deepEqual(tokenizer, readJson(`labcore/${model}/tokenizer.json`));
  }
});

Deno.test("readTorch() reads views, dtypes, prefixes, roots and protocols as PyTorch", async () => {
  const expected = readJson<
    Record<string, Record<string, { dtype: string; shape: number[]; hex: string }>>
  >("torch/expected.json");
  assert.ok(Object.keys(expected).length >= 9);
  for (const [file, goldens] of Object.entries(expected)) {
    const { tensors } = await openFixture(`torch/${file}`);
    assert.deepEqual([...tensors.keys()], Object.keys(goldens), file);
    for (const [name, { dtype, shape, hex }] of Object.entries(goldens)) {
      const tensor = tensors.get(name)!;
      assert.deepEqual([tensor.dtype, [...tensor.shape]], [dtype, shape], `${file}: ${name}`);
      assert.equal((await bytesOf(tensor)).toHex(), hex, `${file}: ${name}`);
    }
  }
});

Deno.test("readTorch() reads contiguous tensors from the file and detects ties", async () => {
  const file = inMemory(Deno.readFileSync(fixture("torch/views.pt")));
  const { tensors } = await readTorch(file);
  const get = (name: string) => tensors.get(name)!;
  for (const name of ["base", "rows", "scalar", "empty", "tied", "parameter", "attributes"]) {
    assert.equal(get(name).source, file, name);
  }
  assert.equal(get("rows").offset, get("base").offset + 6 * 4);
  assert.equal(get("tied").offset, get("base").offset);
  assert.equal(get("tied_transposed").source, get("transposed").source);
  assert.notEqual(get("columns").source, get("transposed").source);
});

Deno.test("readTorch() converts a config with NumPy and PyTorch values", async () => {
  const texts = ["\n", "a", "ö", "\ufeff", "😀"];
  for (const protocol of [2, 3, 4, 5]) {
    const { config, metadata, tokenizer } = await openFixture(`torch/trainer${protocol}.pt`);
    assert.deepEqual(config, {
      kind: "labcore",
      record: {
        n_layer: 2,
        n_embd: 4,
        dropout: 0.25,
        scale: 0.5,
        bias: true,
        flag: true,
        none: null,
        out: "runs/one",
        size: [2, 3],
        dtype: "torch.float16",
        device: "cuda:1",
        cpu: "cpu",
        big: 2 ** 70,
        negative: -5,
        far: -(2 ** 40),
        list: [1, "two", [3]],
        nested: { a: 1 },
        long: "x".repeat(300),
        umlaut: "größe",
      },
    });
    assert.deepEqual(metadata, { step: "12", "losses.train": "1.5", "losses.val": "1.25" });
    assert.deepEqual(tokenizer, { type: "char", vocab: texts });
  }
  const { config, metadata } = await openFixture("torch/nanogpt.pt");
  const sizes = { n_layer: 1, n_head: 1, n_embd: 2, block_size: 4, vocab_size: 3 };
  assert.deepEqual(config, { kind: "nanogpt", record: { ...sizes, bias: false, dropout: 0 } });
  assert.deepEqual(metadata, { iter_num: "7" });
});

Deno.test("readTorch() explains why a file of another format is refused", async () => {
  const cases: [string, RegExp][] = [
    ["legacy.pt", /got the format of PyTorch before 1\.6; save it again/],
    ["script.pt", /a TorchScript archive, which holds a program; save the state dict/],
    ["tensor.pt", /expected a dict, got a tensor/],
    ["evil.pt", /refers to posix\.system, which is not data; save the state dict alone/],
    ["odd_complex.pt", /tensor "complex" to have a dtype of .*, got torch\.ComplexFloatStorage/],
    ["odd_meta.pt", /tensor "meta" to be a plain one, got .*_rebuild_meta_tensor_no_storage/],
    ["odd_quantized.pt", /tensor "quantized" to be a plain one, got .*_rebuild_qtensor/],
    ["odd_sparse.pt", /tensor "sparse" to be a plain one, got .*_rebuild_sparse_tensor/],
    ["expected.json", /a zip archive\), got another kind of file/],
  ];
  for (const [file, message] of cases) await refuses(openFixture(`torch/${file}`), message);
  const tar = new Uint8Array(600);
  tar.set(latin1("ustar"), 257);
  await refuses(readTorch(inMemory(tar)), /got the format of PyTorch before 1\.6; save it again/);
  await refuses(readTorch(inMemory(new Uint8Array())), /another kind of file/);
  const roots: [unknown, RegExp][] = [
    [null, /a dict, got None/],
    [[plain], /a dict, got a list/],
    [{}, /got a dict with nothing/],
    [
      { step: 1, net: { w: plain }, other: { w: plain } },
      /or one as model_state_dict, model, state_dict, module, got a dict with "step", "net", "other"/,
    ],
    [new Map<unknown, unknown>([[1, plain]]), /names of tensors to be text, got 1/],
  ];
  for (const [root, message] of roots) await refuses(open(root, { storages }), message);
  await refuses(
    open({ w: plain }, { storages, byteorder: "middle" }),
    /byteorder of little or big/,
  );
  await refuses(open({ w: plain }, { storages, version: "11" }), /version of at most 10, got "11"/);
  await refuses(open({ w: plain }, { storages, root: "a/b" }), /one data\.pkl/);
  const second = { name: "other/data.pkl", data: pickleBytes({}) };
  await refuses(open({ w: plain }, { storages, members: [second] }), /one data\.pkl.*, got 2/);
});

Deno.test("readTorch() refuses a file that is cut off anywhere", async () => {
  const whole = Deno.readFileSync(fixture("torch/views.pt"));
  for (let n = 0; n < whole.length; n += 7) {
    await refuses(readTorch(inMemory(whole.subarray(0, n))), /cut off|another kind of file/);
  }
});

Deno.test("readTorch() reads big-endian numbers, two tensors at most at a time", async () => {
  const bytes = new Uint8Array(48);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < 6; i++) view.setFloat32(4 * i, i);
  for (let i = 0; i < 3; i++) view.setBigInt64(24 + 8 * i, BigInt(i - 1));
  const root = {
    w: plain,
    transposed: tensor(stored, [3, 2], [1, 3]),
    scalar: tensor(stored, [], [], 4),
    long: tensor(storage("1", "LongStorage", 3), [3], [1]),
    bytes: tensor(storage("2", "ByteStorage", 2), [2], [1]),
  };
  const reads: { offset: number; length: number }[] = [];
  const data = { 0: bytes.subarray(0, 24), 1: bytes.subarray(24), 2: Uint8Array.of(7, 8) };
  const file = inMemory(torchBytes(root, { storages: data, byteorder: "big" }), reads);
  const { tensors } = await readTorch(file);
  const get = (name: string) => tensors.get(name)!;
  assert.deepEqual(await numbersOf(get("w")), [0, 1, 2, 3, 4, 5]);
  assert.deepEqual(await numbersOf(get("transposed")), [0, 3, 1, 4, 2, 5]);
  assert.deepEqual(await numbersOf(get("scalar")), [4]);
  assert.deepEqual([...new BigInt64Array((await bytesOf(get("long"))).slice().buffer)], [
    -1n,
    0n,
    1n,
  ]);
  assert.deepEqual([...await bytesOf(get("bytes"))], [7, 8]);
  assert.equal(get("bytes").source, file, "single bytes have no order");

  // Gathered once while read in pieces; again after its last byte, or after two other views.
  const piece = new Uint8Array(8);
  const count = async (name: string, at: number) => {
    reads.length = 0;
    await get(name).source.read(at, piece);
    return reads.length;
  };
  assert.deepEqual(
    [await count("w", 0), await count("w", 8), await count("w", 16), await count("w", 0)],
    [1, 0, 0, 1],
  );
  assert.deepEqual([
    await count("transposed", 0),
    await count("w", 8),
    await count("transposed", 8),
  ], [
    1,
    0,
    0,
  ]);
  const [first, second] = await Promise.all([numbersOf(get("w")), numbersOf(get("transposed"))]);
  assert.deepEqual([first, second], [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5]]);
  await refuses(get("w").source.read(20, piece), /8 bytes at 20 of a tensor of 24/);
});

Deno.test("readTorch() checks a tensor against its storage before reading it", async () => {
  const huge = 2 ** 53 - 1;
  const cases: [unknown, RegExp][] = [
    [
      tensor(stored, [2, 3], [3, 1], 1),
      /tensor "w" to end within the 24 bytes of its storage, got byte 28/,
    ],
    [tensor(stored, [7], [1]), /to end within/],
    [tensor(stored, [2], [6]), /to end within/],
    [tensor(stored, [huge, huge], [huge, huge]), /to end within/],
    [tensor(stored, [2 ** 27, 2 ** 27], [1, 0]), /to end within/],
    [tensor(stored, [2 ** 40], [0]), /no larger than the file/],
    [tensor(stored, [huge, huge, huge], [0, 0, 0]), /no larger than the file/],
    [tensor(stored, [1000], [0]), /no larger than the file, got \[1000\] of F32/],
    [tensor(stored, [-2, 3], [3, 1]), /to have a shape/],
    [tensor(stored, [2, 3], [3, -1]), /to have a shape/],
    [tensor(stored, [2, 3], [3]), /to have a shape, and a stride for each/],
    [tensor(stored, [2.5], [1]), /to have a shape/],
    [tensor(stored, ["2"], [1]), /to have a shape/],
    [tensor(stored, [2n ** 70n], [0]), /to have a shape/],
    [tensor(stored, new Array(65).fill(1), new Array(65).fill(1)), /to have a shape/],
    [tensor(stored, [2], [1], -1), /to have an offset/],
    [tensor(stored, [2], [1], 2n ** 64n), /to have an offset/],
    [tensor(stored, [2], [1], huge), /to end within/],
    [tensor(null, [2], [1]), /to have a storage/],
    [tensor(stored, [2], [1], 0, new Map([["neg", true]])), /negated or conjugated/],
    [tensor(storage("9", "FloatStorage", 6), [2], [1]), /data\/9, which is missing/],
    [tensor(storage("../data.pkl", "FloatStorage", 6), [2], [1]), /which is missing/],
    [tensor(storage("0", "FloatStorage", 7), [2], [1]), /7 times 4 bytes, got 24 in data\/0/],
    [tensor(storage("0", "DoubleStorage", 6), [2], [1]), /6 times 8 bytes/],
    [tensor(storage("0", "DoubleStorage", 3), [4], [1]), /to end within/],
    [new Call(name("torch._utils", "_rebuild_tensor_v2")), /to have a storage/],
  ];
  for (const [w, message] of cases) await refuses(open({ w }, { storages }), message);
  const good = {
    e: tensor(stored, [0, huge], [1, 1], 0),
    one: tensor(stored, [1, 3], [huge, 1], 3),
  };
  const { tensors } = await open(good, { storages });
  assert.equal(tensors.get("e")!.byteLength, 0);
  assert.deepEqual(await numbersOf(tensors.get("one")!), [3, 4, 5]);
});

Deno.test("readTorch() removes the prefixes of wrappers only", async () => {
  const names = async (root: unknown) => [...(await open(root, { storages })).tensors.keys()];
  const state = (...names: string[]) => new Map(names.map((name) => [name, plain]));
  assert.deepEqual(
    await names(
      state("_orig_mod.module._orig_mod.a", "module.module.b", "h._orig_mod.c", "h.module.d"),
    ),
    ["a", "b", "h.c", "h.module.d"],
  );
  assert.deepEqual(await names(state("__proto__", "module", "")), ["__proto__", "module", ""]);
  assert.deepEqual(await names({ state_dict: state("model.a", "model.b") }), ["a", "b"]);
  assert.deepEqual(await names({ state_dict: state("model.a", "head") }), ["model.a", "head"]);
  assert.deepEqual(await names({ model: state("model.a") }), ["model.a"]);
  assert.deepEqual(await names(state("model.a")), ["model.a"]);
  assert.deepEqual(await names({ model: { kind: "gpt" }, state_dict: state("a") }), ["a"]);
  const twice = state("a", "module.a");
  await refuses(open(twice, { storages }), /every tensor once .*, got "a" twice/);

  const attributes = new Call(name("collections", "OrderedDict"), [["w", plain]]);
  const mixed = { model: new Built(attributes, { _metadata: { "": { version: 1 } } }), note: null };
  assert.deepEqual(await names(mixed), ["w"]);
  assert.deepEqual(await names({ w: plain, _extra_state: null, version: 2 }), ["w"]);
});

Deno.test("readTorch() removes FSDP, checkpointing, averaging and DeepSpeed names", async () => {
  const state = (...names: string[]) => new Map(names.map((name) => [name, plain]));
  const names = async (root: unknown) => {
    const { tensors, notes } = await open(root, { storages });
    return [[...tensors.keys()], notes.length];
  };
  const wrapped = state(
    "_fsdp_wrapped_module.h.0._checkpoint_wrapped_module.w",
    "module._orig_mod.h.1._fpw_module.w",
  );
  assert.deepEqual(await names(wrapped), [["h.0.w", "h.1.w"], 0]);
  assert.deepEqual(await names(state("n_averaged", "module.a", "module.b")), [["a", "b"], 1]);
  assert.deepEqual(await names({ module: state("a"), ds_version: "0.1" }), [["a"], 0]);
  assert.deepEqual(await names({ net: state("a"), step: 3 }), [["a"], 0]);
  assert.deepEqual(await names({ model: state("a"), ema: state("b") }), [["a"], 0]);
  // A state dict in a dict; two state dicts, of which one is a mean, or no GPT's.
  assert.deepEqual(await names({ checkpoint: { model: state("a") } }), [["a"], 0]);
  const gpt = state("net.wte.weight");
  assert.deepEqual(await names({ ema_params: gpt, params: gpt }), [["wte.weight"], 0]);
  assert.deepEqual(await names({ rng: state("cpu"), weights: gpt }), [["wte.weight"], 0]);
  assert.deepEqual(await names({ ema: gpt }), [["wte.weight"], 1]);
});

Deno.test("readTorch() finds the model in any attribute of a LightningModule", async () => {
  const state = (...names: string[]) => new Map(names.map((name) => [name, plain]));
  const marked = (...names: string[]) => ({
    "pytorch-lightning_version": "2.6.6",
    state_dict: state(...names),
  });
  const open1 = async (root: unknown) => await open(root, { storages });
  const one = await open1(marked("model.h.0.w", "model.wte.weight", "val_acc.total"));
  assert.deepEqual([...one.tensors.keys()], ["h.0.w", "wte.weight"]);
  assert.match(one.notes.join(), /not part of the model, "model": "val_acc\.total"$/);
  const two = await open1(marked("gpt.h.0.w", "gpt.h.1.w", "loss.weight", "temperature"));
  assert.deepEqual([...two.tensors.keys()], ["h.0.w", "h.1.w"]);
  // A LightningModule that is the model itself: no attribute in front.
  const three = await open1(
    marked("transformer.wte.weight", "transformer.h.0.w", "lm_head.weight"),
  );
  assert.equal(three.tensors.size, 3);
  assert.deepEqual(three.notes, []);
});

Deno.test("readTorch() finds a config in a dataclass, a Namespace or a dict", async () => {
  const shape = { n_layer: 1, n_head: 2, n_embd: 4, block_size: 8, vocab_size: 16 };
  const made = (module: string, className: string, ...args: unknown[]) =>
    new Call(name(module, className), ...args);
  const configOf = async (extra: Record<string, unknown>) =>
    (await open({ model: { w: plain }, ...extra }, { storages })).config;
  const kind = made("__main__", "Kind", "gpt");
  const objects = [
    new Built(made("__main__", "GPTConfig"), { ...shape, kind }),
    new Built(made("train.config", "_Config"), new Tuple(null, { ...shape, kind })),
    new Built(made("argparse", "Namespace"), { ...shape, kind: "gpt" }),
  ];
  for (const object of objects) {
    for (const extra of [{ cfg: object }, { hyper_parameters: { lr: 1, config: object } }]) {
      const record = { ...shape, kind: "gpt" };
      assert.deepEqual(await configOf(extra), { kind: "nanogpt", record, guessed: true });
    }
  }
  const record = { ...shape, kind: "gpt" };
  assert.deepEqual(await configOf({ model_args: objects[0] }), { kind: "nanogpt", record });
  assert.equal(await configOf({ cfg: { n_layer: 1, lr: 2 } }), undefined);
  await refuses(open(objects[0], { storages }), /an object of __main__\.GPTConfig, a whole module/);
  const whole = { model: made("torch.nn.modules.container", "Sequential"), step: 1 };
  await refuses(open(whole, { storages }), /an object of torch\.nn\..*Sequential, a whole module/);
  const { dataset } = await open(
    { model: { w: plain }, config: { dataset: "shakespeare" } },
    { storages },
  );
  assert.equal(dataset, "shakespeare");
});

Deno.test("readTorch() reads past objects of Python, NumPy and PyTorch that only hold data", async () => {
  for (const protocol of [2, 4]) {
    const source = inMemory(await Deno.readFile(fixture(`torch/objects${protocol}.pt`)));
    const { tensors, config } = await readTorch(source);
    assert.deepEqual([...tensors.keys()], ["w"]);
    const record = { n_layer: 1, n_head: 1, n_embd: 2, block_size: 4, vocab_size: 3 };
    assert.deepEqual(config, { kind: "nanogpt", record, guessed: true });
  }
});

Deno.test("readTorch() finds a config in OmegaConf's nodes, which refer to their parents", async () => {
  const shape = { n_layer: 1, n_head: 2, n_embd: 4, block_size: 8, vocab_size: 16 };
  const node = (own: string, state: unknown) =>
    new Built(new Call(name("omegaconf.nodes", own)), state);
  const content = Object.fromEntries(
    Object.entries(shape).map(([key, value]) => [key, node("AnyNode", { _val: value })]),
  );
  const parent = node("DictConfig", { _content: null });
  const model = node("DictConfig", {
    _metadata: node("Metadata", {}),
    _parent: parent,
    _content: content,
  });
  const config = node("DictConfig", { _content: { model, lr: node("AnyNode", { _val: 1 }) } });
  const found = await open({ model: { w: plain }, hyper_parameters: { config } }, { storages });
  assert.deepEqual(found.config, { kind: "nanogpt", record: shape, guessed: true });
});

Deno.test("readTorch() reads no bytes of an optimizer", async () => {
  const far = 2 ** 33;
  const root = {
    model: { w: plain },
    optimizer: { state: [tensor(storage("1", "FloatStorage", far / 4), [far / 4], [1])] },
  };
  const members = torchMembers(root, { storages: { 1: far, ...storages } });
  const reads: { offset: number; length: number }[] = [];
  const { tensors } = await readTorch(inMemory(zipPieces(members), reads));
  assert.deepEqual(await numbersOf(tensors.get("w")!), [0, 1, 2, 3, 4, 5]);
  const read = reads.reduce((sum, { length }) => sum + length, 0);
  assert.ok(read < 2 ** 16 + 4096, `${read} bytes`);
  // An optimizer may have unsupported tensors.
  assert.equal((await openFixture("torch/nanogpt.pt")).tensors.size, 3);
});

Deno.test("readTorch() limits plain data of a cyclic or exploding root", async () => {
  const nested = (depth: number): unknown => depth ? [nested(depth - 1)] : 1;
  const tooMuch = /a configuration and a tokenizer of ordinary size and depth/;
  const withConfig = (config: unknown) =>
    open({ model: { w: plain }, model_config: config }, { storages });
  const tenfold = `](${"h\x01".repeat(10)}eq\x01`;
  await refuses(withConfig({ a: new Raw(`]q\x010(${tenfold.repeat(7)}1h\x01`) }), tooMuch);
  await refuses(withConfig({ a: new Raw("]q\x01h\x01a") }), tooMuch);
  await refuses(withConfig(new Raw("}q\x01(X\x01\0\0\0ah\x01u")), tooMuch);
  await refuses(withConfig({ a: nested(20) }), tooMuch);
  const mixed = { n: 1, w: plain, b: new Call(name("_codecs", "encode"), "a", "latin1") };
  assert.deepEqual((await withConfig(mixed)).config?.record, { n: 1 });
  assert.equal((await withConfig([1])).config, undefined);
  const polluting = new Map([["__proto__", { polluted: 1 }]]);
  const { config } = await withConfig(polluting);
  assert.deepEqual(Object.keys(config!.record), ["__proto__"]);
  assert.equal(({} as { polluted?: number }).polluted, undefined);

  const root = new Map<unknown, unknown>([["model", { w: plain }], ["text", "x".repeat(1000)]]);
  for (let n = 0; n < 1000; n++) root.set(`key${n}`, n);
  assert.equal(Object.keys((await open(root, { storages })).metadata).length, 64);
});

Deno.test("readTorch() returns the same or throws a CheckpointError for any damage", async () => {
  const whole = Deno.readFileSync(fixture("torch/views.pt"));
  const goldens = (await openFixture("torch/views.pt")).tensors;
  let refused = 0;
  for (let mutant = 0; mutant < 300; mutant++) {
    const draw = (n: number, below: number) => threefry(mutant, n, 1, 0) % below;
    const bytes = whole.slice(0, draw(0, 4) ? whole.length : draw(1, whole.length));
    const at = draw(2, Math.max(bytes.length, 1));
    if (bytes.length) bytes[at] ^= 1 + draw(3, 255);
    try {
      const { tensors } = await readTorch(inMemory(bytes));
      assert.deepEqual([...tensors.keys()], [...goldens.keys()], `mutant ${mutant}`);
      for (const [name, { dtype, shape, byteLength, ...tensor }] of tensors) {
        const golden = goldens.get(name)!;
        assert.deepEqual([dtype, shape], [golden.dtype, golden.shape], `mutant ${mutant}: ${name}`);
        const [actual, expected] = [
          await bytesOf({ dtype, shape, byteLength, ...tensor }),
          await bytesOf(golden),
        ];
        // Checksums of storages are not checked; an expanded view repeats a wrong byte.
        const wrong = new Set([...actual].filter((byte, i) => byte !== expected[i]));
        assert.ok(wrong.size <= 1, `mutant ${mutant}: ${name} is wrong in more than byte ${at}`);
      }
    } catch (error) {
      assert.ok(error instanceof CheckpointError, `mutant ${mutant}: ${(error as Error).stack}`);
      refused++;
    }
  }
  assert.ok(refused > 100, `${refused} refused`);
});
