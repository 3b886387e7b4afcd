# The three kinds of target. A folder of lib/ is one library; one that names TORCH shares the precompiled header.

add_library(llmtk_pch OBJECT ${CMAKE_SOURCE_DIR}/cmake/pch.cpp)
target_link_libraries(llmtk_pch PUBLIC llmtk::torch)
target_precompile_headers(llmtk_pch PRIVATE ${CMAKE_SOURCE_DIR}/cmake/pch.h)

# Programs, tests and the libraries that say GLUE only call what computes (lib/kernels, LibTorch, the tokenizers): optimizing
# them further takes a fifth of the build and wins nothing.
set(LLMTK_GLUE_OPTIONS $<$<AND:$<CONFIG:Release>,$<COMPILE_LANGUAGE:CXX>>:-O1>)

# UNITY: the files of a target are compiled as one. Most of what a small file costs is what LibTorch's, CLI11's and the JSON
# library's headers leave to the end of every compilation, so a clean build takes two thirds of the time; what is named in
# anonymous namespaces must differ between them. OFF (preset dev) compiles each alone: quicker after one edit.
option(LLMTK_UNITY "Compile the files of a UNITY target together" ON)
function(llmtk_unity target wanted)
  if(LLMTK_UNITY AND wanted)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 10)
  endif()
endfunction()

# llmtk_library(NAME [TORCH] [UNITY] [GLUE] SOURCES a.cpp ... [CUDA b.cu ...] [DEPENDS targets ...] [PRIVATE_DEPENDS targets ...])
function(llmtk_library name)
  cmake_parse_arguments(arg "TORCH;UNITY;GLUE" "" "SOURCES;CUDA;DEPENDS;PRIVATE_DEPENDS" ${ARGN})
  if(LLMTK_WITH_CUDA)
    list(APPEND arg_SOURCES ${arg_CUDA})
    set_source_files_properties(${arg_CUDA} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  endif()
  add_library(llmtk_${name} STATIC ${arg_SOURCES})
  llmtk_unity(llmtk_${name} ${arg_UNITY})
  add_library(llmtk::${name} ALIAS llmtk_${name})
  # Users of the installed libraries write "core/error.h" or <llmtk/core/error.h>.
  target_include_directories(llmtk_${name} PUBLIC $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/lib>
    $<INSTALL_INTERFACE:include/llmtk> $<INSTALL_INTERFACE:include>)
  target_compile_features(llmtk_${name} PUBLIC cxx_std_20)
  set_target_properties(llmtk_${name} PROPERTIES EXPORT_NAME ${name})
  set_property(GLOBAL APPEND PROPERTY LLMTK_LIBRARIES llmtk_${name})
  target_link_libraries(llmtk_${name} PUBLIC ${arg_DEPENDS} PRIVATE ${arg_PRIVATE_DEPENDS})
  if(arg_GLUE)
    target_compile_options(llmtk_${name} PRIVATE ${LLMTK_GLUE_OPTIONS})
  endif()
  if(arg_TORCH)
    target_link_libraries(llmtk_${name} PUBLIC llmtk::torch)
    target_precompile_headers(llmtk_${name} REUSE_FROM llmtk_pch)
  endif()
endfunction()

# llmtk_command(NAME [TORCH] [UNITY] SOURCES ... DEPENDS ...): the executable llmtk-NAME beside the dispatcher.
function(llmtk_command name)
  cmake_parse_arguments(arg "TORCH;UNITY" "" "SOURCES;DEPENDS" ${ARGN})
  add_executable(llmtk-${name} ${arg_SOURCES})
  llmtk_unity(llmtk-${name} ${arg_UNITY})
  target_link_libraries(llmtk-${name} PRIVATE llmtk_app ${arg_DEPENDS})
  target_compile_options(llmtk-${name} PRIVATE ${LLMTK_GLUE_OPTIONS})
  if(arg_TORCH)
    target_link_libraries(llmtk-${name} PRIVATE llmtk::torch)
    target_precompile_headers(llmtk-${name} REUSE_FROM llmtk_pch)
    target_compile_options(llmtk-${name} PRIVATE -fPIC)  # as the precompiled header; CMake says -fPIE for programs
  endif()
  set_target_properties(llmtk-${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
  set_property(GLOBAL APPEND PROPERTY LLMTK_COMMANDS llmtk-${name})
endfunction()

# llmtk_test(NAME [TORCH] [UNITY] SOURCES ... DEPENDS ... [LABEL unit]): one Catch2 program, one ctest entry.
# Cases tagged [gpu] run as NAME.gpu under the label gpu. A program all of whose cases skip reports "skipped" (77).
function(llmtk_test name)
  cmake_parse_arguments(arg "TORCH;UNITY" "LABEL;TIMEOUT" "SOURCES;DEPENDS" ${ARGN})
  if(NOT arg_LABEL)
    set(arg_LABEL unit)
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  add_executable(test_${name} ${arg_SOURCES})
  llmtk_unity(test_${name} ${arg_UNITY})
  target_link_libraries(test_${name} PRIVATE llmtk_test_main ${arg_DEPENDS})
  target_compile_options(test_${name} PRIVATE ${LLMTK_GLUE_OPTIONS})
  if(arg_TORCH)
    target_link_libraries(test_${name} PRIVATE llmtk::torch)
    target_precompile_headers(test_${name} REUSE_FROM llmtk_pch)
    target_compile_options(test_${name} PRIVATE -fPIC)
    add_test(NAME ${name}.gpu COMMAND test_${name} [gpu])
    set_tests_properties(${name}.gpu PROPERTIES LABELS gpu SKIP_RETURN_CODE 77 TIMEOUT ${arg_TIMEOUT})
    set_property(GLOBAL APPEND PROPERTY LLMTK_GPU_TESTS test_${name})
  endif()
  set_target_properties(test_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND test_${name} ~[gpu])
  set_tests_properties(${name} PROPERTIES LABELS ${arg_LABEL} SKIP_RETURN_CODE 77 TIMEOUT ${arg_TIMEOUT})
endfunction()

# llmtk_python_test(NAME FILE LABEL label [PEERS] [TIMEOUT s] [ARGS ...]): a script run as `python FILE ARGS` with
# LLMTK_BIN set to the folder of the built programs. PEERS: needs transformers and the like; with LLMTK_PEER_PYTHON
# unset it is reported as skipped. Exit code 77 means skipped.
set(LLMTK_PEER_PYTHON "" CACHE FILEPATH "Python with torch, transformers, tokenizers ... for the tests against them")
find_program(LLMTK_PYTHON NAMES python3 PATHS /usr/bin)
function(llmtk_python_test name file)
  cmake_parse_arguments(arg "PEERS" "LABEL;TIMEOUT" "ARGS" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 600)
  endif()
  if(arg_PEERS AND NOT LLMTK_PEER_PYTHON)
    add_test(NAME ${name} COMMAND ${CMAKE_COMMAND} -E echo "SKIPPED: needs the Python peers (--no-peers was given)")
    set_tests_properties(${name} PROPERTIES SKIP_REGULAR_EXPRESSION "SKIPPED:" LABELS ${arg_LABEL})
    return()
  endif()
  set(python ${LLMTK_PYTHON})
  if(arg_PEERS)
    set(python ${LLMTK_PEER_PYTHON})
  endif()
  add_test(NAME ${name} COMMAND ${python} ${CMAKE_CURRENT_SOURCE_DIR}/${file} ${arg_ARGS})
  set_tests_properties(${name} PROPERTIES LABELS ${arg_LABEL} SKIP_RETURN_CODE 77 TIMEOUT ${arg_TIMEOUT}
    ENVIRONMENT "LLMTK_BIN=${CMAKE_BINARY_DIR}/bin;LLMTK_SOURCE=${CMAKE_SOURCE_DIR};PYTHONDONTWRITEBYTECODE=1")
endfunction()

# llmtk_reference(NAME SCRIPT [FILE file] [SAVED script] [ALSO test ...]): the test NAME, a llmtk_test, compares with what `SCRIPT PLACE`
# makes with the Python peers before it; LLMTK_REFERENCE tells it, and those of ALSO, the place: a folder that is called as
# the script, or the file. `SAVED PLACE` looks at what the test wrote there. One thread: the models are so small that others would only wait.
function(llmtk_reference name script)
  cmake_parse_arguments(arg "" "FILE;SAVED" "ALSO" ${ARGN})
  cmake_path(GET script STEM place)
  if(arg_FILE)
    set(place ${arg_FILE})
  endif()
  set(place ${CMAKE_CURRENT_BINARY_DIR}/${place})
  set_tests_properties(${name} ${arg_ALSO} PROPERTIES ENVIRONMENT "LLMTK_REFERENCE=${place};OMP_NUM_THREADS=1")
  if(NOT LLMTK_PEER_PYTHON)
    return()
  endif()
  add_test(NAME ${name}.reference COMMAND ${LLMTK_PEER_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/${script} ${place})
  set_tests_properties(${name}.reference PROPERTIES LABELS parity TIMEOUT 300 FIXTURES_SETUP ${name}_reference
                       ENVIRONMENT OMP_NUM_THREADS=1)
  set_tests_properties(${name} PROPERTIES FIXTURES_REQUIRED ${name}_reference)
  if(arg_SAVED)
    add_test(NAME ${name}.saved COMMAND ${LLMTK_PEER_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/${arg_SAVED} ${place})
    set_tests_properties(${name} PROPERTIES FIXTURES_SETUP ${name}_saved)
    set_tests_properties(${name}.saved PROPERTIES LABELS parity TIMEOUT 300
                         FIXTURES_REQUIRED "${name}_reference;${name}_saved")
  endif()
endfunction()
