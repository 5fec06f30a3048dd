import assert from "node:assert/strict";
import { unpickle } from "../../../../engine/checkpoint/torch/pickle.ts";
import {
  findGlobal,
  persistentStorage,
  TorchStorage,
  TorchTensor,
} from "../../../../engine/checkpoint/torch/pickle_globals.ts";
import {
  Opaque,
  PickledObject,
  type PickleGlobal,
} from "../../../../engine/checkpoint/torch/pickle_values.ts";
import { readMember, readZip } from "../../../../engine/checkpoint/torch/zip.ts";
import { CheckpointError } from "../../../../engine/errors.ts";
import { threefry } from "../../../../kernels/ops/sample/mod.ts";
import { PATIENCE_MS } from "../../../patience.ts";
import { fixture } from "../../../testing.ts";
import {
  Built,
  Call,
  inMemory,
  latin1,
  little,
  name,
  pickleBytes,
  Raw,
  text,
  Tuple,
} from "../../../torch.ts";

/** Parses a pickle, given as bytes or as text of one character per byte. */
function load(pickle: Uint8Array | string): unknown {
  const bytes = typeof pickle === "string" ? latin1(pickle) : pickle;
  const options = { file: "x.pt", member: "data.pkl", find: findGlobal };
  return unpickle(bytes, { ...options, persistent: persistentStorage });
}

/** Asserts that parsing throws a CheckpointError that names the file and the byte. */
function refuses(pickle: Uint8Array | string, message: RegExp): void {
  assert.throws(() => load(pickle), (error: Error) => {
    assert.ok(error instanceof CheckpointError, error.stack);
    assert.match(error.message, /^Cannot open "x\.pt": .* \(byte \d+ of data\.pkl\)$/);
    assert.match(error.message, message);
    return true;
  });
}

/** A pickle's instructions without PROTO and STOP. */
function textOf(pickle: Uint8Array): string {
  return text(pickle.subarray(2, -1));
}

async function pickleOf(file: string): Promise<Uint8Array> {
  const source = inMemory(await Deno.readFile(fixture(`torch/${file}`)));
  const members = await readZip(source);
  return await readMember(source, members.get(`${file.replace(/\..*/, "")}/data.pkl`)!);
}

Deno.test("unpickle() returns the same plain values for every protocol", async () => {
  for (const protocol of [2, 3, 4, 5]) {
    const root = load(await pickleOf(`trainer${protocol}.pt`)) as Map<string, unknown>;
    const config = root.get("model_config") as Map<string, unknown>;
    const { dtype, nested, ...plain } = Object.fromEntries(config);
    assert.equal((dtype as PickleGlobal).name, "torch.float16");
    assert.deepEqual(nested, new Map([["a", 1]]));
    assert.deepEqual(plain, {
      n_layer: 2,
      n_embd: 4,
      dropout: 0.25,
      scale: 0.5,
      bias: true,
      flag: true,
      none: null,
      out: "runs/one",
      size: [2, 3],
      device: "cuda:1",
      cpu: "cpu",
      big: 2n ** 70n,
      negative: -5,
      far: -(2 ** 40),
      list: [1, "two", [3]],
      long: "x".repeat(300),
      umlaut: "größe",
    });
    const others = root.get("others") as Map<string, unknown>;
    const { rng, types, ...rest } = Object.fromEntries(others);
    assert.ok(rng instanceof TorchTensor && rng.storage instanceof TorchStorage);
    assert.deepEqual((types as PickleGlobal[]).map(({ name }) => name), [
      "builtins.int",
      "builtins.float",
      "builtins.dict",
    ]);
    const bytes = (...values: number[]) => Uint8Array.from(values);
    assert.deepEqual(
      rest,
      {
        set: new Set([1, 2]),
        frozen: new Set(["a"]),
        bytes: bytes(0, 255),
        empty_bytes: bytes(),
        bytearray: bytes(97, 98),
        counter: new Map([["a", 2], ["b", 1]]),
        default: new Map([[1, [2]]]),
        complex: new Opaque("builtins.complex"),
        range: new Opaque("builtins.range"),
        slice: new Opaque("builtins.slice"),
        layout: "torch.strided",
        array: new Opaque("numpy.ndarray"),
        text: "t",
        version: "2.15",
        args: new Map([["lr", 1e-3]]),
        tuple: [1, 2, 3, 4],
        pair: [1, 2],
        ordered: new Map([["a", 1]]),
      },
      `protocol ${protocol}`,
    );
  }
});

Deno.test("unpickle() executes instructions that only Python writes", () => {
  assert.deepEqual(load("}(K\x01K\x02u."), new Map([[1, 2]]));
  assert.deepEqual(load("(K\x01K\x02d."), new Map([[1, 2]]));
  assert.deepEqual(load("(K\x01K\x02l."), [1, 2]);
  assert.deepEqual(load("(I01\nI00\nI-7\nL12345678901234567890L\nt."), [
    true,
    false,
    -7,
    12345678901234567890n,
  ]);
  assert.deepEqual(load("N(K\x011."), null);
  assert.deepEqual(load("N(0."), null);
  assert.deepEqual(load("]q\x00h\x002\x87."), [[], [], []]);
  assert.equal(load(`\x8d${little(2, 8)}\xc3\xb6.`), "ö");
  assert.deepEqual(load(`\x96${little(1, 8)}\x07.`), Uint8Array.of(7));
  assert.equal(load("\x8a\x00."), 0);
  assert.equal(load(`\x8b${little(9, 4)}${little(-(2n ** 65n), 9)}.`), -(2n ** 65n));
  assert.equal(load(pickleBytes(2n ** 53n)), 2n ** 53n);
  assert.equal(load(pickleBytes(2n ** 53n - 1n)), 2 ** 53 - 1);
  assert.deepEqual(load("cargparse\nNamespace\n)}\x92."), new Map());
});

Deno.test("unpickle() treats __proto__ as any other key", () => {
  const namespace = new Call(name("argparse", "Namespace"));
  const state = new Map([["__proto__", 1], ["constructor", 2]] as [string, number][]);
  assert.deepEqual(load(pickleBytes(new Built(namespace, state))), state);
  for (const global of ["__proto__", "constructor", "toString"]) {
    refuses(pickleBytes(name(global, global)), new RegExp(`refers to ${global}\\.${global}`));
  }
});

Deno.test("unpickle() refuses names that are not data, called or not", () => {
  const names = [
    "os.system",
    "posix.system",
    "nt.system",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.exec",
    "__builtin__.eval",
    "builtins.getattr",
    "builtins.open",
    "builtins.__import__",
    "builtins.map",
    "builtins.type",
    "operator.attrgetter",
    "operator.methodcaller",
    "functools.reduce",
    "commands.Popen",
    "copy_reg._reconstructor",
    "sys.exit",
    "importlib.import_module",
    "webbrowser.open",
    "socket.socket",
    "pickle.loads",
    "_pickle.loads",
    "torch.load",
    "torch.hub.load",
    "torch.jit.load",
    "torch._C._load_for_mobile",
    "numpy.load",
    "torch.serialization.load",
    "torch.storage._load_from_bytes",
    "torch._utils._import_dotted_name",
    "numpy.f2py.crackfortran.getlincoef",
    "copyreg._reconstructor",
    "collections.namedtuple",
    "types.FunctionType",
    "__main__.make_gpt",
    "trainer.config.load",
    "_private.Config",
    "subprocess.CompletedProcess",
    "numpy.Config",
    "torch.nn.functional.gelu",
    "torch.jit.ScriptModule",
    "operator.getitem",
    "ctypes.CDLL",
    "_codecs.decode",
    "codecs.encode",
    "io.open",
    "enum.Enum",
    "torch._utils",
    "torch",
    "collections.OrderedDict.fromkeys",
    "torch.Size.__reduce__",
  ];
  for (const full of names) {
    const at = full.lastIndexOf(".");
    const [module, attribute] = [full.slice(0, Math.max(at, 0)), full.slice(at + 1)];
    const refusal = new RegExp(
      `refers to ${`${module}.${attribute}`.replaceAll(".", "\\.")}, which is not data`,
    );
    refuses(pickleBytes(name(module, attribute)), refusal);
    refuses(pickleBytes(new Call(name(module, attribute), "echo")), refusal);
    refuses(
      pickleBytes({ model: { a: 1 }, optimizer: [new Call(name(module, attribute))] }),
      refusal,
    );
    const short = (text: string) => `\x8c${String.fromCharCode(text.length)}${text}`;
    refuses(`\x80\x04${short(module)}${short(attribute)}\x93)R.`, refusal);
  }
});

Deno.test("unpickle() keeps only the attributes of a trainer's object", () => {
  const object = (value: unknown) => load(pickleBytes(value)) as PickledObject;
  const make = (full: string, ...args: unknown[]) => {
    const at = full.lastIndexOf(".");
    return new Call(name(full.slice(0, at), full.slice(at + 1)), ...args);
  };
  const plain = object(new Built(make("__main__.GPTConfig"), { n_layer: 2, __proto__x: 1 }));
  assert.ok(plain instanceof PickledObject);
  assert.equal(plain.name, "__main__.GPTConfig");
  assert.deepEqual(plain.attributes, new Map([["n_layer", 2], ["__proto__x", 1]]));
  const slots = object(new Built(make("a.b._Slots"), new Tuple(null, { n: 1 })));
  assert.deepEqual(slots.attributes, new Map([["n", 1]]));
  const pair = object(new Built(make("a.Both"), new Tuple({ a: 1 }, { b: 2 })));
  assert.deepEqual([...pair.attributes.keys()], ["a", "b"]);
  assert.deepEqual(object(make("model.Kind", "gpt")).args, ["gpt"]);
  // Subclasses of dict and list, constructed by __new__.
  assert.deepEqual(
    object(new Raw("clib\nAttributeDict\n)\x81X\x01\0\0\0aK\x07s")).attributes.get("a"),
    7,
  );
  assert.deepEqual(object(new Raw("clib\nListConfig\n)\x81(K\x01K\x02e")).items, [1, 2]);
  // Copies of its state are counted.
  const state = new Map(Array.from({ length: 50 }, (_, i) => [i, i]));
  const repeated = `q\x02${"h\x02b".repeat(400)}`;
  refuses(
    pickleBytes(new Raw(`${textOf(pickleBytes(state))}q\x020clib\nA\n)\x81${repeated.slice(2)}`)),
    /each value to be copied at most once/,
  );
});

Deno.test("unpickle() makes objects of classes without a capital letter, but calls no function", () => {
  const cls = textOf(pickleBytes(name("__main__", "dotdict")));
  const made = load(`${cls})\x81X\x01\0\0\0aK\x07s.`) as PickledObject;
  assert.deepEqual([made.name, made.attributes.get("a")], ["__main__.dotdict", 7]);
  for (const bad of [`${cls}.`, `${cls})R.`, `(${cls}${cls})R0t.`]) {
    refuses(bad, /refers to __main__\.dotdict, which is not data/);
  }
});

Deno.test("unpickle() accepts getattr, getitem and type for names of types only", () => {
  const getattr = (...args: unknown[]) =>
    pickleBytes(new Call(name("builtins", "getattr"), ...args));
  const outer = name("__main__", "Outer");
  assert.equal((load(getattr(outer, "Inner")) as PickleGlobal).name, "__main__.Outer.Inner");
  for (const own of ["__init__", "make", "", 7]) {
    refuses(getattr(outer, own), /refers to builtins\.getattr/);
  }
  for (const owner of ["text", name("torch", "Size"), name("builtins", "int")]) {
    refuses(getattr(owner, "Inner"), /refers to builtins\.getattr/);
  }
  const getitem = (type: unknown) => pickleBytes(new Call(name("_operator", "getitem"), type, 1));
  assert.deepEqual(load(getitem(name("typing", "Dict"))), new Opaque("typing.Dict"));
  refuses(getitem(outer), /refers to operator\.getitem/);
  assert.deepEqual(load(pickleBytes(new Call(name("builtins", "type"), null))), new Opaque("None"));
});

Deno.test("unpickle() calls only its constructors, with valid arguments", () => {
  const cases: [unknown, RegExp][] = [
    [new Call("os.system", "echo"), /a constructor to call, got "os\.system"/],
    [new Call(new Map(), 1), /got a dict/],
    [new Call(new Call(name("collections", "OrderedDict"))), /got a dict/],
    [
      new Call(name("torch", "FloatStorage"), 1),
      /torch\.FloatStorage, which is not a data constructor/,
    ],
    [new Call(name("__builtin__", "int"), "1"), /builtins\.int, which is not a data constructor/],
    [new Raw("ccollections\nOrderedDict\n]R"), /to be a tuple/],
    [new Raw("ccollections\nOrderedDict\n)}(K\x01K\x02u\x92"), /without named arguments/],
    [new Raw("ccollections\nOrderedDict\n)}K\x01\x93"), /to be text/],
    [new Built([], { a: 1 }), /a value that takes attributes, got a list/],
    [new Built(new Map(), { a: 1 }), /got a dict/],
    [new Built(name("argparse", "Namespace"), { a: 1 }), /got argparse\.Namespace/],
    [new Built(new Call(name("argparse", "Namespace")), [1]), /in a dict/],
    [new Call(name("_codecs", "encode"), "a", "rot13"), /latin1/],
    [new Call(name("_codecs", "encode"), "ł", "latin1"), /latin1/],
    [new Call(name("torch", "device"), "cuda", [[]]), /a device/],
    [new Call(name("pathlib", "PosixPath"), 1), /parts of a path/],
    [new Call(name("numpy.core.multiarray", "scalar"), "f8", "12345678"), /dtype of a scalar/],
    [new Call(name("collections", "defaultdict"), "list"), /a class of default values/],
    [new Call(name("__builtin__", "set"), 7), /a list of values/],
    [new Call(name("collections", "OrderedDict"), [[1, 2, 3]]), /pairs of key and value/],
    [new Call(name("torch._utils", "_rebuild_parameter"), 1), /a tensor/],
    [
      new Call(name("torch._tensor", "_rebuild_from_type_v2"), name("torch", "Tensor")),
      /by PyTorch/,
    ],
    [
      // A chain of these would recurse.
      new Call(
        name("torch._tensor", "_rebuild_from_type_v2"),
        name("torch._tensor", "_rebuild_from_type_v2"),
        name("torch", "Tensor"),
        new Tuple(),
      ),
      /to be made by PyTorch/,
    ],
    [new Raw("K\x01Q"), /a persistent id of a storage/],
    [new Raw("(U\x06moduletQ"), /a persistent id of a storage/],
    [new Raw("Pstorage\n"), /0x50/],
    [new Raw("\x82\x01"), /0x82/],
    [new Raw("\x97"), /0x97/],
    [new Raw("(ios\nsystem\n"), /refers to os\.system/],
    [
      new Raw("(icollections\nOrderedDict\n"),
      /constructs collections\.OrderedDict as Python 2 does/,
    ],
    [new Raw("(cos\n"), /cut off|refers to/],
  ];
  for (const [value, message] of cases) refuses(pickleBytes(value), message);
});

Deno.test("unpickle() names the byte of a damaged pickle", () => {
  const cases: [string, RegExp][] = [
    ["", /1 more bytes, got 0; the pickle is cut off \(byte 0 /],
    [".", /1 more on the stack/],
    ["NN.", /one value at the end/],
    ["(N.", /one value|a mark|1 more/],
    ["N.N", /nothing after the end/],
    ["\x80\x06N.", /protocol 5 at most/],
    ["K\x01\x87.", /3 more on the stack \(byte 2 /],
    ["K\x01(0\x85K\x02(\x85.", /1 more on the stack/],
    ["t.", /a mark/],
    ["h\x00.", /a memo with entry 0/],
    ["j\xff\xff\xff\xff.", /a memo with entry 4294967295/],
    ["q\x00.", /1 more on the stack/],
    ["\x94.", /1 more on the stack/],
    ["K\x01Na.", /a list to append to/],
    [")Na.", /a list to append to/],
    ["]NNs.", /a dict to set items of/],
    ["}(Nu.", /a value for every key/],
    ["}(NNNNu.", /every key of a dict once, got None twice/],
    ["}(K\x01NX\x01\0\0\0aNK\x01Nu.", /got 1 twice/],
    ["](N\x90.", /a set to add to/],
    ["X\xff\xff\xff\xffabc.", /4294967295 more bytes, got 4; the pickle is cut off/],
    [`\x8d${"\xff".repeat(8)}.`, /more bytes/],
    [`\x8e${little(2n ** 40n, 8)}.`, /1099511627776 more bytes/],
    ["\x8b\xff\xff\xff\x7f.", /an integer of at most 1024 bytes, got 2147483647/],
    ["\x8b\xff\xff\xff\xff.", /an integer of at most/],
    ["\x8a\x05\x01.", /more bytes/],
    ["Ix\n.", /an integer/],
    [`L${"9".repeat(3000)}L\n.`, /an integer/],
    ["I1", /the end of a line/],
    ["X\x02\0\0\0\xff\xfe.", /text in UTF-8/],
    ["X\x03\0\0\0\xed\xa0\x80.", /text in UTF-8/],
    [`\x80\x04\x95${little(9, 8)}N.`, /a frame of at most 2 bytes, got 9/],
    [`\x80\x04\x95${"\xff".repeat(8)}N.`, /a frame of at most 2 bytes/],
    [`\x80\x04\x95${little(11, 8)}\x95${little(1, 8)}N.`, /frames that do not nest/],
    ["\xff.", /got 0xff/],
  ];
  for (const [pickle, message] of cases) refuses(pickle, message);
});

Deno.test("unpickle() refuses a pickle that is cut off anywhere", async () => {
  for (const file of ["trainer2.pt", "trainer4.pt"]) {
    const whole = await pickleOf(file);
    for (let n = 0; n < whole.length; n++) {
      refuses(whole.subarray(0, n), /cut off|frame|end of a line/);
    }
  }
});

Deno.test("unpickle() takes time and memory linear in the pickle's length", () => {
  const start = performance.now();
  // Each list holds the previous one ten times: 10^40 leaves in 40 lines.
  const tenfold = `](${"h\x00".repeat(10)}eq\x00`;
  const laughs = load(`]q\x000(${tenfold.repeat(40)}1h\x00.`);
  assert.ok(Array.isArray(laughs));
  const depth = 1_000_000;
  let inner = load("]".repeat(depth) + "a".repeat(depth - 1) + ".");
  for (let n = 1; n < depth; n++) inner = (inner as unknown[])[0];
  assert.deepEqual(inner, []);
  load("N" + "\x85".repeat(depth) + ".");
  const circle = load("]q\x00h\x00a.") as unknown[];
  assert.equal(circle[0], circle);
  // Each call copies one list of 10,000 values.
  const list = `(${"N".repeat(10_000)}lq\x000`;
  for (const copying of ["__builtin__\nset", "__builtin__\nlist", "__builtin__\nfrozenset"]) {
    const calls = `(c${copying}\nh\x00\x85R`.slice(1).repeat(1000);
    refuses(`${list}(${calls}l.`, /each value to be copied at most once/);
  }
  const text = `X${little(10_000, 4)}${"a".repeat(10_000)}q\x000`;
  refuses(
    `${text}(${"cpathlib\nPath\nh\x00h\x00\x86R".repeat(100)}l.`,
    /each value to be copied at most once/,
  );
  refuses("N0".repeat(2 ** 21 + 1), /at most 4194304 instructions/);
  assert.ok(performance.now() - start < PATIENCE_MS);
});

Deno.test("unpickle() returns values or throws a CheckpointError for any bytes", async () => {
  const whole = await pickleOf("trainer4.pt");
  for (let mutant = 0; mutant < 2000; mutant++) {
    const bytes = whole.slice();
    for (let n = 0; n <= threefry(mutant, 0, 0, 0) % 3; n++) {
      bytes[threefry(mutant, 1, n, 0) % bytes.length] = threefry(mutant, 2, n, 0);
    }
    try {
      load(bytes);
    } catch (error) {
      assert.ok(error instanceof CheckpointError, `mutant ${mutant}: ${(error as Error).stack}`);
    }
  }
});

Deno.test("unpickle() refuses a name of any length at once", () => {
  const start = performance.now();
  for (const long of ["_".repeat(1e6), "a".repeat(1e6), "a.".repeat(5e5)]) {
    refuses(`c${long}!\na.${long}!\n.`, /, which is not data/);
  }
  assert.ok(performance.now() - start < PATIENCE_MS);
});

Deno.test("unpickle() refuses damaged numbers, texts and indices of protocol 0", () => {
  const values = load("(F0.5\nF-1e-30\nFinf\nV\xf6\\u000a\\U0001f600\\x\np3\n0g3\nt.");
  assert.deepEqual(values, [0.5, -1e-30, Infinity, "ö\n😀\\x"]);
  refuses("F0x1\n.", /a float/);
  refuses("V\\U0011ffff\n.", /a code point/);
  refuses("Np-1\n.", /an index of the memo/);
  refuses("g7\n.", /a memo with entry 7/);
  refuses("Vabc", /cut off/);
});
