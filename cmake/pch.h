// The headers that every source file on LibTorch shares, compiled once. GCC instantiates the templates that they leave pending
// at the end of each such file, so none is here that only a few need: custom_function.h and torch/utils.h would cost 1.5 s each time.
#pragma once
#include <torch/nn/module.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>
