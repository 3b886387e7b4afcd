llmtk_command(embed TORCH UNITY
  SOURCES embed.cpp embed_input.cpp embed_output.cpp open_encoder.cpp adapters.cpp open_model.cpp tokenize_input.cpp
  DEPENDS llmtk::models llmtk::peft llmtk::quant llmtk::text llmtk::data llmtk::core_torch)
