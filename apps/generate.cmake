llmtk_command(generate TORCH UNITY
  SOURCES generate.cpp generate_chat.cpp generate_chat_line.cpp generate_fill_mask.cpp generate_flags.cpp generate_prompts.cpp speculation_flags.cpp open_encoder.cpp adapters.cpp open_model.cpp inspect/table.cpp
  DEPENDS llmtk::generate llmtk::models llmtk::peft llmtk::quant llmtk::text llmtk::core_torch)
