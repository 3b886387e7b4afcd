llmtk_command(finetune TORCH UNITY
  SOURCES finetune.cpp finetuning.cpp finetuning_setup.cpp finetuning_methods.cpp finetuning_config.cpp tokenizer_config.cpp evaluators.cpp training.cpp
  DEPENDS llmtk::train llmtk::models llmtk::peft llmtk::quant llmtk::metrics llmtk::generate llmtk::data llmtk::text llmtk::config llmtk::core_torch)
