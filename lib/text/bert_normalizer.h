#pragma once
// BERT's normalizer: what Hugging Face calls BertNormalizer, after the tokenization.py of BERT itself.

#include <memory>

#include "text/normalizer.h"

namespace llmtk::text {

struct BertNormalizerOptions {
  bool clean_text = true;            ///< takes control characters out; all white space becomes blanks
  bool handle_chinese_chars = true;  ///< blanks around every ideograph, so that each is a word
  bool strip_accents = true;         ///< decomposes, and takes nonspacing marks out
  bool lowercase = true;
};

std::unique_ptr<NormalizerStep> make_bert_normalizer(const BertNormalizerOptions& options);

}  // namespace llmtk::text
