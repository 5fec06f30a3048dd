/**
 * Post-processor of a tokenizer.json: the special tokens that a model expects around a text.
 *
 * @module
 */
import { isRecord } from "../json.ts";
import { asList, asStep, asText } from "./rewrite.ts";
import { type Fail, isId, show, Unsupported, type Vocabulary } from "./vocabulary.ts";

/** Ids before and after a text. */
export interface Template {
  readonly before: readonly number[];
  readonly after: readonly number[];
}

/** Reads the post-processor, for a single text (not a pair). */
export function readTemplate(postProcessor: unknown, vocabulary: Vocabulary, fail: Fail): Template {
  if (postProcessor == null) return { before: [], after: [] };
  const step = asStep(postProcessor, "post_processor", fail);
  switch (step.type) {
    case "ByteLevel": // changes offsets only
      return { before: [], after: [] };
    case "Sequence":
      return asList(step.processors, "processors", fail).map((one) =>
        readTemplate(one, vocabulary, fail)
      )
        .reduce(
          (inner, { before, after }) => ({
            before: [...before, ...inner.before],
            after: [...inner.after, ...after],
          }),
          { before: [], after: [] },
        );
    case "BertProcessing":
    case "RobertaProcessing":
      return {
        before: [specialTokenId(step.cls, vocabulary, fail)],
        after: [specialTokenId(step.sep, vocabulary, fail)],
      };
    case "TemplateProcessing":
      return readSingle(step, vocabulary, fail);
    default:
      throw new Unsupported(`a post-processor of type ${show(step.type)}`);
  }
}

/** Id of a special token, given as a pair of content and id. */
function specialTokenId(token: unknown, { tokens }: Vocabulary, fail: Fail): number {
  const id: unknown = Array.isArray(token) ? token[1] : undefined;
  return isId(id) && tokens[id] !== undefined
    ? id
    : fail(`a special token and its id, got ${show(token)}`);
}

function readSingle(
  step: Record<string, unknown>,
  { tokens }: Vocabulary,
  fail: Fail,
): Template {
  const { special_tokens: special } = step;
  if (!isRecord(special)) return fail("special_tokens to be an object");
  const [before, after]: [number[], number[]] = [[], []];
  let at = before;
  for (const item of asList(step.single, "the template", fail)) {
    if (isRecord(item) && isRecord(item.Sequence)) {
      if (at === after) throw new Unsupported("a template that contains the text twice");
      at = after;
    } else if (isRecord(item) && isRecord(item.SpecialToken)) {
      const name = asText(item.SpecialToken.id, "the id of a special token", fail);
      const token = special[name];
      const ids: unknown = isRecord(token) ? token.ids : undefined;
      if (!Array.isArray(ids) || !ids.every((id) => isId(id) && tokens[id] !== undefined)) {
        return fail(`ids of ${show(name)}, got ${show(token)}`);
      }
      at.push(...ids);
    } else fail(`a template of special tokens and the text, got ${show(item)}`);
  }
  if (at === before) fail("a template that contains the text");
  return { before, after };
}
