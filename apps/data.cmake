llmtk_command(data TORCH UNITY
  SOURCES data.cpp data_show.cpp dpo_teaching.cpp reward_teaching.cpp finetuning_setup.cpp finetuning_methods.cpp lora_method.cpp finetuning_config.cpp tokenizer_config.cpp training.cpp inspect/table.cpp
  DEPENDS llmtk::rl llmtk::train llmtk::models llmtk::peft llmtk::quant llmtk::generate llmtk::data llmtk::text llmtk::config llmtk::core_torch)
