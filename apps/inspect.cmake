llmtk_command(inspect TORCH UNITY
  SOURCES
    inspect.cpp generate_prompts.cpp adapters.cpp open_model.cpp
    inspect/attention.cpp inspect/attention_svg.cpp inspect/checkpoint.cpp inspect/hidden.cpp inspect/input.cpp
    inspect/labels.cpp inspect/layers.cpp inspect/logits.cpp inspect/params.cpp inspect/passes.cpp inspect/table.cpp
  DEPENDS llmtk::generate llmtk::models llmtk::peft llmtk::quant llmtk::text llmtk::train_core llmtk::core_torch)
