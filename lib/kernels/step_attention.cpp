#include "kernels/step_attention.h"

#include <ATen/ATen.h>

#include <limits>

#include "core/error.h"
#include "kernels/elementwise.h"
#include "kernels/step_attention_impl.h"
#include "kernels/tensors.h"

namespace llmtk::kernels {

QuantizedTokens quantize_tokens(const at::Tensor& x) {
  const at::Tensor wide = x.to(at::kFloat), largest = wide.abs().amax(-1);  // [B, K, T]
  const at::Tensor inverse = at::where(largest > 0, 127.0f / largest, at::zeros({}, largest.options()));
  return {at::round(wide * inverse.unsqueeze(-1)).to(at::kChar), largest / 127.0f};
}

at::Tensor dequantize_tokens(const at::Tensor& codes, const at::Tensor& scales, c10::ScalarType dtype) {
  return (codes.to(at::kFloat) * scales.unsqueeze(-1)).to(dtype);
}

namespace {

/// x [B, K, T, D] behind what is held, row by row.
void append(const at::Tensor& x, at::Tensor block, at::Tensor scales, const at::Tensor& lengths) {
  const at::Tensor on_cpu = lengths.cpu();
  const at::Tensor codes = scales.defined() ? quantize_tokens(x).codes : x;
  for (int64_t b = 0; b < x.size(0); ++b) {
    const int64_t length = on_cpu.const_data_ptr<int64_t>()[b];
    block[b].narrow(1, length, x.size(2)).copy_(codes[b]);
    if (scales.defined()) scales[b].narrow(1, length, x.size(2)).copy_(quantize_tokens(x[b]).scales);
  }
}

/// What a block holds, wide and for every query head: [H, S, D].
at::Tensor held(const at::Tensor& block, const at::Tensor& scales, int64_t b, int64_t tokens, int64_t heads) {
  at::Tensor x = block[b].narrow(1, 0, tokens).to(at::kFloat);
  if (scales.defined()) x = x * scales[b].narrow(1, 0, tokens).unsqueeze(-1);
  return x.repeat_interleave(heads / x.size(0), 0);
}

}  // namespace

namespace reference {

at::Tensor step_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const KeyValueBlocks& blocks,
                          const at::Tensor& lengths, const StepAttentionOptions& options) {
  append(k, blocks.keys, blocks.key_scales, lengths);
  append(v, blocks.values, blocks.value_scales, lengths);
  const at::Tensor on_cpu = lengths.cpu();
  const int64_t B = q.size(0), H = q.size(1), T = q.size(2);
  std::vector<at::Tensor> rows;
  for (int64_t b = 0; b < B; ++b) {
    const int64_t total = on_cpu.const_data_ptr<int64_t>()[b] + T;
    at::Tensor scores =
        at::matmul(q[b].to(at::kFloat), held(blocks.keys, blocks.key_scales, b, total, H).transpose(1, 2));
    scores = scores * options.scale;  // [H, T, S]
    if (options.softcap > 0) scores = softcap(scores, options.softcap);
    const at::Tensor place = at::arange(total, q.options().dtype(at::kLong));
    const at::Tensor query = place.narrow(0, total - T, T).unsqueeze(1);  // [T, 1]
    at::Tensor unseen = place > query;
    if (options.window > 0) unseen = unseen.logical_or(place <= query - options.window);
    const at::Tensor weights = at::softmax(scores.masked_fill(unseen, -std::numeric_limits<double>::infinity()), -1);
    rows.push_back(at::matmul(weights, held(blocks.values, blocks.value_scales, b, total, H)).transpose(0, 1));
  }
  return at::stack(rows).flatten(2).to(q.scalar_type());  // [B, T, H * D]
}

}  // namespace reference

namespace {

Heads heads_of(const at::Tensor& x) { return {data(x), x.stride(0), x.stride(1), x.stride(2)}; }

at::Tensor with_rows(const at::Tensor& x) { return x.stride(-1) == 1 ? x : x.contiguous(); }

/// Query heads per piece of work: those of one key-value head together, so that each key is read once; fewer where the
/// threads would have too little to share.
int64_t group_of(int64_t B, int64_t H, int64_t K) {
  const int64_t enough = 4 * at::get_num_threads();
  int64_t group = H / K;
  for (int64_t g = group; g > 1 && B * H / group < enough; --g)
    if (H / K % (g - 1) == 0) group = g - 1;
  return group;
}

}  // namespace

at::Tensor step_attention(const at::Tensor& q_any, const at::Tensor& k_any, const at::Tensor& v_any,
                          const KeyValueBlocks& blocks, const at::Tensor& lengths,
                          const StepAttentionOptions& options) {
  LLMTK_CHECK(q_any.dim() == 4 && k_any.dim() == 4 && k_any.sizes() == v_any.sizes(), "q ", q_any.sizes(), ", k ",
              k_any.sizes(), ", v ", v_any.sizes());
  const int64_t B = q_any.size(0), H = q_any.size(1), T = q_any.size(2), D = q_any.size(3), K = k_any.size(1);
  LLMTK_CHECK(H % K == 0 && lengths.numel() == B && blocks.keys.size(0) == B && blocks.keys.size(3) == D, "q ",
              q_any.sizes(), ", keys ", blocks.keys.sizes(), ", lengths ", lengths.sizes());
  if (!all_fused(q_any, k_any, v_any) || (q_any.is_cuda() && D > StepAttention::kMostCudaDim) ||
      (!blocks.quantized() && blocks.keys.scalar_type() != q_any.scalar_type()))
    return reference::step_attention(q_any, k_any, v_any, blocks, lengths, options);
  const at::Tensor q = with_rows(q_any), k = with_rows(k_any), v = with_rows(v_any);
  const at::Tensor y = at::empty({B, T, H * D}, q.options());
  StepAttention a{.type = type_of(q),
                  .quantized = blocks.quantized(),
                  .B = B,
                  .H = H,
                  .K = K,
                  .T = T,
                  .D = D,
                  .room = blocks.keys.size(2),
                  .group = group_of(B, H, K),
                  .q = heads_of(q),
                  .k = heads_of(k),
                  .v = heads_of(v)};
  a.keys = mutable_data(blocks.keys);
  a.values = mutable_data(blocks.values);
  a.key_scales = static_cast<float*>(mutable_data(blocks.key_scales));
  a.value_scales = static_cast<float*>(mutable_data(blocks.value_scales));
  a.lengths = lengths.const_data_ptr<int64_t>();
  a.scale = static_cast<float>(options.scale);
  a.softcap = static_cast<float>(options.softcap);
  a.window = options.window;
  a.y = mutable_data(y);
#ifdef LLMTK_WITH_CUDA
  if (q.is_cuda()) {
    const OnDevice device(q);
    cuda::step_attention(a, device.stream());
    return y;
  }
#endif
  parallel_step(B * K, T * D, [a](int64_t begin, int64_t end) { cpu::append_step(a, begin, end); }, {k, v});
  parallel_step(B * H / a.group, 1 << 15, [a](int64_t begin, int64_t end) { cpu::step_attention(a, begin, end); },
                {q, y, lengths, blocks.keys, blocks.values, blocks.key_scales, blocks.value_scales});
  return y;
}

}  // namespace llmtk::kernels
