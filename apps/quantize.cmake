llmtk_command(quantize TORCH UNITY
  SOURCES quantize.cpp quantize_config.cpp quantize_run.cpp quantize_receipt.cpp quantize_gguf.cpp gguf_target.cpp calibration_text.cpp comparison.cpp open_model.cpp adapters.cpp
  DEPENDS llmtk::models llmtk::peft llmtk::quant llmtk::generate llmtk::train_core llmtk::data llmtk::text llmtk::config llmtk::core_torch)
