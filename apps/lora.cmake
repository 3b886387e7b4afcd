llmtk_command(lora TORCH UNITY
  SOURCES lora.cpp lora_merge.cpp lora_receipt.cpp open_model.cpp
  DEPENDS llmtk::generate llmtk::models llmtk::peft llmtk::text llmtk::core_torch)
