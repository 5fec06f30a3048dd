/**
 * The names of Python that a checkpoint may ask for, and the plain value that each makes: what
 * PyTorch's own `weights_only` loader lets through, and what trainers keep beside their tensors. A
 * name that is not here is refused; none is ever looked up elsewhere.
 *
 * @module
 */
import {
  type Constructor,
  isTuple,
  type Machine,
  Opaque,
  PickledObject,
  PickleGlobal,
} from "./pickle_values.ts";

/** PyTorch's dtypes, as safetensors spells them. */
const DTYPES: Readonly<Record<string, string>> = {
  float64: "F64",
  float32: "F32",
  float16: "F16",
  bfloat16: "BF16",
  int64: "I64",
  int32: "I32",
  int16: "I16",
  int8: "I8",
  uint64: "U64",
  uint32: "U32",
  uint16: "U16",
  uint8: "U8",
  bool: "BOOL",
  float8_e4m3fn: "F8_E4M3",
  float8_e5m2: "F8_E5M2",
};

/** PyTorch's storages of one dtype. */
const STORAGES: Readonly<Record<string, string>> = {
  DoubleStorage: "F64",
  FloatStorage: "F32",
  HalfStorage: "F16",
  BFloat16Storage: "BF16",
  LongStorage: "I64",
  IntStorage: "I32",
  ShortStorage: "I16",
  CharStorage: "I8",
  ByteStorage: "U8",
  BoolStorage: "BOOL",
};

/** What may be named in a checkpoint, though no tensor of it is read. */
const OTHER_DTYPES =
  "complex32 complex64 complex128 bcomplex32 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu " +
  "float4_e2m1fn_x2 qint8 quint8 qint32 quint4x2 quint2x4 bits8 bits16 bits1x8 bits2x4 bits4x2 " +
  "per_tensor_affine per_tensor_symmetric per_channel_affine per_channel_symmetric " +
  "per_channel_affine_float_qparams";
const OTHER_STORAGES =
  "ComplexFloatStorage ComplexDoubleStorage QInt8Storage QUInt8Storage QInt32Storage " +
  "QUInt4x2Storage QUInt2x4Storage";
const OTHER_TENSORS =
  "_rebuild_sparse_tensor _rebuild_sparse_csr_tensor _rebuild_qtensor _rebuild_nested_tensor " +
  "_rebuild_wrapper_subclass _rebuild_meta_tensor_no_storage _rebuild_device_tensor_from_numpy " +
  "_rebuild_device_tensor_from_cpu_tensor";

/** The bytes of tensors, in a member of the archive. */
export class TorchStorage {
  /**
   * Pairs a storage's class with the name of its member and its number of elements: of bytes,
   * where the class has no dtype.
   */
  constructor(readonly type: PickleGlobal, readonly key: string, readonly count: number) {}
}

/**
 * A tensor as the pickle tells of it. Its parts are checked when the tensor is wanted, which
 * an optimizer's never is.
 */
export class TorchTensor {
  /** Keeps the arguments of PyTorch's `_rebuild_tensor` functions. */
  constructor(
    readonly storage: unknown,
    readonly offset: unknown,
    readonly shape: unknown,
    readonly stride: unknown,
    /** Where it is not the storage's. */
    readonly dtype?: unknown,
    /** Marks of numbers that are to be negated or conjugated when read. */
    readonly marks?: unknown,
  ) {}
}

/** How safetensors spells a dtype or a storage's dtype; undefined where no tensor of it is read. */
export function spellingOf({ name }: PickleGlobal): string | undefined {
  return spellings.get(name);
}

/**
 * The name that a pickle asks for, under whichever of its names: modules have moved over the years.
 */
export function findGlobal(name: string): PickleGlobal | undefined {
  const known = globals.get(
    name
      .replace(/^__builtin__\./, "builtins.")
      .replace(/^builtins\.xrange$/, "builtins.range")
      .replace(/^builtins\.long$/, "builtins.int")
      .replace(/^builtins\.unicode$/, "builtins.str")
      .replace(/^numpy\._core\./, "numpy.core.")
      .replace(/^pathlib\._local\./, "pathlib.")
      .replace(/^torch\.cuda\.(\w+Storage)$/, "torch.$1"),
  );
  return known ?? foreignName(name);
}

/**
 * Packages whose names are data only if the table has them: PyTorch, NumPy and Python's standard
 * library (`sys.stdlib_module_names` of Python 3.14 and what earlier versions had beside it).
 */
const CLOSED_PACKAGES = new Set(
  ("torch numpy pip setuptools pkg_resources " +
    "abc aifc annotationlib antigravity argparse array ast asynchat asyncio asyncore atexit " +
    "audioop base64 bdb binascii bisect builtins bz2 calendar cgi cgitb chunk cmath cmd code " +
    "codecs codeop collections colorsys compileall compression concurrent configparser " +
    "contextlib contextvars copy copyreg crypt csv ctypes curses cPickle dataclasses datetime " +
    "dbm decimal difflib dis distutils doctest email encodings ensurepip enum errno faulthandler " +
    "fcntl filecmp fileinput fnmatch formatter fractions ftplib functools gc genericpath getopt " +
    "getpass gettext glob graphlib grp gzip hashlib heapq hmac html http idlelib imaplib imghdr " +
    "imp importlib inspect io ipaddress itertools json keyword lib2to3 linecache locale logging " +
    "lzma mailbox mailcap marshal math mimetypes mmap modulefinder msilib msvcrt multiprocessing " +
    "netrc nis nntplib nt ntpath nturl2path numbers opcode operator optparse os ossaudiodev " +
    "pathlib pdb pickle pickletools pipes pkgutil platform plistlib poplib posix posixpath " +
    "pprint profile pstats pty pwd py_compile pyclbr pydoc pydoc_data pyexpat queue quopri " +
    "random re readline reprlib resource rlcompleter runpy sched secrets select selectors shelve " +
    "shlex shutil signal site smtpd smtplib sndhdr socket socketserver spwd sqlite3 sre_compile " +
    "sre_constants sre_parse ssl stat statistics string stringprep struct subprocess sunau " +
    "symtable sys sysconfig syslog tabnanny tarfile telnetlib tempfile termios test textwrap " +
    "this threading time timeit tkinter token tokenize tomllib trace traceback tracemalloc tty " +
    "turtle turtledemo types typing unicodedata unittest urllib urllib2 uu uuid venv warnings " +
    "wave weakref webbrowser winreg winsound wsgiref xdrlib xml xmlrpc zipapp zipfile zipimport " +
    "zlib zoneinfo").split(" "),
);

/**
 * A class of a trainer's own code or library, which makes an object whose state is kept as data.
 * Python spells classes with a capital letter; a function, which a pickle would call, is refused.
 */
function foreignName(name: string): PickleGlobal | undefined {
  const [, root] = /^(\w+)[\w.]*\._*[A-Z]\w*$/.exec(name) ?? [];
  const isPrivate = root?.startsWith("_") && root !== "__main__" && root !== "__mp_main__";
  if (root === undefined || isPrivate || CLOSED_PACKAGES.has(root)) return undefined;
  return new PickleGlobal(name, foreignClass(name));
}

function foreignClass(name: string): Constructor {
  return {
    make(args, machine) {
      machine.spend(args.length);
      return new PickledObject(name, args);
    },
    build(made, state, machine) {
      const { attributes } = made as PickledObject;
      // With __slots__ the state is a pair: of the attributes, and of those in slots.
      for (const part of isTuple(state) ? state : [state]) {
        if (!(part instanceof Map)) continue;
        machine.spend(part.size);
        for (const [key, value] of part) attributes.set(key, value);
      }
    },
  };
}

/**
 * Makes the storage that a persistent id points to: ("storage", class, key,
 * location, number of elements).
 */
export function persistentStorage(id: unknown, machine: Machine): TorchStorage {
  if (!isTuple(id) || id.length !== 5 || id[0] !== "storage") {
    return machine.fail("a persistent id of a storage");
  }
  const [, type, key, , count] = id;
  if (!(type instanceof PickleGlobal) || !type.name.endsWith("Storage")) {
    return machine.fail("a class of storage");
  }
  if (typeof key !== "string" || !isNatural(count)) {
    return machine.fail("a storage with its key and its number of elements");
  }
  return new TorchStorage(type, key, count);
}

/** Whether a value is a natural number that is exact. */
export function isNatural(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

const spellings = new Map<string, string>();
const globals = new Map<string, PickleGlobal>();

function add(name: string, constructor?: Constructor): void {
  globals.set(name, new PickleGlobal(name, constructor));
}

/** A value of which only the name is kept, whatever it is made of. */
function opaque(name: string): Constructor {
  return { make: () => new Opaque(name) };
}

for (const [name, spelling] of Object.entries({ ...DTYPES, ...STORAGES })) {
  spellings.set(`torch.${name}`, spelling);
  add(`torch.${name}`);
}
for (const name of `${OTHER_DTYPES} ${OTHER_STORAGES} Tensor`.split(" ")) add(`torch.${name}`);
for (const name of ["UntypedStorage", "TypedStorage"]) add(`torch.storage.${name}`);
add("torch.nn.parameter.Parameter");

// Tensors
add("torch._utils._rebuild_tensor", {
  make: ([storage, offset, shape, stride]) => new TorchTensor(storage, offset, shape, stride),
});
add("torch._utils._rebuild_tensor_v2", {
  make: ([storage, offset, shape, stride, , , marks]) =>
    new TorchTensor(storage, offset, shape, stride, undefined, marks),
});
add("torch._utils._rebuild_tensor_v3", {
  make: ([storage, offset, shape, stride, , , dtype, marks]) =>
    new TorchTensor(storage, offset, shape, stride, dtype, marks),
});
for (const name of OTHER_TENSORS.split(" ")) {
  add(`torch._utils.${name}`, opaque(`torch._utils.${name}`));
}
const parameter: Constructor = { make: ([data], machine) => tensorOrOpaque(data, machine) };
add("torch._utils._rebuild_parameter", parameter);
add("torch._utils._rebuild_parameter_with_state", parameter);
add("torch._tensor._rebuild_from_type_v2", {
  // A tensor with attributes of its own: how to make it, its class, the arguments, the attributes.
  make([how, , args], machine) {
    if (!(how instanceof PickleGlobal) || !how.name.startsWith("torch._utils._rebuild_")) {
      return machine.fail("a tensor to be made by PyTorch");
    }
    if (!how.make || !isTuple(args)) return machine.fail("the arguments of a tensor");
    return tensorOrOpaque(how.make(args, machine), machine);
  },
});

function tensorOrOpaque(value: unknown, machine: Machine): TorchTensor | Opaque {
  if (value instanceof TorchTensor || value instanceof Opaque) return value;
  return machine.fail("a tensor");
}

// What else PyTorch keeps
add("torch.Size", {
  make: ([extents = Object.freeze([])], machine) =>
    Array.isArray(extents) ? extents : machine.fail("the extents of a size"),
});
add("torch.device", {
  make([type, index], machine) {
    if (typeof type !== "string" || (index !== undefined && !isNatural(index))) {
      return machine.fail("a device by its name and its number");
    }
    machine.spend(type.length);
    return index === undefined ? type : `${type}:${index}`;
  },
});
const text: Constructor = {
  make: ([value], machine) => typeof value === "string" ? value : machine.fail("a text"),
};
add("torch.torch_version.TorchVersion", text);
add("torch.serialization._get_layout", text);

// Python's own values
for (const name of ["int", "float", "str", "bool", "tuple", "object"]) add(`builtins.${name}`);
for (const name of ["complex", "range", "slice"]) {
  add(`builtins.${name}`, opaque(`builtins.${name}`));
}
for (const name of ["set", "frozenset"]) {
  add(`builtins.${name}`, { make: ([items], machine) => new Set(copyOf(items, machine)) });
}
add("builtins.list", { make: ([items], machine) => copyOf(items, machine) });
const dict = ([items]: readonly unknown[], machine: Machine) => dictOf(items, machine);
add("builtins.dict", { make: dict });
add("collections.Counter", { make: dict });
// State dicts have attributes (`_metadata`, the versions of the modules), which
// say nothing of the tensors.
add("collections.OrderedDict", { make: dict, build: () => {} });
add("collections.defaultdict", {
  make: ([factory = null], machine) =>
    factory === null || factory instanceof PickleGlobal
      ? new Map()
      : machine.fail("a class of default values"),
});
for (const name of ["argparse.Namespace", "types.SimpleNamespace"]) {
  add(name, {
    make: () => new Map(),
    build(made, state, machine) {
      if (!(state instanceof Map)) return machine.fail(`the attributes of ${name} in a dict`);
      machine.spend(state.size);
      for (const [key, value] of state) (made as Map<unknown, unknown>).set(key, value);
    },
  });
}
add("_codecs.encode", {
  // How protocol 2 writes bytes.
  make: ([value, encoding], machine) => latin1(value, encoding, machine),
});
for (const name of ["bytes", "bytearray"]) {
  add(`builtins.${name}`, {
    make([value = new Uint8Array(), encoding], machine) {
      return value instanceof Uint8Array ? value : latin1(value, encoding, machine);
    },
  });
}
for (const flavour of ["", "Posix", "Windows"]) {
  for (const pure of ["", "Pure"]) {
    add(`pathlib.${pure}${flavour}Path`, {
      make(parts, machine) {
        for (const part of parts) {
          if (typeof part !== "string") return machine.fail("the parts of a path to be text");
          machine.spend(part.length);
        }
        return parts.join("/").replace(/^\/\//, "/");
      },
    });
  }
}

/** Python's ways to fill a list or a set. */
function copyOf(items: unknown = [], machine: Machine): unknown[] {
  if (!Array.isArray(items) && !(items instanceof Set)) return machine.fail("a list of values");
  machine.spend(items instanceof Set ? items.size : items.length);
  return [...items];
}

/** Python's ways to fill a dict: another, or a list of pairs. */
function dictOf(items: unknown = [], machine: Machine): Map<unknown, unknown> {
  if (items instanceof Map) {
    machine.spend(items.size);
    return new Map(items);
  }
  const made = new Map<unknown, unknown>();
  for (const pair of copyOf(items, machine)) {
    if (!Array.isArray(pair) || pair.length !== 2) return machine.fail("pairs of key and value");
    made.set(pair[0], pair[1]);
  }
  return made;
}

function latin1(value: unknown, encoding: unknown, machine: Machine): Uint8Array {
  if (typeof value !== "string" || (encoding !== "latin1" && encoding !== "latin-1")) {
    return machine.fail("bytes as a text in latin1");
  }
  machine.spend(value.length);
  const bytes = new Uint8Array(value.length);
  for (let i = 0; i < bytes.length; i++) {
    const code = value.charCodeAt(i);
    if (code > 0xff) return machine.fail("bytes as a text in latin1");
    bytes[i] = code;
  }
  return bytes;
}

// NumPy's scalars, which are what a mean of losses is; of its arrays (states of
// generators) nothing is kept.
add("numpy.ndarray");
add("numpy.core.multiarray._reconstruct", {
  make: () => new Opaque("numpy.ndarray"),
  build: () => {},
});
add("numpy.core.numeric._frombuffer", opaque("numpy.ndarray"));
add("numpy.dtype", {
  make: ([code], machine) =>
    typeof code === "string" ? new NumpyDtype(code) : machine.fail("a dtype by its code"),
  build(made, state) {
    if (made instanceof NumpyDtype && isTuple(state)) made.bigEndian = state[1] === ">";
  },
});
add("numpy.core.multiarray.scalar", {
  make([dtype, bytes], machine) {
    if (!(dtype instanceof NumpyDtype)) return machine.fail("the dtype of a scalar");
    const read = Object.hasOwn(SCALARS, dtype.code) ? SCALARS[dtype.code] : undefined;
    if (!read) return new Opaque("numpy scalar");
    if (!(bytes instanceof Uint8Array) || bytes.length !== Number(dtype.code.slice(1))) {
      return machine.fail(`the bytes of a scalar of ${dtype.code}`);
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return read(view, !dtype.bigEndian);
  },
});

class NumpyDtype {
  bigEndian = false;
  constructor(readonly code: string) {}
}

/** NumPy's codes: the kind, and the number of bytes. */
const SCALARS: Readonly<Record<string, (view: DataView, little: boolean) => unknown>> = {
  f8: (view, little) => view.getFloat64(0, little),
  f4: (view, little) => view.getFloat32(0, little),
  f2: (view, little) => view.getFloat16(0, little),
  i8: (view, little) => Number(view.getBigInt64(0, little)),
  i4: (view, little) => view.getInt32(0, little),
  i2: (view, little) => view.getInt16(0, little),
  i1: (view) => view.getInt8(0),
  u8: (view, little) => Number(view.getBigUint64(0, little)),
  u4: (view, little) => view.getUint32(0, little),
  u2: (view, little) => view.getUint16(0, little),
  u1: (view) => view.getUint8(0),
  b1: (view) => view.getUint8(0) !== 0,
};
