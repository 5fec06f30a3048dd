// llama.cpp as an oracle: raw logits of a model; values, products and blocks of a weight.
// Compiled by get_llama_cpp.sh against the released libraries; `bench/compare/llama_oracle.ts` is
// its client. All numbers are little-endian.
//
//   llama-oracle logits MODEL CONTEXT THREADS
//     stdin    windows: i32 count, i32 first, i32 ids [count]
//     stdout   i32 V; for each window F32 logits [count − first, V] of its rows from `first` on
//   llama-oracle weight TYPE N K
//     stdin    the weight's stored rows, F32 x [K]
//     stdout   the weight as ggml decodes it: F32 [N, K]; its product with x: F32 [N],
//              zeros where its processor kernels cannot multiply the type
//   llama-oracle encode TYPE N K
//     stdin    F32 [N, K]
//     stdout   the rows in blocks of the type
#include "ggml-backend.h"
#include "llama.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <strings.h>
#include <vector>

static void fail(const char * what) {
    fprintf(stderr, "llama-oracle: %s\n", what);
    exit(1);
}

template <typename T> static void put(const T * data, size_t count) {
    if (fwrite(data, sizeof(T), count, stdout) != count) fail("cannot write the answer");
}

template <typename T> static bool take(T * data, size_t count) {
    return fread(data, sizeof(T), count, stdin) == count;
}

static void quiet(ggml_log_level level, const char * text, void *) {
    if (level >= GGML_LOG_LEVEL_ERROR && level != GGML_LOG_LEVEL_CONT) fputs(text, stderr);
}

static void logits(const char * path, int context, int threads) {
    ggml_backend_load_all();
    llama_model * model = llama_model_load_from_file(path, llama_model_default_params());
    if (!model) fail("cannot load the model");
    llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = context;
    params.n_threads = params.n_threads_batch = threads;
    // Only the rounding of activations is left between both engines: keys and values in F32,
    // softmax in one piece.
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.swa_full = true;
    llama_context * ctx = llama_init_from_model(model, params);
    if (!ctx) fail("cannot make a context");
    const int32_t V = llama_vocab_n_tokens(llama_model_get_vocab(model));
    put(&V, 1);
    fflush(stdout);
    for (int32_t head[2]; take(head, 2);) {
        const auto [count, first] = head;
        if (count < 1 || count > context || first < 0 || first >= count) fail("bad window");
        std::vector<int32_t> ids(count);
        if (!take(ids.data(), count)) fail("a window is cut");
        llama_memory_clear(llama_get_memory(ctx), true);
        llama_batch batch = llama_batch_init(count, 0, 1);
        batch.n_tokens = count;
        for (int i = 0; i < count; i++) {
            batch.token[i] = ids[i];
            batch.pos[i] = i;
            batch.n_seq_id[i] = 1;
            batch.seq_id[i][0] = 0;
            batch.logits[i] = i >= first;
        }
        if (llama_decode(ctx, batch) != 0) fail("cannot decode");
        for (int i = first; i < count; i++) put(llama_get_logits_ith(ctx, i), V);
        fflush(stdout);
        llama_batch_free(batch);
    }
    llama_free(ctx);
    llama_model_free(model);
}

static ggml_type type_named(const char * name) {
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        const char * known = ggml_type_name((ggml_type) i);
        if (known && !strcasecmp(known, name)) return (ggml_type) i;
    }
    fail("unknown type");
    return GGML_TYPE_COUNT;
}

static void weight(const char * name, int64_t N, int64_t K) {
    const ggml_type type = type_named(name);
    const ggml_to_float_t decode = ggml_get_type_traits(type)->to_float;
    if (!decode) fail("ggml does not decode this type");
    ggml_backend_load_all();
    ggml_backend_t backend = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
    ggml_context * ctx = ggml_init({ /*mem_size*/ 1 << 20, nullptr, /*no_alloc*/ true });
    ggml_tensor * w = ggml_new_tensor_2d(ctx, type, K, N);
    ggml_tensor * x = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, K);
    ggml_tensor * y = ggml_mul_mat(ctx, w, x);
    ggml_cgraph * graph = ggml_new_graph(ctx);
    ggml_build_forward_expand(graph, y);
    if (!ggml_backend_alloc_ctx_tensors(ctx, backend)) fail("cannot allocate");

    std::vector<uint8_t> blocks(ggml_nbytes(w));
    std::vector<float> row(K), numbers(N * K), product(N);
    if (!take(blocks.data(), blocks.size()) || !take(row.data(), K)) fail("the weight is cut");
    decode(blocks.data(), numbers.data(), N * K);
    ggml_backend_tensor_set(w, blocks.data(), 0, blocks.size());
    ggml_backend_tensor_set(x, row.data(), 0, 4 * K);
    if (ggml_backend_supports_op(backend, y)) {
        if (ggml_backend_graph_compute(backend, graph) != GGML_STATUS_SUCCESS) fail("cannot multiply");
        ggml_backend_tensor_get(y, product.data(), 0, 4 * N);
    }
    put(numbers.data(), N * K);
    put(product.data(), N);
}

static void encode(const char * name, int64_t N, int64_t K) {
    const ggml_type type = type_named(name);
    std::vector<float> numbers(N * K);
    if (!take(numbers.data(), N * K)) fail("the weight is cut");
    std::vector<uint8_t> blocks(N * ggml_row_size(type, K));
    ggml_quantize_chunk(type, numbers.data(), blocks.data(), 0, N, K, nullptr);
    put(blocks.data(), blocks.size());
}

int main(int argc, char ** argv) {
    llama_log_set(quiet, nullptr);
    if (argc == 5 && !strcmp(argv[1], "logits")) logits(argv[2], atoi(argv[3]), atoi(argv[4]));
    else if (argc == 5 && !strcmp(argv[1], "weight")) weight(argv[2], atoll(argv[3]), atoll(argv[4]));
    else if (argc == 5 && !strcmp(argv[1], "encode")) encode(argv[2], atoll(argv[3]), atoll(argv[4]));
    else fail("usage: llama-oracle logits MODEL CONTEXT THREADS | weight TYPE N K | encode TYPE N K");
}
