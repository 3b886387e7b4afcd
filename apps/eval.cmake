llmtk_command(eval TORCH UNITY
  SOURCES
    eval.cpp open_encoder.cpp adapters.cpp open_model.cpp
    eval/choice.cpp eval/classify.cpp eval/classify_input.cpp eval/options.cpp
    eval/perplexity.cpp eval/results.cpp eval/rows.cpp eval/score.cpp eval/scorer.cpp
    inspect/table.cpp
  DEPENDS llmtk::generate llmtk::models llmtk::peft llmtk::quant llmtk::text llmtk::metrics llmtk::train_core llmtk::core_torch)
