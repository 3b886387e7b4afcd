# Compiler settings that every target shares.

option(LLMTK_TESTS "Build the tests" ON)
option(LLMTK_WERROR "Warnings are errors" ON)
set(LLMTK_SANITIZE "" CACHE STRING "Sanitizers for every target, for example address,undefined")
option(LLMTK_FUZZ "Link tests/fuzz with libFuzzer (clang)" OFF)
set(LLMTK_CUDA "AUTO" CACHE STRING "Compile the CUDA sources: ON, OFF, or AUTO (where nvcc is)")
set(LLMTK_CUDA_ARCHITECTURES "80-real;90" CACHE STRING "GPU architectures that the CUDA sources are compiled for")

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_INSTALL_RPATH_USE_LINK_PATH ON)  # what is installed finds LibTorch where it was built against
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

# The least processor promised; faster paths are chosen at run time (lib/kernels).
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-march=x86-64-v3>)
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wall> $<$<COMPILE_LANGUAGE:CXX>:-Wextra>
                    $<$<COMPILE_LANGUAGE:CXX>:-Wno-missing-field-initializers>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)  # GCC 12 takes "literal" + std::string for an overlap
endif()
if(LLMTK_WERROR)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
if(LLMTK_SANITIZE)
  # vptr checks want type information that LibTorch does not export; with the checks GCC's flow warnings are wrong.
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${LLMTK_SANITIZE}>
                      $<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize=vptr>
                      $<$<COMPILE_LANGUAGE:CXX>:-fno-omit-frame-pointer>
                      $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:-Wno-maybe-uninitialized>)
  add_link_options(-fsanitize=${LLMTK_SANITIZE})
endif()

find_program(LLMTK_CCACHE ccache)
if(LLMTK_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # A precompiled header is found by its content, not by its time stamp.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${LLMTK_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${LLMTK_CCACHE})
endif()

find_program(LLMTK_MOLD mold)
if(LLMTK_MOLD)
  # Segments begin on pages of their own: where mold before 2.4 puts a .tbss in the last bytes of the page before the
  # read-only relocations, that program cannot be loaded ("cannot apply additional memory protection after relocation").
  add_link_options(-fuse-ld=mold -Wl,-z,separate-loadable-segments)
endif()
