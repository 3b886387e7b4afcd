llmtk_command(pretrain TORCH UNITY
  SOURCES pretrain.cpp pretrain_config.cpp tokenizer_config.cpp training.cpp
  DEPENDS llmtk::train llmtk::models llmtk::generate llmtk::data llmtk::text llmtk::config llmtk::core_torch)
