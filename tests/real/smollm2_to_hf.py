"""SmolLM2's GGUF → a Hugging Face folder (config.json, tokenizer.json, BF16 model.safetensors).
Run by get_smollm2.sh; shares no code with the engine, whose reading of both formats it is to prove."""
import json, os, struct, sys
import numpy as np
from gguf import GGUFReader, dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

src, out = sys.argv[1:3]
os.makedirs(out, exist_ok=True)
reader = GGUFReader(src)
field = lambda k: reader.fields[k].contents()
heads, kv_heads = field('llama.attention.head_count'), field('llama.attention.head_count_kv')
PARTS = {'attn_norm': 'input_layernorm', 'ffn_norm': 'post_attention_layernorm', 'attn_q': 'self_attn.q_proj', 'attn_k': 'self_attn.k_proj',
         'attn_v': 'self_attn.v_proj', 'attn_output': 'self_attn.o_proj', 'ffn_gate': 'mlp.gate_proj', 'ffn_up': 'mlp.up_proj', 'ffn_down': 'mlp.down_proj'}

def half_rotation(w, n):
    """GGUF keeps q and k rows in interleaved rotary order; Hugging Face rotates halves."""
    return w.reshape(n, w.shape[0] // n // 2, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)

def bf16(a):
    """Round to nearest even, as torch does."""
    u = np.ascontiguousarray(a, np.float32).view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)

header, blobs, at = {'__metadata__': {'format': 'pt'}}, [], 0
for t in reader.tensors:
    a = dequantize(t.data, t.tensor_type).astype(np.float32).reshape([int(x) for x in t.shape[::-1]])
    if t.name == 'token_embd.weight': name = 'model.embed_tokens.weight'
    elif t.name == 'output_norm.weight': name = 'model.norm.weight'
    else:
        _, block, part, _ = t.name.split('.')
        if part == 'attn_q': a = half_rotation(a, heads)
        if part == 'attn_k': a = half_rotation(a, kv_heads)
        name = f'model.layers.{block}.{PARTS[part]}.weight'
    b = bf16(a).tobytes()
    header[name] = {'dtype': 'BF16', 'shape': list(a.shape), 'data_offsets': [at, at + len(b)]}
    blobs.append(b); at += len(b)
h = json.dumps(header).encode(); h += b' ' * (-len(h) % 8)
with open(f'{out}/model.safetensors.part', 'wb') as f:
    f.write(struct.pack('<Q', len(h)) + h)
    for b in blobs: f.write(b)
os.replace(f'{out}/model.safetensors.part', f'{out}/model.safetensors')

dump = lambda name, value: json.dump(value, open(f'{out}/{name}', 'w'), indent=2)
dump('config.json', {'architectures': ['LlamaForCausalLM'], 'attention_bias': False, 'bos_token_id': 1, 'eos_token_id': 2, 'hidden_act': 'silu', 'hidden_size': 576,
     'intermediate_size': 1536, 'max_position_embeddings': 8192, 'mlp_bias': False, 'model_type': 'llama', 'num_attention_heads': heads, 'num_hidden_layers': 30,
     'num_key_value_heads': kv_heads, 'pad_token_id': 2, 'rms_norm_eps': 1e-5, 'rope_scaling': None, 'rope_theta': 100000, 'tie_word_embeddings': True,
     'torch_dtype': 'bfloat16', 'vocab_size': 49152})
dump('generation_config.json', {'bos_token_id': 1, 'eos_token_id': 2, 'pad_token_id': 2})
tokens, kinds = field('tokenizer.ggml.tokens'), field('tokenizer.ggml.token_type')
tk = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[tuple(m.split(' ')) for m in field('tokenizer.ggml.merges')]))
tk.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
tk.decoder = decoders.ByteLevel()
tk.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, kinds) if k == 3])
tk.save(f'{out}/tokenizer.json')
dump('tokenizer_config.json', {'add_prefix_space': False, 'bos_token': '<|im_start|>', 'eos_token': '<|im_end|>', 'unk_token': '<|endoftext|>', 'pad_token': '<|im_end|>',
     'clean_up_tokenization_spaces': False, 'model_max_length': 8192, 'tokenizer_class': 'GPT2Tokenizer', 'chat_template': field('tokenizer.chat_template')})
