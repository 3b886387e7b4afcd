llmtk_command(data TORCH UNITY
  SOURCES data.cpp data_show.cpp finetune_context.cpp inspect/table.cpp
  DEPENDS llmtk::models llmtk::data llmtk::text llmtk::train_core llmtk::config)
