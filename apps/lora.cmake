llmtk_command(lora TORCH UNITY
  SOURCES lora.cpp lora_train.cpp lora_merge.cpp lora_receipt.cpp open_model.cpp finetuning.cpp finetune_context.cpp finetuning_config.cpp evaluators.cpp training.cpp
  DEPENDS llmtk::train llmtk::models llmtk::peft llmtk::quant llmtk::metrics llmtk::generate llmtk::data llmtk::text llmtk::config llmtk::core_torch)
