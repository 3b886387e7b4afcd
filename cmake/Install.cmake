# cmake --install: programs, completion, configs and documents (component runtime); libraries, headers and
# find_package(llmtk) (component development). The programs find LibTorch and CUDA where they were built against.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# What the exported targets need of others is looked for by the package, with the words that were used here.
set(llmtk_cmake ${CMAKE_INSTALL_LIBDIR}/cmake/llmtk)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/llmtkConfig.cmake.in ${CMAKE_BINARY_DIR}/package/llmtkConfig.cmake
  INSTALL_DESTINATION ${llmtk_cmake} NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/package/llmtkConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/package/llmtkConfig.cmake ${CMAKE_BINARY_DIR}/package/llmtkConfigVersion.cmake
              ${CMAKE_CURRENT_LIST_DIR}/Torch.cmake
        DESTINATION ${llmtk_cmake} COMPONENT development)

get_property(llmtk_libraries GLOBAL PROPERTY LLMTK_LIBRARIES)
add_library(llmtk_everything INTERFACE)
set_target_properties(llmtk_everything PROPERTIES EXPORT_NAME llmtk)
target_link_libraries(llmtk_everything INTERFACE ${llmtk_libraries})
install(TARGETS llmtk_everything ${llmtk_libraries} EXPORT llmtk
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}/llmtk COMPONENT development)
install(EXPORT llmtk FILE llmtkTargets.cmake NAMESPACE llmtk:: DESTINATION ${llmtk_cmake} COMPONENT development)
install(DIRECTORY ${CMAKE_SOURCE_DIR}/lib/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/llmtk COMPONENT development
        FILES_MATCHING PATTERN "*.h")

get_property(llmtk_commands GLOBAL PROPERTY LLMTK_COMMANDS)
install(TARGETS llmtk ${llmtk_commands} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT runtime)
install(FILES ${CMAKE_SOURCE_DIR}/scripts/completion/llmtk.bash RENAME llmtk
        DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions COMPONENT runtime)
install(FILES ${CMAKE_SOURCE_DIR}/scripts/completion/_llmtk
        DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions COMPONENT runtime)
install(FILES ${CMAKE_SOURCE_DIR}/LICENSE ${CMAKE_SOURCE_DIR}/THIRD_PARTY_NOTICES.md
        DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT runtime)
install(FILES ${CMAKE_SOURCE_DIR}/README.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT runtime OPTIONAL)
foreach(folder docs configs)
  if(EXISTS ${CMAKE_SOURCE_DIR}/${folder})
    set(where_docs ${CMAKE_INSTALL_DOCDIR})
    set(where_configs ${CMAKE_INSTALL_DATADIR}/llmtk/configs)
    install(DIRECTORY ${CMAKE_SOURCE_DIR}/${folder}/ DESTINATION ${where_${folder}} COMPONENT runtime)
  endif()
endforeach()
