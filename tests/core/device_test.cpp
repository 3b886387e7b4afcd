#include "core/device.h"

#include <ATen/Context.h>
#include <dlfcn.h>

#include "core/error.h"
#include "core/runtime.h"
#include "test.h"

using namespace llmtk;

#ifdef LLMTK_WITH_CUDA
TEST_CASE("LibTorch's CUDA half is loaded when it is asked for, and comes in time") {
  setup_runtime(1);
  CHECK(resolve_device("cpu").is_cpu());
  CHECK_FALSE(::dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD));
  REQUIRE(load_cuda().value_or("") == "");
  CHECK(::dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD));
  // What ATen asks now is that half, not the stand-in that it takes for good when there is none.
  CHECK(at::detail::getCUDAHooks().hasCUDART());
}
#endif

TEST_CASE("devices are what they are called") {
  CHECK(resolve_device("cpu") == c10::Device(c10::kCPU));
  for (const char* wrong : {"gpu", "cuda:", "cuda:x", "cpu:0", ""}) CHECK_THROWS_AS(resolve_device(wrong), Error);
}
