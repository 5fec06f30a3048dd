/**
 * Pre-tokenizers of GGUF files: the patterns behind each name of `tokenizer.ggml.pre`.
 *
 * A GGUF file names the pre-tokenizer of its BPE and has no pattern. The names are those of
 * llama.cpp (src/llama-vocab.cpp); the patterns are those of the models' tokenizer.json, each
 * isolating its matches in the pieces that the one before has left.
 *
 * @module
 */

/** A pre-tokenizer. */
export interface PreTokenizer {
  /** Patterns in order. */
  readonly patterns: readonly string[];
  /** Whether a piece that is a token is taken whole, before any merge. */
  readonly ignoresMerges?: boolean;
  /** Whether BOS comes first unless the file says otherwise. */
  readonly addsBos?: boolean;
  /** Whether tokens are text with ▁ for a space, in place of GPT-2's characters for bytes. */
  readonly isText?: boolean;
}

const raw = String.raw;

/** English contractions in either case. */
const ENDINGS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])";

/** GPT-2's words; the white space that it leaves is a piece of its own. */
const GPT2 = raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)`;

/** White space, as the patterns since GPT-4 end. */
const SPACES = raw`\s*[\r\n]+|\s+(?!\S)|\s+`;

/** GPT-4's words, with numbers of a given form. */
const gpt4 = (numbers: string): string =>
  raw`${ENDINGS}|[^\r\n\p{L}\p{N}]?\p{L}+|${numbers}| ?[^\s\p{L}\p{N}]+[\r\n]*|${SPACES}`;

const UPPER = raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`;
const LOWER = raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`;

/** GPT-4o's words, which end where lower case is followed by upper case. */
const gpt4o = (endings: string, numbers: string): string =>
  raw`[^\r\n\p{L}\p{N}]?${UPPER}*${LOWER}+${endings}|[^\r\n\p{L}\p{N}]?${UPPER}+${LOWER}*` +
  raw`${endings}|${numbers}| ?[^\s\p{L}\p{N}]+[\r\n/]*|${SPACES}`;

/** DeepSeek's words: a mark of ASCII with letters, letters, marks. */
const deepseek = (marks: string, spaces: string): string =>
  raw`[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_\x60{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|` +
  raw` ?[\p{P}\p{S}]+${marks}|${spaces}`;

/** Han characters and kana. */
const HAN_KANA = raw`[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+`;

const DIGITS_OF_3 = raw`\p{N}{1,3}`;

/** Digits in threes, counted from the right. */
const fromRight = (digit: string): string => `${digit}{1,3}(?=(?:${digit}{3})*(?!${digit}))`;

/** Latin, Greek, Cyrillic and other letters with case. */
const DEEPSEEK_LETTERS =
  raw`\s?[A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293` +
  raw`\u0295-\u02AF\u0370-\u0373\u0376\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C` +
  raw`\u038E-\u03A1\u03A3-\u03F5\u03F7-\u0481\u048A-\u052F\u0531-\u0556\u10A0-\u10C5\u13A0` +
  raw`-\u13F5\u13F8-\u13FD\u1C90-\u1CBA\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77\u1D79-` +
  raw`\u1D9A\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45\u1F48-\u1F4D\u1F50-\u1F57\u1F59\u1F5B` +
  raw`\u1F5D\u1F5F-\u1F7D\u1F80-\u1FB4\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4\u1FC6-\u1FCC\u1FD0-` +
  raw`\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC\u1FF2-\u1FF4\u1FF6-\u1FFC\u2102\u2107\u210A-\u2113` +
  raw`\u2115\u2119-\u211D\u2124\u2126\u2128\u212A-\u212D\u212F-\u2134\u2139\u213C-\u213F` +
  raw`\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-\u2CE4\u2CEB-\u2CEE\u2CF2\u2CF3` +
  raw`\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F\uA771-\uA787\uA78B-\uA78E\uAB70-\uABBF\uFB00` +
  raw`-\uFB06\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A\u{10400}-\u{1044F}\u{104B0}-\u{104D3}` +
  raw`\u{104D8}-\u{104FB}\u{10C80}-\u{10CB2}\u{10CC0}-\u{10CF2}\u{118A0}-\u{118DF}` +
  raw`\u{1E900}-\u{1E943}]+`;

/** Scripts that AFMoE splits from the others. */
const AFMOE_SCRIPTS =
  raw`[\u4E00-\u9FFF\u3400-\u4DBF\u8C48-\uFAFF\u3040-\u309F\u30A0-\u30FF\uFF65-\uFF9F` +
  raw`\u2F00-\u2FDF\u0E40-\u0E7F\u0E80-\u0EFF\u1780-\u17FF\u1000-\u109F\uAA60-\uAA7F\uA9E0` +
  raw`-\uA9FF\uAC00-\uD7AF\u1100-\u11FF]+`;

/** Chinese, Japanese and Korean. */
const DEEPSEEK_CJK = raw`[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+`;

/** Korean, marks, Bopomofo, and Chinese with kana. */
const YOUTU_CJK =
  raw`[\uAC00-\uD7A3\u3131-\u318E]+|[\uFF01\u2026\u201C\u201D\u2018\u2019\u2014\uFF1A` +
  raw`\uFF1B\uFF0C\u3001-\u303F\uFE30-\uFE4F]+|[\u3105-\u312F]+|[\u4E00-\u9FA5\u3040-` +
  raw`\u309F\u30A0-\u30FF]+`;

/** White space in runs of powers of two. */
const JAIS_SPACES = [512, 256, 128, 64, 32, 16, 8, 4].map((n) => raw`\s{${n}}(?!\S)`).join("|");

const HAN = raw`\p{Script=Han}`;
const notHan = (letters: string): string => `(?:(?!${HAN})${letters})`;

const LLAMA3: PreTokenizer = { patterns: [gpt4(DIGITS_OF_3)], ignoresMerges: true, addsBos: true };
const QWEN2: PreTokenizer = { patterns: [gpt4(raw`\p{N}`)] };
const GPT2_WORDS: PreTokenizer = { patterns: [GPT2] };
const STARCODER: PreTokenizer = { patterns: [raw`\p{N}`, GPT2] };
const GPT4O: PreTokenizer = { patterns: [gpt4o(`${ENDINGS}?`, DIGITS_OF_3)] };
const DEEPSEEK3: PreTokenizer = {
  patterns: [DIGITS_OF_3, HAN_KANA, deepseek(raw`[\r\n]*`, SPACES)],
};
const BLOOM = raw` ?[^(\s|.,!?\u2026\u3002\uFF0C\u3001\u0964\u06D4\u060C)]+`;
const BAILING: PreTokenizer = {
  patterns: [
    raw`'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|` +
    raw` ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+`,
  ],
};
/** Words of SentencePiece: merges run over the whole text. */
const LINES: PreTokenizer = { patterns: [raw`[^\n]+|[\n]+`], isText: true };

/** Names of each pre-tokenizer, separated by spaces. */
const NAMES: readonly (readonly [names: string, preTokenizer: PreTokenizer])[] = [
  ["default", {
    patterns: [raw`[\p{P}\$\+<=>\^~\|]+`, GPT2, raw`\p{N}+`, "[0-9][0-9][0-9]"],
  }],
  ["llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", LLAMA3],
  ["dbrx smaug-bpe glm4 chatglm-bpe", { patterns: LLAMA3.patterns }],
  [
    "gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe " +
    "gigachat a.x-4.0 mellum modern-bert mpt olmo jais trillion granite-docling exaone4",
    GPT2_WORDS,
  ],
  ["starcoder refact command-r smollm codeshell exaone minerva-7b mellum2", STARCODER],
  [
    "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
    QWEN2,
  ],
  ["qwen35", {
    patterns: [
      raw`${ENDINGS}|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|${SPACES}`,
    ],
  }],
  ["minicpm5", { patterns: [DIGITS_OF_3, gpt4(raw`\p{N}+`)], ignoresMerges: true }],
  ["jais-2", {
    patterns: [
      raw`${ENDINGS}|[^\r\n\p{L}\p{N}]?\p{L}+|${DIGITS_OF_3}| ?[^\s\p{L}\p{N}]+[\r\n]*|` +
      raw`\s*[\r\n]+|${JAIS_SPACES}|\s{1,2}(?!\S)|\s{1}`,
    ],
  }],
  ["gpt-4o llama4 kanana2 talkie minimax-m2", GPT4O],
  ["tekken", {
    patterns: [gpt4o("", raw`\p{N}`)],
    ignoresMerges: true,
    addsBos: true,
  }],
  ["granite-embed-multi-97m", { patterns: GPT4O.patterns, ignoresMerges: true }],
  ["tiny_aya cohere2moe", {
    patterns: [raw`\d{1,3}(?=(?:\d{3})*\b)`, ...GPT4O.patterns],
  }],
  ["youtu", {
    patterns: [
      YOUTU_CJK,
      gpt4o(`${ENDINGS}?`, raw`\p{N}`),
    ],
    ignoresMerges: true,
  }],
  ["deepseek-v3 hunyuan-dense joyai-llm hy_v4", DEEPSEEK3],
  ["spark2_5", {
    patterns: [
      DIGITS_OF_3,
      HAN_KANA,
      deepseek("", raw`[\r\n]|\s+(?!\S)|\s+`),
      raw`\p{N}`,
    ],
  }],
  ["deepseek-llm", {
    patterns: [
      "[\r\n]",
      DEEPSEEK_LETTERS,
      raw`\s?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+`,
      raw`\s+$`,
      DEEPSEEK_CJK,
      raw`\p{N}+`,
    ],
  }],
  ["deepseek-coder", {
    patterns: ["[\r\n]", raw`\s?\p{L}+`, raw`\s?\p{P}+`, DEEPSEEK_CJK, raw`\p{N}`],
  }],
  ["afmoe", {
    patterns: [fromRight(raw`\p{N}`), AFMOE_SCRIPTS, deepseek(raw`[\r\n]*`, SPACES)],
  }],
  ["kimi-k2", {
    patterns: [
      raw`${HAN}+|[^\r\n\p{L}\p{N}]?${notHan(UPPER)}*${notHan(LOWER)}+${ENDINGS}?|` +
      raw`[^\r\n\p{L}\p{N}]?${notHan(UPPER)}+${notHan(LOWER)}*${ENDINGS}?|${DIGITS_OF_3}|` +
      raw` ?[^\s\p{L}\p{N}]+[\r\n]*|${SPACES}`,
    ],
  }],
  ["falcon", {
    patterns: [raw`[\p{P}\$\+<=>\^~\|\x60]+`, GPT2, "[0-9][0-9][0-9]"],
  }],
  ["bloom gpt3-finnish poro-chat", { patterns: [BLOOM] }],
  ["viking", { patterns: [BLOOM, raw`\p{N}`] }],
  ["chameleon", {
    patterns: [
      "<sentinel:[0-9]+>",
      "IMGIMG(?:A|B|C|D|E|F|G|H|I){1,4}Z",
      raw`[\t\n]|    |  `,
      raw`\p{N}`,
      raw`[\p{P}!-\/:-@\[-\x60{-~]`,
      GPT2,
    ],
    addsBos: true,
  }],
  ["superbpe", { patterns: [raw`\p{N}+`, fromRight(raw`\d`)] }],
  ["bailingmoe bailingmoe2 llada-moe", BAILING],
  ["seed-coder", {
    patterns: [
      raw`${ENDINGS}|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|${SPACES}`,
    ],
  }],
  ["ufakzeka", {
    patterns: [raw`[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|${SPACES}`],
  }],
  ["laguna", { patterns: [raw`[^\n]+|[\n]+`, ...QWEN2.patterns] }],
  ["exaone-moe", {
    patterns: [
      raw`${ENDINGS}|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}|` +
      raw` ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+`,
    ],
  }],
  ["gemma4 granite-embed-multi-311m sarvam-moe", LINES],
];

/** Pre-tokenizers by name. */
export const PRE_TOKENIZERS: ReadonlyMap<string, PreTokenizer> = new Map(
  NAMES.flatMap(([names, preTokenizer]) => names.split(" ").map((name) => [name, preTokenizer])),
);
