llmtk_command(tokenize
  SOURCES tokenize.cpp tokenize_encode.cpp tokenize_count.cpp
  DEPENDS llmtk::text nlohmann_json::nlohmann_json)
