llmtk_command(convert TORCH UNITY
  SOURCES convert.cpp gguf_target.cpp
  DEPENDS llmtk::models llmtk::text llmtk::core_torch)
