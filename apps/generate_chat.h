#pragma once
// llmtk generate --chat: a conversation, in a terminal or line by line.

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "generate/config.h"
#include "generate_flags.h"
#include "open_model.h"
#include "speculation_flags.h"

namespace llmtk {

struct ChatOptions {
  bool chat = false;
  std::string system;         ///< the first message, where it is given
  std::string template_file;  ///< empty: the model's own template
  std::vector<std::string> settings;
  std::vector<std::string> turns;  ///< what is said first; without any, standard input speaks
  bool json = false;
  SpeculationFlags speculation;
  nn::CacheType cache_type = nn::CacheType::plain;
};

/// Adds --chat, --system, --template and --set.
void add_chat_options(CLI::App& app, ChatOptions& options);

/// Throws Error(usage) for a flag of `generate` that was given and has no effect with --chat, and for one of chat's
/// that was given without it.
void check_chat_options(const CLI::App& app, const ChatOptions& options);

/// Answers turn by turn until the input ends or says /exit. `config` without max_new_tokens and max_length: answers are
/// as long as the model can see. The text and the cache of one turn are kept for the next. Throws Error(data) for a
/// turn that cannot be answered; in a terminal that is said, and the conversation goes on without it.
int run_chat(const ChatOptions& options, const ModelOptions& model, const GenerationFlags& flags,
             generate::GenerationConfig config);

}  // namespace llmtk
