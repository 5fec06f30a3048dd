/**
 * Python classes whose objects are read as their attributes: a trainer's own, and those of the
 * standard library, NumPy and PyTorch that only hold data.
 *
 * A pickle does not say whether a name is a class or a function. A name with a capital letter is
 * taken for a class. Any other name must be made by NEWOBJ, which calls `cls.__new__`.
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

/**
 * Packages of which only the listed names are allowed: PyTorch, NumPy, and Python's standard
 * library (`sys.stdlib_module_names` of Python 3.14, and the modules that earlier versions had).
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
    "zlib zoneinfo " +
    // Names of Python 2, which Python 3 writes in protocol 2 and below.
    "BaseHTTPServer CGIHTTPServer ConfigParser Cookie Dialog DocXMLRPCServer HTMLParser Queue " +
    "ScrolledText SimpleHTTPServer SimpleXMLRPCServer SocketServer StringIO Tix Tkconstants " +
    "Tkdnd Tkinter anydbm cStringIO commands cookielib copy_reg dbhash dumbdbm dummy_thread " +
    "gdbm httplib markupbase repr robotparser thread tkColorChooser tkCommonDialog " +
    "tkFileDialog tkFont tkMessageBox tkSimpleDialog ttk urlparse whichdb xmlrpclib").split(" "),
);

/** Classes of the closed packages that only hold data, and functions that make such objects. */
const DATA = [
  /^datetime\.(datetime|date|time|timedelta|timezone)$/,
  /^(decimal\.Decimal|fractions\.Fraction|uuid\.(UUID|SafeUUID)|string\.Template)$/,
  /^collections\.(deque|ChainMap|UserDict|UserList|UserString)$/,
  /^ipaddress\.IPv[46]\w+$/,
  /^(array\.(array|_array_reconstructor)|re\._compile)$/,
  // A partial call is only kept; its function is refused where it is named.
  /^functools\.partial$/,
  /^(typing\.[A-Z]\w*|types\.GenericAlias|inspect\.(_empty|_ParameterKind|Parameter))$/,
  /^builtins\.([A-Z]\w*(Error|Exception|Warning|Interrupt)|Ellipsis|NotImplemented)$/,
  // Losses, activations, optimizers, schedulers and scalers beside the weights.
  /^torch\.(nn|optim|amp|cuda\.amp|utils\.data)\.[\w.]*\b_*[A-Z]\w*$/,
  /^numpy\.random\.\w+\.[A-Z]\w*$/,
];

/** Longest name of a class, with its module. */
const MAX_NAME = 1000;

/** A class whose objects become their attributes; undefined for any other name. */
export function findClass(name: string): PickleGlobal | undefined {
  // The patterns below are quadratic in a name that fits none of them.
  if (name.length > MAX_NAME) return undefined;
  const make = Object.hasOwn(FUNCTIONS, name) ? FUNCTIONS[name] : undefined;
  if (make) return new PickleGlobal(name, { make, unsure: "call" });
  if (DATA.some((pattern) => pattern.test(name))) return new PickleGlobal(name, classOf(name));
  const [, root, capital] = /^(\w+)[\w.]*\._*([A-Z])?\w*$/.exec(name) ?? [];
  const isPrivate = root?.startsWith("_") && root !== "__main__" && root !== "__mp_main__";
  if (root === undefined || isPrivate || CLOSED_PACKAGES.has(root)) return undefined;
  if (capital) return new PickleGlobal(name, classOf(name));
  return new PickleGlobal(name, { ...classOf(name), unsure: "new" });
}

function classOf(name: string): Constructor {
  return {
    make(args, machine) {
      machine.spend(args.length);
      return new PickledObject(name, args);
    },
    build(made, state, machine) {
      const { attributes } = made as PickledObject;
      // With __slots__ the state is a pair: attributes, and attributes in slots.
      for (const part of isTuple(state) ? state : [state]) {
        if (!(part instanceof Map)) continue;
        machine.spend(part.size);
        for (const [key, value] of part) attributes.set(key, value);
      }
    },
  };
}

/** Functions that are accepted for some arguments only. */
const FUNCTIONS: Readonly<Record<string, Constructor["make"]>> = {
  "builtins.getattr": nested,
  "builtins.type": ([value], machine) =>
    value === null ? new Opaque("None") : machine.refuseName("builtins.type"),
  "_operator.getitem": subscripted,
  "operator.getitem": subscripted,
};

/** `getattr(Outer, "Inner")`: protocols below 4 write a class within a class as this call. */
function nested([outer, own]: readonly unknown[], machine: Machine): PickleGlobal {
  const isName = typeof own === "string" && /^_*[A-Z]\w*$/.test(own);
  const full = outer instanceof PickleGlobal && isName ? `${outer.name}.${own}` : "";
  machine.spend(full.length);
  return findClass(full) ?? machine.refuseName("builtins.getattr");
}

/** `typing.Optional[int]`, a call of getitem. */
function subscripted([type]: readonly unknown[], machine: Machine): Opaque {
  const isType = type instanceof PickleGlobal && type.name.startsWith("typing.");
  return isType ? new Opaque(type.name) : machine.refuseName("operator.getitem");
}
