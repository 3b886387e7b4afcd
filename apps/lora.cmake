llmtk_command(lora TORCH UNITY
  SOURCES lora.cpp lora_method.cpp lora_merge.cpp comparison.cpp adapters.cpp open_model.cpp finetuning.cpp finetuning_setup.cpp finetuning_config.cpp tokenizer_config.cpp evaluators.cpp training.cpp
  DEPENDS llmtk::train llmtk::models llmtk::peft llmtk::quant llmtk::metrics llmtk::generate llmtk::data llmtk::text llmtk::config llmtk::core_torch)
