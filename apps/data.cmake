llmtk_command(data TORCH UNITY
  SOURCES data.cpp data_show.cpp finetune_context.cpp finetuning_config.cpp training.cpp inspect/table.cpp
  DEPENDS llmtk::train llmtk::models llmtk::generate llmtk::data llmtk::text llmtk::config llmtk::core_torch)
