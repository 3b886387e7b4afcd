llmtk_command(rlhf-ppo TORCH UNITY
  SOURCES rlhf_ppo.cpp ppo_run.cpp policy_run.cpp policy_rewards.cpp scorer_folder.cpp adapters.cpp open_model.cpp training.cpp
  DEPENDS llmtk::rl llmtk::train llmtk::models llmtk::peft llmtk::quant llmtk::generate llmtk::data llmtk::text llmtk::config llmtk::core_torch)
