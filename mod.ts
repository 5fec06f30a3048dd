/**
 * wgslm: a GPT engine in TypeScript for checkpoints of Hugging Face, PyTorch and nanoGPT.
 *
 * ```ts
 * import { loadModel } from "@wgslm/wgslm";
 *
 * // or "hf:openai-community/gpt2", a .safetensors file, a .gguf file, a .pt file
 * await using model = await loadModel("bench/demo");
 * const options = { maxNewTokens: 64, topK: 40, seed: 1337 };
 * for await (const { text } of model.generate("ROMEO:", options)) {
 *   Deno.stdout.write(new TextEncoder().encode(text));
 * }
 * const logits = await model.logits(model.tokenizer.encode("ROMEO:")); // [T, vocabSize]
 * ```
 *
 * @module
 */
export {
  type Activation,
  type Activations,
  type AttentionOptions,
  type Backend,
  type BackendName,
  type BackendOptions,
  type ComputeHost,
  type Device,
  DeviceError,
  type Dtype,
  type EmbedOptions,
  type FillRows,
  type HostArray,
  type KernelText,
  type KernelTime,
  type KvCache,
  type KvDtype,
  type MatmulOptions,
  measureWebGpu,
  Memory,
  type MemoryClass,
  type MemoryFigure,
  type Norm,
  type NormOptions,
  openBackend,
  type Plan,
  probeWebGpu,
  type Recorder,
  type Sampling,
  type Segment,
  type Step,
  type StoredOrder,
  type Tensor,
  type TensorSizes,
  type TensorSpec,
  type TileStore,
  type WebGpuAdapter,
  type WebGpuLimits,
  type Weight,
  type WeightDtype,
  type WriteKvOptions,
} from "./kernels/mod.ts";
export type {
  Architecture,
  Biases,
  Family,
  LayerShape,
  NormKind,
  NormPlaces,
  ParallelNorms,
  Rope,
  RopeScaling,
} from "./engine/architecture/mod.ts";
export {
  benchmark,
  type BenchmarkOptions,
  type BenchmarkProgress,
} from "./engine/measure/benchmark.ts";
export {
  compareReports,
  type Comparison,
  type Difference,
  type MetricComparison,
  type Side,
  type Verdict,
} from "./engine/measure/compare.ts";
export {
  type Checkpoint,
  type CheckpointFormat,
  openCheckpoint,
  type TensorInfo,
} from "./engine/checkpoint/checkpoint.ts";
export type { Metadata, MetadataValue } from "./engine/checkpoint/gguf/metadata.ts";
export type { HubOptions, HubProgress } from "./engine/hub/options.ts";
export { type Config, type GenerationConfig, loadConfig } from "./engine/config.ts";
export { encodeChat } from "./engine/conversation.ts";
export type { PassTimes } from "./engine/diagnose.ts";
export { CheckpointError } from "./engine/errors.ts";
export type { FinishReason, GeneratedToken, GenerateOptions } from "./engine/generate.ts";
export type { MemoryEstimate } from "./engine/memory.ts";
export {
  type CheckpointDescription,
  describeCheckpoint,
  loadModel,
  type LoadOptions,
  type LoadProgress,
  type PickedFolder,
  type RandomModel,
} from "./engine/load.ts";
export { Model } from "./engine/model.ts";
export {
  type CachedModel,
  cachedModels,
  type CacheSpace,
  cacheSpace,
  removeCachedModel,
} from "./engine/page/cached.ts";
export {
  type Perplexity,
  perplexity,
  type PerplexityOptions,
} from "./engine/measure/perplexity.ts";
export {
  type Reports,
  type SweepRecord,
  toCsv,
  toJson,
  toJsonl,
  toMarkdown,
} from "./engine/measure/formats.ts";
export type { FailureReport, HistoryRecord, KernelBench } from "./engine/measure/history.ts";
export { type HtmlOptions, toHtml } from "./engine/measure/html/page.ts";
export { profile, type ProfileOptions } from "./engine/measure/profile.ts";
export {
  type BenchmarkReport,
  type CheckReport,
  doubts,
  type IterationReport,
  type KernelReport,
  type LimitReport,
  type MachineReport,
  type MemoryReport,
  type PassReport,
  type ProfileReport,
  type RateSummary,
  VERSION,
  warnings,
} from "./engine/measure/report.ts";
export type { AdapterOptions } from "./engine/weights/lora.ts";
export { nextTokenProbabilities, type SamplingOptions } from "./engine/sampler.ts";
export { loadTokenizer } from "./engine/tokenizer/load.ts";
export type {
  ChatMessage,
  ChatOptions,
  ContentPart,
  DecodeOptions,
  EncodeOptions,
  TextStream,
  Tokenizer,
} from "./engine/tokenizer/tokenizer.ts";
