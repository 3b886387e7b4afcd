// llmtk tokenize: trains tokenizers, encodes and decodes, renders chat templates, turns corpora into token shards.

#include "tokenize.h"

int main(int argc, char** argv) {
  CLI::App app("Text to token ids and back; tokenizers trained from text", "llmtk tokenize");
  llmtk::TokenizeContext context;
  llmtk::add_common_options(app, context.common,
                            "  llmtk tokenize encode -t my-model \"Hello, 世界\"\n"
                            "  llmtk tokenize count -t my-model corpus/*.txt\n"
                            "  llmtk tokenize render -t my-model chats.jsonl\n"
                            "  llmtk tokenize train corpus/ --vocab-size 16000 -o my-tokenizer\n"
                            "  llmtk tokenize shard corpus/ -t my-tokenizer -o shards\n"
                            "  llmtk tokenize encode --help");
  app.require_subcommand(1);
  app.fallthrough();
  llmtk::add_train_command(app, context);
  llmtk::add_encode_command(app, context);
  llmtk::add_decode_command(app, context);
  llmtk::add_render_command(app, context);
  llmtk::add_count_command(app, context);
  llmtk::add_shard_command(app, context);
  return llmtk::run_app(app, context.common, argc, argv, [&] { return context.run(); });
}
