# The target llmtk::torch. Needs LLMTK_LIBTORCH (its folder) and LLMTK_WITH_CUDA. The installed package includes this file too.
#
# LibTorch's own CMake config stops where no CUDA toolkit is installed and puts its include folders, which carry a copy
# of fmt and others, before the system's; so the target is made by hand: the folders come last (-idirafter).
add_library(llmtk::torch INTERFACE IMPORTED GLOBAL)
set_property(TARGET llmtk::torch PROPERTY INTERFACE_COMPILE_OPTIONS
  "$<$<COMPILE_LANGUAGE:CXX>:SHELL:-idirafter ${LLMTK_LIBTORCH}/include -idirafter ${LLMTK_LIBTORCH}/include/torch/csrc/api/include>")
set_property(TARGET llmtk::torch PROPERTY INTERFACE_LINK_LIBRARIES
  ${LLMTK_LIBTORCH}/lib/libtorch_cpu.so ${LLMTK_LIBTORCH}/lib/libc10.so)
if(LLMTK_WITH_CUDA)
  set_property(TARGET llmtk::torch PROPERTY INTERFACE_COMPILE_DEFINITIONS LLMTK_WITH_CUDA)
  # libtorch_cuda registers its operations when it is loaded; nothing here names a symbol of it.
  set_property(TARGET llmtk::torch APPEND PROPERTY INTERFACE_LINK_LIBRARIES
    -Wl,--no-as-needed ${LLMTK_LIBTORCH}/lib/libtorch_cuda.so -Wl,--as-needed
    ${LLMTK_LIBTORCH}/lib/libc10_cuda.so CUDA::cudart)
endif()
