llmtk_command(tokenize UNITY
  SOURCES tokenize.cpp tokenize_encode.cpp tokenize_render.cpp tokenize_count.cpp tokenize_train.cpp tokenize_shard.cpp tokenize_input.cpp
  DEPENDS llmtk::data llmtk::text nlohmann_json::nlohmann_json)
