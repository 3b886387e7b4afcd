llmtk_command(rlhf-reward TORCH UNITY
  SOURCES rlhf_reward.cpp reward_teaching.cpp reward_score.cpp scorer_folder.cpp adapters.cpp open_model.cpp inspect/table.cpp finetuning.cpp finetuning_setup.cpp finetuning_methods.cpp lora_method.cpp finetuning_config.cpp tokenizer_config.cpp evaluators.cpp training.cpp
  DEPENDS llmtk::rl llmtk::train llmtk::models llmtk::peft llmtk::quant llmtk::metrics llmtk::generate llmtk::data llmtk::text llmtk::config llmtk::core_torch)
