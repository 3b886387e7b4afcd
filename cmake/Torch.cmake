# The target llmtk::torch. Needs LLMTK_LIBTORCH (its folder) and LLMTK_WITH_CUDA. The installed package includes this file too.
#
# LibTorch's own CMake config stops where no CUDA toolkit is installed and puts its include folders, which carry a copy
# of fmt and others, before the system's; so the target is made by hand: the folders come last (-idirafter).
add_library(llmtk::torch INTERFACE IMPORTED GLOBAL)
set_property(TARGET llmtk::torch PROPERTY INTERFACE_COMPILE_OPTIONS
  "$<$<COMPILE_LANGUAGE:CXX>:SHELL:-idirafter ${LLMTK_LIBTORCH}/include -idirafter ${LLMTK_LIBTORCH}/include/torch/csrc/api/include>")
set_property(TARGET llmtk::torch PROPERTY INTERFACE_LINK_LIBRARIES
  ${LLMTK_LIBTORCH}/lib/libtorch_cpu.so ${LLMTK_LIBTORCH}/lib/libc10.so)
# at::parallel_for is a header's template: without OpenMP it compiles to a plain loop on one thread. The runtime is the one
# that LibTorch itself uses (the wheel and the zip carry their own), so that a process has one pool of threads.
set_property(TARGET llmtk::torch APPEND PROPERTY INTERFACE_COMPILE_OPTIONS $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
file(GLOB llmtk_openmp LIST_DIRECTORIES false "${LLMTK_LIBTORCH}/lib/libgomp*.so*")
list(APPEND llmtk_openmp gomp)
list(GET llmtk_openmp 0 llmtk_openmp)
set_property(TARGET llmtk::torch APPEND PROPERTY INTERFACE_LINK_LIBRARIES ${llmtk_openmp})
if(LLMTK_WITH_CUDA)
  set_property(TARGET llmtk::torch PROPERTY INTERFACE_COMPILE_DEFINITIONS LLMTK_WITH_CUDA)
  # Nothing here names a symbol of libtorch_cuda: lib/core/device.cpp loads it where there may be a GPU.
  set_property(TARGET llmtk::torch APPEND PROPERTY INTERFACE_LINK_LIBRARIES
    ${LLMTK_LIBTORCH}/lib/libc10_cuda.so CUDA::cudart)
endif()
