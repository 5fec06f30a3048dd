/**
 * Functions that every template may call.
 *
 * @module
 */
import { bind, needIndex, needText } from "./arguments.ts";
import { dictOf, Namespace } from "./runtime.ts";
import { toText } from "./repr.ts";
import {
  Callable,
  Dict,
  fail,
  iterate,
  type Kwargs,
  raise,
  Range,
  Thing,
  type Value,
} from "./values.ts";

/** `dict`, which is called, and has `fromkeys`. */
class DictType extends Thing {
  override readonly typeName = "TemplateDict";
  override readonly isCallable = true;

  override call(args: readonly Value[], kwargs: Kwargs): Value {
    return dictOf("dict", args, kwargs);
  }

  override attribute(name: string): Value | undefined {
    if (name !== "fromkeys") return undefined;
    return new Callable(name, (args, kwargs) => {
      const [keys, value = null] = bind(name, "iterable! value", args, kwargs);
      return new Dict([...iterate(keys!)].map((key) => [key, value]));
    });
  }
}

/** `cycler(…)`: gives its items one after the other. */
class Cycler extends Thing {
  override readonly typeName = "Cycler";
  #at = 0;

  constructor(readonly choices: readonly Value[]) {
    super();
    if (choices.length === 0) fail("at least one item has to be provided");
  }

  override attribute(name: string): Value | undefined {
    switch (name) {
      case "current":
        return this.choices[this.#at];
      case "pos":
        return BigInt(this.#at);
      case "next":
        return new Callable(name, () => {
          const item = this.choices[this.#at];
          this.#at = (this.#at + 1) % this.choices.length;
          return item;
        });
      case "reset":
        return new Callable(name, () => {
          this.#at = 0;
          return null;
        });
    }
  }
}

/** The functions by their names. @param now writes the time in a format. */
export function globals(now: (format: string) => string): [string, Value][] {
  const functions: Record<string, (args: readonly Value[], kwargs: Kwargs) => Value> = {
    range: (args) => {
      if (args.length === 0 || args.length > 3) fail("range() takes one to three integers");
      const [first, second, step = 1] = args.map((arg) => needIndex(arg, "range()"));
      return second === undefined ? new Range(0, first, 1) : new Range(first, second, step);
    },
    namespace: (args, kwargs) => new Namespace(dictOf("namespace", args, kwargs).entries()),
    cycler: (args) => new Cycler(args),
    joiner: (args, kwargs) => {
      const [separator = ", "] = bind("joiner", "sep", args, kwargs);
      let isUsed = false;
      return new Callable("joiner", () => {
        const text = isUsed ? separator : "";
        isUsed = true;
        return text;
      });
    },
    raise_exception: (args, kwargs) =>
      raise(toText(bind("raise_exception", "message!", args, kwargs)[0]!)),
    strftime_now: (args, kwargs) => {
      const [format] = bind("strftime_now", "format!", args, kwargs);
      return now(needText(format, "strftime_now()"));
    },
  };
  return [
    ["dict", new DictType()],
    ...Object.entries(functions).map((
      [name, run],
    ): [string, Value] => [name, new Callable(name, run)]),
  ];
}
