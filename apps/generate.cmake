llmtk_command(generate TORCH UNITY
  SOURCES generate.cpp open_model.cpp
  DEPENDS llmtk::generate llmtk::models llmtk::text llmtk::core_torch)
