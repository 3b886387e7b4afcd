llmtk_command(convert TORCH UNITY
  SOURCES convert.cpp open_model.cpp
  DEPENDS llmtk::models llmtk::text llmtk::core_torch)
