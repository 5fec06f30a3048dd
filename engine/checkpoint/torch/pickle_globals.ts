/**
 * Allow-list of Python names in checkpoints, with the plain value that each makes.
 *
 * It covers the names that PyTorch's `weights_only` loader accepts, and those of common trainers'
 * metadata. Every other name is refused; no name is looked up anywhere else.
 *
 * @module
 */
import { HALVES } from "../../../kernels/formats/half.ts";
import { findClass } from "./pickle_classes.ts";
import { type Constructor, isTuple, type Machine, Opaque, PickleGlobal } from "./pickle_values.ts";

/** PyTorch's dtypes in the spelling of safetensors. */
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

/** PyTorch's typed storages in the spelling of safetensors. */
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

/** Names that a checkpoint may contain, but whose tensors cannot be read. */
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

/** NumPy's classes of scalars, which a configuration names as dtypes. */
const NUMPY_SCALARS = "float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 " +
  "bool bool_ str_ bytes_ complex64 complex128 longdouble longlong ulonglong intc";

/** A storage: the bytes of one or more tensors, in a member of the archive. */
export class TorchStorage {
  /** `key` names the member; `count` is in elements, or in bytes if the class is untyped. */
  constructor(readonly type: PickleGlobal, readonly key: string, readonly count: number) {}
}

/** A tensor's description in the pickle. It is checked only if the tensor belongs to the model. */
export class TorchTensor {
  /** Takes the arguments of PyTorch's `_rebuild_tensor` functions. */
  constructor(
    readonly storage: unknown,
    readonly offset: unknown,
    readonly shape: unknown,
    readonly stride: unknown,
    /** Absent if it is the storage's. */
    readonly dtype?: unknown,
    /** Flags of a lazily negated or conjugated tensor. */
    readonly flags?: unknown,
  ) {}
}

/** The safetensors spelling of a dtype or a typed storage; undefined if it is not supported. */
export function spellingOf({ name }: PickleGlobal): string | undefined {
  return spellings.get(name);
}

/** An allowed name, under its current or an older module name. */
export function findGlobal(name: string): PickleGlobal | undefined {
  const current = name
    .replace(/^__builtin__\./, "builtins.")
    .replace(/^builtins\.xrange$/, "builtins.range")
    .replace(/^builtins\.long$/, "builtins.int")
    .replace(/^builtins\.unicode$/, "builtins.str")
    .replace(/^numpy\._core\./, "numpy.core.")
    .replace(/^pathlib\._local\./, "pathlib.")
    .replace(/^torch\.cuda\.(\w+Storage)$/, "torch.$1");
  return globals.get(current) ?? findClass(current);
}

/** The storage of a persistent id: ("storage", class, key, location, number of elements). */
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

/** Whether a value is a natural number below 2^53. */
export function isNatural(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

const spellings = new Map<string, string>();
const globals = new Map<string, PickleGlobal>();

function add(name: string, constructor?: Constructor): void {
  globals.set(name, new PickleGlobal(name, constructor));
}

/** A constructor that keeps only its name. */
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
  make: ([storage, offset, shape, stride, , , flags]) =>
    new TorchTensor(storage, offset, shape, stride, undefined, flags),
});
add("torch._utils._rebuild_tensor_v3", {
  make: ([storage, offset, shape, stride, , , dtype, flags]) =>
    new TorchTensor(storage, offset, shape, stride, dtype, flags),
});
for (const name of OTHER_TENSORS.split(" ")) {
  add(`torch._utils.${name}`, opaque(`torch._utils.${name}`));
}
const parameter: Constructor = { make: ([data], machine) => tensorOrOpaque(data, machine) };
add("torch._utils._rebuild_parameter", parameter);
add("torch._utils._rebuild_parameter_with_state", parameter);
add("torch._tensor._rebuild_from_type_v2", {
  // A tensor with attributes: rebuild function, class, arguments, attributes.
  make([rebuild, , args], machine) {
    if (!(rebuild instanceof PickleGlobal) || !rebuild.name.startsWith("torch._utils._rebuild_")) {
      return machine.fail("a tensor to be made by PyTorch");
    }
    if (!rebuild.make || !isTuple(args)) return machine.fail("the arguments of a tensor");
    return tensorOrOpaque(rebuild.make(args, machine), machine);
  },
});

function tensorOrOpaque(value: unknown, machine: Machine): TorchTensor | Opaque {
  if (value instanceof TorchTensor || value instanceof Opaque) return value;
  return machine.fail("a tensor");
}

// Other PyTorch values
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

// Python values
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
// State dicts have an attribute `_metadata` with versions of modules; it is not needed.
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
  // Protocol 2 writes bytes as a call of this function.
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

/** Copies the items of a list or a set, as list() and set() do. */
function copyOf(items: unknown = [], machine: Machine): unknown[] {
  if (!Array.isArray(items) && !(items instanceof Set)) return machine.fail("a list of values");
  machine.spend(items instanceof Set ? items.size : items.length);
  return [...items];
}

/** Copies a dict or a list of pairs, as dict() does. */
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

// NumPy scalars: a mean of losses is one. Arrays (generator states) are not kept.
add("numpy.ndarray");
add("numpy.core.multiarray._reconstruct", {
  make: () => new Opaque("numpy.ndarray"),
  build: () => {},
});
add("numpy.core.numeric._frombuffer", opaque("numpy.ndarray"));
for (const name of NUMPY_SCALARS.split(" ")) add(`numpy.${name}`);
// Generators of random numbers, of which nothing is kept.
for (
  const name of [
    "_pickle.__generator_ctor",
    "_pickle.__bit_generator_ctor",
    "_pickle.__randomstate_ctor",
    "bit_generator.__pyx_unpickle_SeedSequence",
  ]
) add(`numpy.random.${name}`, { make: () => new Opaque(`numpy.random.${name}`), build: () => {} });
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
    // A text of NumPy: code points of 4 bytes.
    if (/^U\d+$/.test(dtype.code) && bytes instanceof Uint8Array) {
      return textOf(bytes, !dtype.bigEndian, machine);
    }
    const read = Object.hasOwn(SCALARS, dtype.code) ? SCALARS[dtype.code] : undefined;
    if (!read) return new Opaque("numpy scalar");
    if (!(bytes instanceof Uint8Array) || bytes.length !== Number(dtype.code.slice(1))) {
      return machine.fail(`the bytes of a scalar of ${dtype.code}`);
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return read(view, !dtype.bigEndian);
  },
});

function textOf(bytes: Uint8Array, little: boolean, machine: Machine): string {
  machine.spend(bytes.length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let text = "";
  for (let at = 0; at + 4 <= bytes.length; at += 4) {
    const code = view.getUint32(at, little);
    if (code > 0x10ffff) return machine.fail("code points of a text");
    text += String.fromCodePoint(code);
  }
  return text.replace(/\0+$/, "");
}

class NumpyDtype {
  bigEndian = false;
  constructor(readonly code: string) {}
}

/** Readers by NumPy's dtype code: kind and number of bytes. */
const SCALARS: Readonly<Record<string, (view: DataView, little: boolean) => unknown>> = {
  f8: (view, little) => view.getFloat64(0, little),
  f4: (view, little) => view.getFloat32(0, little),
  f2: (view, little) => HALVES.get(view, 0, little),
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
