#pragma once
// Where `embed` puts its vectors: JSON lines, or one safetensors file.

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

namespace llmtk {

/// One text's vector and what is said beside it.
struct Embedded {
  uint64_t index = 0;  ///< of the text, counted from 0
  std::string text;
  int64_t tokens = 0;      ///< that the model saw, special ones included
  bool truncated = false;  ///< the text had more
  at::Tensor embedding;    ///< [H] float32 on the CPU
};

class EmbedOutput {
 public:
  virtual ~EmbedOutput() = default;
  virtual void write(const Embedded& embedded) = 0;
  /// A file appears under its name only now. Throws Error(file) on a full disk.
  virtual void finish() = 0;
};

/// path: empty for JSON lines on standard output; a .jsonl or a .safetensors file. Throws Error(usage) for another
/// name. The safetensors file holds one tensor `embeddings`, [texts, H]; until all are there they wait in an unnamed
/// file beside it, so memory stays small.
std::unique_ptr<EmbedOutput> open_output(const std::string& path);

}  // namespace llmtk
