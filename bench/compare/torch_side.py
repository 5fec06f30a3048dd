"""PyTorch engine of bench/compare.ts: one JSON request per line in, one answer per line out.

The process stays loaded between requests and sleeps while other engines are measured. Run with
`write-gpt2 FOLDER TOKENIZER_FOLDER`, it writes the model of GPT-2's shape that all engines read.

- `{"folder", "dtype", "depth", "tokens"}`: transformers' greedy `generate` on a Hugging Face
  folder; answers tokens per second of a decode after `depth` tokens, and of a prefill of as many.
- `{"demo", "cache", "tokens"}`: the specification's benchmark on the bundled demo: text after
  "ROMEO:", temperature 0.9, top-k 40, `torch.multinomial`; answers generated tokens per second of
  total time, prompt included. The model is a plain GPT.

Needs torch, transformers and safetensors from PyPI.
"""

import json
import math
import pathlib
import shutil
import sys
import time

import torch
import transformers
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def load_transformers(folder, dtype):
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype]).eval()


class Clock:
    """Streamer for `generate`: records the times of the prompt and of each token."""

    def __init__(self):
        self.times = []

    def put(self, _ids):
        self.times.append(time.perf_counter())

    def end(self):
        pass


def measure_transformers(model, depth, tokens):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, model.config.vocab_size, (1, depth), generator=generator)
    clock = Clock()
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens + 1,
        min_new_tokens=tokens + 1,
        do_sample=False,
        streamer=clock,
    )
    prompt, first, *_, last = clock.times
    return {"decode": tokens / (last - first), "prefill": depth / (first - prompt)}


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.ModuleDict({"c_attn": nn.Linear(width, 3 * width), "c_proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x, past):
        """`past`: K and V [1, H, S, D] of earlier tokens; returned extended by `x`."""
        B, T, C = x.shape
        q, k, v = (
            p.view(B, T, self.heads, -1).transpose(1, 2)
            for p in self.attn["c_attn"](self.ln_1(x)).chunk(3, -1)
        )
        if past:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if T > 1:
            later = torch.ones(T, k.shape[2], dtype=torch.bool).triu(k.shape[2] - T + 1)
            scores = scores.masked_fill(later, -math.inf)
        y = (F.softmax(scores, -1) @ v).transpose(1, 2).reshape(B, T, C)
        x = x + self.attn["c_proj"](y)
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x)))), (k, v)


class Demo(nn.Module):
    """LabCore's GPT: learned positions, biases, tied head, explicit attention; F32."""

    def __init__(self, folder):
        super().__init__()
        folder = pathlib.Path(folder)
        config = json.loads((folder / "config.json").read_text())
        self.vocab = json.loads((folder / "tokenizer.json").read_text())["vocab"]
        self.room, width = config["block_size"], config["n_embd"]
        self.wte, self.wpe = nn.Embedding(len(self.vocab), width), nn.Embedding(self.room, width)
        self.h = nn.ModuleList(Block(width, config["n_head"]) for _ in range(config["n_layer"]))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, len(self.vocab), bias=False)
        weights = load_file(folder / "model.safetensors")
        self.load_state_dict({"wte.weight": weights["lm_head.weight"], **weights})
        self.eval()

    def forward(self, ids, cache):
        """Logits [1, V] of the last of `ids` [1, T]; extends `cache`, K and V by layer."""
        begin = cache[0][0].shape[2] if cache else 0
        x = self.wte(ids) + self.wpe(torch.arange(begin, begin + ids.shape[1]))
        for i, block in enumerate(self.h):
            x, kept = block(x, cache.get(i) if cache else None)
            if cache is not None:
                cache[i] = kept
        return self.lm_head(self.ln_f(x)[:, -1])

    def generate(self, prompt, tokens, use_cache, choose):
        ids = torch.tensor([[self.vocab.index(c) for c in prompt]])
        if ids.shape[1] + tokens > self.room:
            raise ValueError(f"expected at most {self.room} tokens in all")
        cache = {} if use_cache else None
        given = ids
        for _ in range(tokens):
            new = choose(self(given, cache))
            ids = torch.cat([ids, new], 1)
            given = new if use_cache else ids
        return ids


def sample(logits):
    logits = logits / 0.9
    least = torch.topk(logits, min(40, logits.shape[-1])).values[:, -1:]
    logits = logits.masked_fill(logits < least, -float("inf"))
    return torch.multinomial(F.softmax(logits, -1), 1)


def measure_demo(demo, use_cache, tokens):
    start = time.perf_counter()
    demo.generate("ROMEO:", tokens, use_cache, sample)
    return {"rate": tokens / (time.perf_counter() - start)}


def write_gpt2(folder, tokenizer):
    """Writes GPT-2's smallest shape with random F32 weights.

    llama.cpp's converter requires a tokenizer that it knows: any with no larger vocabulary.
    """
    torch.manual_seed(1)
    # llama.cpp requires n_ctx, a key of the hub's config that transformers has dropped.
    config = transformers.GPT2Config(n_ctx=1024)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    for path in pathlib.Path(tokenizer).glob("tokenizer*.json"):
        shutil.copy(path, folder)


@torch.inference_mode()
def serve(threads):
    torch.set_num_threads(threads)
    torch_version = torch.__version__.split("+")[0]
    kept = {}

    def opened(key, open_model, warm_up):
        if key not in kept:
            kept[key] = open_model()
            warm_up(kept[key])
        return kept[key]

    for line in sys.stdin:
        ask = json.loads(line)
        if "demo" in ask:
            engine = f"PyTorch {torch_version}"
            demo = opened(ask["demo"], lambda: Demo(ask["demo"]), lambda m: measure_demo(m, True, 64))
            answer = measure_demo(demo, ask["cache"], ask["tokens"])
        else:
            engine = f"transformers {transformers.__version__}, PyTorch {torch_version}"
            model = opened(
                (ask["folder"], ask["dtype"]),
                lambda: load_transformers(ask["folder"], ask["dtype"]),
                lambda m: measure_transformers(m, ask["depth"], 8),
            )
            answer = measure_transformers(model, ask["depth"], ask["tokens"])
        print(json.dumps({"engine": engine, **answer}), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["write-gpt2"]:
        write_gpt2(*sys.argv[2:])
    elif sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]))
    else:
        sys.exit("usage: torch_side.py write-gpt2 FOLDER TOKENIZER_FOLDER | torch_side.py serve THREADS")
