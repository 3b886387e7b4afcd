#pragma once
// Devices and dtypes as the user names them.

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <optional>
#include <string>
#include <string_view>

namespace llmtk {

/// Loads LibTorch's CUDA half, which then registers its operations; returns what went wrong, nothing when it is there.
/// It takes longer than all else that a program does at its start, so programs aren't linked against it: resolve_device
/// calls this where a driver is. Must come before anything asks ATen for CUDA: ATen remembers the first answer.
std::optional<std::string> load_cuda();

/// "auto" (CUDA where a usable GPU is, else CPU), "cpu", "cuda", "cuda:1". Throws Error(usage) for another word, or for a
/// GPU that is not there.
c10::Device resolve_device(std::string_view name);

/// "float32", "bfloat16", "float16" (also fp32, bf16, fp16). Throws Error(usage).
c10::ScalarType parse_dtype(std::string_view name);
/// As Hugging Face spells it: "float32".
std::string dtype_name(c10::ScalarType dtype);

}  // namespace llmtk
