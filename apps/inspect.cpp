// llmtk inspect: what a model or a checkpoint is made of, and what goes on inside.

#include "inspect/inspect.h"

int main(int argc, char** argv) {
  CLI::App app("Shows parameters, logits, hidden states, attention maps, and what a checkpoint holds", "llmtk inspect");
  llmtk::InspectContext context;
  llmtk::add_common_options(app, context.common,
                            "  llmtk inspect params gpt2\n"
                            "  llmtk inspect checkpoint runs/poems\n"
                            "  llmtk inspect logits gpt2 --prompt \"The capital of France is\"\n"
                            "  llmtk inspect attention runs/poems --prompt 床前明月光 --layer 0 --output map.svg\n"
                            "  llmtk inspect attention --help");
  app.require_subcommand(1);
  app.fallthrough();
  llmtk::add_params_command(app, context);
  llmtk::add_checkpoint_command(app, context);
  llmtk::add_logits_command(app, context);
  llmtk::add_hidden_command(app, context);
  llmtk::add_attention_command(app, context);
  return llmtk::run_app(app, context.common, argc, argv, [&] { return context.run(); });
}
