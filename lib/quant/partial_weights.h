#pragma once
// A file of weights that is written piece by piece over runs that may be killed: what is whole stays, checked by its
// checksum.

#include <map>
#include <string>
#include <vector>

#include "io/tensors.h"

namespace llmtk::quant {

/// Tensors that are written together: those of one matrix, or one that stays as it is.
struct WeightPiece {
  std::string name;
  std::vector<io::TensorInfo> tensors;
};

/// FOLDER/model.safetensors, whose pieces come in any order, beside FOLDER/progress.jsonl, which says what of it is
/// whole. finish() takes the latter away.
class PartialWeights {
 public:
  /// Goes on with what a run of the same pieces and `settings` left in the folder; anything else there is started anew.
  /// Throws Error(file).
  PartialWeights(fs::path folder, std::vector<WeightPiece> pieces, const io::Json& settings);

  const std::vector<WeightPiece>& pieces() const { return pieces_; }
  size_t done() const { return notes_.size(); }
  bool has(const std::string& piece) const { return notes_.contains(piece); }
  /// note: what shall be known of the piece in a later run.
  void write(const std::string& piece, const io::NamedTensors& tensors, const io::Json& note = nullptr);
  /// Of a piece that is there.
  const io::Json& note(const std::string& piece) const { return notes_.at(piece); }
  /// Copies of the tensors of a piece that is there, by their names.
  std::map<std::string, at::Tensor> read(const std::string& piece) const;
  /// Every piece must be there. Makes the file durable.
  void finish();

 private:
  void resume(const io::Json& first_line);
  void begin(const io::Json& first_line);
  const WeightPiece& piece(const std::string& name) const { return pieces_[index_.at(name)]; }

  fs::path folder_;
  std::vector<WeightPiece> pieces_;
  std::map<std::string, size_t> index_;
  std::string header_;
  std::map<std::string, io::Json> notes_;  // of the pieces that are there
};

}  // namespace llmtk::quant
