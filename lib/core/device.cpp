#include "core/device.h"

#include <ATen/Context.h>
#include <dlfcn.h>

#include <charconv>
#include <filesystem>

#include "core/error.h"
#include "core/log.h"

namespace llmtk {
namespace {

bool usable_gpu() {
#ifdef LLMTK_WITH_CUDA
  static const bool loaded = [] {
    if (!::dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL)) return false;  // no driver
    const auto problem = load_cuda();
    if (problem) log::warn("there is an NVIDIA driver, but LibTorch's CUDA half cannot be loaded: " + *problem);
    return !problem;
  }();
  return loaded && at::globalContext().hasCUDA() && at::getNumGPUs() > 0;
#else
  return false;
#endif
}

}  // namespace

std::optional<std::string> load_cuda() {
  Dl_info cpu_half{};  // the CUDA half lies beside it
  ::dladdr(reinterpret_cast<void*>(&at::globalContext), &cpu_half);
  const auto folder = std::filesystem::path(cpu_half.dli_fname ? cpu_half.dli_fname : "").parent_path();
  if (::dlopen((folder / "libtorch_cuda.so").c_str(), RTLD_LAZY | RTLD_GLOBAL)) return std::nullopt;
  const char* problem = ::dlerror();
  return problem ? problem : "unknown";
}

c10::Device resolve_device(std::string_view name) {
  if (name == "cpu") return c10::Device(c10::kCPU);
  const bool has_cuda = usable_gpu();
  if (name == "auto") return has_cuda ? c10::Device(c10::kCUDA, 0) : c10::Device(c10::kCPU);
  if (name == "cuda" || name.starts_with("cuda:")) {
    if (!has_cuda)
      throw Error(Exit::usage, {.what = "device '" + std::string(name) + "' is not there",
                                .hint = "no usable NVIDIA GPU was found; use device: cpu or auto"});
    int index = 0;
    if (name != "cuda") {
      const std::string_view digits = name.substr(5);
      const auto count = static_cast<int>(at::getNumGPUs());
      const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
      if (error != std::errc() || end != digits.data() + digits.size() || index < 0 || index >= count)
        throw Error(Exit::usage, {.what = "no such GPU",
                                  .got = "'" + std::string(name) + "'",
                                  .expected = "cuda:0 to cuda:" + std::to_string(count - 1)});
    }
    return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
  }
  throw Error(Exit::usage,
              {.what = "unknown device", .got = "'" + std::string(name) + "'", .expected = "auto, cpu, cuda or cuda:N"});
}

c10::ScalarType parse_dtype(std::string_view name) {
  if (name == "float32" || name == "fp32") return c10::kFloat;
  if (name == "bfloat16" || name == "bf16") return c10::kBFloat16;
  if (name == "float16" || name == "fp16") return c10::kHalf;
  throw Error(Exit::usage,
              {.what = "unknown dtype", .got = "'" + std::string(name) + "'", .expected = "float32, bfloat16 or float16"});
}

std::string dtype_name(c10::ScalarType dtype) {
  switch (dtype) {
    case c10::kFloat: return "float32";
    case c10::kBFloat16: return "bfloat16";
    case c10::kHalf: return "float16";
    case c10::kLong: return "int64";
    case c10::kInt: return "int32";
    default: return c10::toString(dtype);
  }
}

}  // namespace llmtk
