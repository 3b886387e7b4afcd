# The system's libraries come as imported targets of their own; LibTorch as llmtk::torch, made here.
#
# LibTorch's own CMake config stops where no CUDA toolkit is installed and puts its include folders, which carry a copy
# of fmt and others, before the system's; so the targets are made by hand: the folders come last (-idirafter).

find_package(Threads REQUIRED)
find_package(spdlog REQUIRED)
find_package(CLI11 REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(sentencepiece REQUIRED IMPORTED_TARGET sentencepiece)
pkg_check_modules(pcre2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(hwy REQUIRED IMPORTED_TARGET libhwy)

# --- LibTorch: the folder that holds include/ and lib/libtorch_cpu.so ---
set(LLMTK_LIBTORCH "" CACHE PATH "LibTorch >= 2.11: the folder that holds include/ and lib/")
if(NOT LLMTK_LIBTORCH)
  find_path(LLMTK_LIBTORCH_FOUND lib/libtorch_cpu.so HINTS ENV LLMTK_LIBTORCH PATHS ${CMAKE_PREFIX_PATH} NO_DEFAULT_PATH)
  if(LLMTK_LIBTORCH_FOUND)
    set(found ${LLMTK_LIBTORCH_FOUND})
  else()
    execute_process(COMMAND ${CMAKE_SOURCE_DIR}/scripts/bootstrap --print libtorch
                    OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE)
  endif()
  if(NOT found)
    message(FATAL_ERROR "LibTorch not found. Run scripts/bootstrap, or give its folder: -DLLMTK_LIBTORCH=/path/to/libtorch")
  endif()
  set(LLMTK_LIBTORCH ${found} CACHE PATH "" FORCE)
endif()
file(STRINGS ${LLMTK_LIBTORCH}/include/torch/headeronly/version.h llmtk_torch_version
     REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX REPLACE "[^0-9;]" "" llmtk_torch_version "${llmtk_torch_version}")
string(REPLACE ";" "." LLMTK_TORCH_VERSION "${llmtk_torch_version}")
if(LLMTK_TORCH_VERSION VERSION_LESS 2.11)
  message(FATAL_ERROR "LibTorch ${LLMTK_TORCH_VERSION} in ${LLMTK_LIBTORCH} is too old: 2.11 or newer is needed")
endif()

# --- CUDA: compiled wherever nvcc is and LibTorch has its CUDA half ---
set(LLMTK_WITH_CUDA OFF)
if(NOT LLMTK_CUDA STREQUAL "OFF")
  find_program(LLMTK_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin /usr/local/cuda/bin)
  if(LLMTK_NVCC AND EXISTS ${LLMTK_LIBTORCH}/lib/libtorch_cuda.so)
    set(LLMTK_WITH_CUDA ON)
  elseif(LLMTK_CUDA STREQUAL "ON")
    message(FATAL_ERROR "LLMTK_CUDA=ON needs nvcc (found: ${LLMTK_NVCC}) and a LibTorch with CUDA in ${LLMTK_LIBTORCH}")
  endif()
endif()
if(LLMTK_WITH_CUDA)
  set(CMAKE_CUDA_COMPILER ${LLMTK_NVCC})
  set(CMAKE_CUDA_ARCHITECTURES ${LLMTK_CUDA_ARCHITECTURES})
  set(CMAKE_CUDA_STANDARD 17)
  set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)  # the one that LibTorch uses
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
endif()

add_library(llmtk_torch INTERFACE)
add_library(llmtk::torch ALIAS llmtk_torch)
target_compile_options(llmtk_torch INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:SHELL:-idirafter ${LLMTK_LIBTORCH}/include -idirafter ${LLMTK_LIBTORCH}/include/torch/csrc/api/include>")
target_link_libraries(llmtk_torch INTERFACE ${LLMTK_LIBTORCH}/lib/libtorch_cpu.so ${LLMTK_LIBTORCH}/lib/libc10.so)
if(LLMTK_WITH_CUDA)
  target_compile_definitions(llmtk_torch INTERFACE LLMTK_WITH_CUDA)
  # libtorch_cuda registers its operations when it is loaded; nothing here names a symbol of it.
  target_link_libraries(llmtk_torch INTERFACE
    -Wl,--no-as-needed ${LLMTK_LIBTORCH}/lib/libtorch_cuda.so -Wl,--as-needed
    ${LLMTK_LIBTORCH}/lib/libc10_cuda.so CUDA::cudart)
endif()
message(STATUS "LibTorch ${LLMTK_TORCH_VERSION} in ${LLMTK_LIBTORCH}; CUDA sources: ${LLMTK_WITH_CUDA}")
