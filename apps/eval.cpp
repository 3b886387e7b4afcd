// llmtk eval: how good a model is, in numbers.

#include "eval/eval.h"

int main(int argc, char** argv) {
  CLI::App app("Perplexity, log-probabilities, multiple choice and classification", "llmtk eval");
  llmtk::EvalContext context;
  llmtk::add_common_options(app, context.common,
                            "  llmtk eval perplexity gpt2 book.txt --stride 512\n"
                            "  llmtk eval score gpt2 --prompt \"The capital of France is\" --completion \" Paris\"\n"
                            "  llmtk eval choice gpt2 questions.jsonl --output results.jsonl\n"
                            "  llmtk eval choice --help");
  app.require_subcommand(1);
  app.fallthrough();
  llmtk::add_perplexity_command(app, context);
  llmtk::add_score_command(app, context);
  llmtk::add_choice_command(app, context);
  llmtk::add_classify_command(app, context);
  return llmtk::run_app(app, context.common, argc, argv, [&] { return context.run(); });
}
