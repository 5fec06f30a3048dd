#!/usr/bin/env bash
# Puts llama.cpp v0.5.0 into FOLDER, from the npm packages of node-llama-cpp, in about half a minute
# on two cores.
#   FOLDER/llama.cpp/   its source, with convert_hf_to_gguf.py
#   FOLDER/bin/         its released libraries (kernels for each processor, chosen when it runs) and,
#                       compiled here against them, llama-bench, llama-quantize and llama-oracle
#                       (llama_oracle.cpp, for the tests)
# With "native", llama-bench is compiled whole for this processor in place of that (cmake; minutes):
# the released libraries lack llamafile's products, so that prefill in F16 takes twice as long.
# Needs Linux on x86-64 or ARM64, npm, git and g++. What is there already is left as it is.
# usage: get_llama_cpp.sh FOLDER [native]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: get_llama_cpp.sh FOLDER [native]}
native=${2:-}
version=3.22.1
case "$(uname -s) $(uname -m)" in
  "Linux x86_64") platform=linux-x64 ;;
  "Linux aarch64") platform=linux-arm64 ;;
  *)
    echo "Cannot get llama.cpp: expected Linux on x86-64 or ARM64, got $(uname -s) on $(uname -m)" >&2
    exit 1
    ;;
esac
for program in npm git g++ ${native:+cmake}; do
  command -v "$program" >/dev/null && continue
  echo "Cannot get llama.cpp: expected $program on the PATH, got none" >&2
  exit 1
done

mkdir -p "$out/bin"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
unpack() { (cd "$tmp" && tar xzf "$(npm pack --silent "$1@$version")"); }
if [ ! -s "$out/bin/libggml-base.so" ]; then
  unpack "@node-llama-cpp/$platform"
  cp "$tmp/package/bins/$platform"/*.so "$out/bin"
fi
if [ ! -d "$out/llama.cpp" ]; then
  unpack node-llama-cpp
  git -c advice.detachedHead=false clone --quiet "$tmp/package/llama/gitRelease.bundle" "$tmp/source"
  mv "$tmp/source" "$out/llama.cpp"
fi

# Compiles a program out of its sources.
build() {
  local program=$1 source="$out/llama.cpp"
  shift
  [ -x "$out/bin/$program" ] && [ "$out/bin/$program" -nt "$1" ] && return
  g++ -std=c++17 -O2 -DNDEBUG -I"$source/include" -I"$source/ggml/include" -I"$source/common" -I"$source/vendor" "$@" \
    "$out"/bin/libllama-common.so "$out"/bin/libllama.*so* "$out"/bin/libggml.*so* "$out"/bin/libggml-base.so \
    -Wl,-rpath,'$ORIGIN' -o "$tmp/$program"
  mv "$tmp/$program" "$out/bin/$program"
}
tools="$out/llama.cpp/tools"
build llama-oracle "$here/llama_oracle.cpp"
build llama-quantize "$tools"/quantize/{quantize,main}.cpp
if [ "$native" = native ]; then
  cmake -S "$out/llama.cpp" -B "$out/build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF \
    -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF
  cmake --build "$out/build" --target llama-bench --parallel 2
  cp "$out/build/bin/llama-bench" "$out/bin/llama-bench"
else
  build llama-bench "$tools"/llama-bench/{llama-bench,main}.cpp
fi

# A library that this system or processor cannot run fails here, not in a test.
if [ "$(head -c 6 /dev/zero | "$out/bin/llama-oracle" weight F16 1 1 2>/dev/null | wc -c)" != 8 ]; then
  echo "Cannot run llama.cpp: expected a product from $out/bin/llama-oracle, got none" >&2
  exit 1
fi
