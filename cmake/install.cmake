# Installs what a user of the library sees: find_package(unroll), pkg-config, headers, licence; and
# makes a Debian package of it (cpack -G DEB).

include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/unroll)

install(EXPORT unrollTargets NAMESPACE unroll:: DESTINATION ${package_dir})
if(TARGET unroll_xtensor)
  install(EXPORT unrollXtensorTargets NAMESPACE unroll:: DESTINATION ${package_dir})
endif()

write_basic_package_version_file(${PROJECT_BINARY_DIR}/unrollConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_SOURCE_DIR}/cmake/unrollConfig.cmake
              ${PROJECT_BINARY_DIR}/unrollConfigVersion.cmake
        DESTINATION ${package_dir})

set(header_dir ${CMAKE_INSTALL_INCLUDEDIR}/unroll)
install(FILES unroll.h DESTINATION ${header_dir})
install(DIRECTORY framework modules optim data DESTINATION ${header_dir}
        FILES_MATCHING PATTERN "*.h"
        PATTERN isa EXCLUDE PATTERN ops EXCLUDE PATTERN "*.impl.h" EXCLUDE PATTERN internal.h EXCLUDE
        PATTERN format.h EXCLUDE PATTERN stored.h EXCLUDE PATTERN trace.h EXCLUDE PATTERN kernels.h EXCLUDE
        PATTERN scratch.h EXCLUDE PATTERN external.h EXCLUDE PATTERN tape_view.h EXCLUDE
        PATTERN fused_program.h EXCLUDE PATTERN stage.h EXCLUDE PATTERN step_products.h EXCLUDE
        PATTERN sweep.h EXCLUDE PATTERN sequence.h EXCLUDE PATTERN sequence_rule.h EXCLUDE
        PATTERN repeated_rows.h EXCLUDE)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

# Our headers include each other as "framework/tensor.h", from the project's root. In the installed
# copy they say <unroll/framework/tensor.h>, so that names as common as "data/" or "framework/" are
# on no user's include path.
install(CODE "set(header_dir \"${header_dir}\")")
install(CODE [[
  file(GLOB_RECURSE headers "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}/${header_dir}/*.h")
  foreach(header IN LISTS headers)
    file(READ "${header}" text)
    string(REGEX REPLACE "#include \"((framework|modules|optim|data)/[^\"]*)\""
           "#include <unroll/\\1>" text "${text}")
    file(WRITE "${header}" "${text}")
  endforeach()
]])

# --- pkg-config ---------------------------------------------------------------------------------

# Paths are relative to the file, so that the installed copy may be moved.
cmake_path(RELATIVE_PATH CMAKE_INSTALL_FULL_LIBDIR BASE_DIRECTORY ${CMAKE_INSTALL_PREFIX}
           OUTPUT_VARIABLE library_dir)
cmake_path(RELATIVE_PATH CMAKE_INSTALL_PREFIX
           BASE_DIRECTORY ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig OUTPUT_VARIABLE pc_to_prefix)
configure_file(cmake/unroll.pc.in unroll.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/unroll.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# --- Debian package -----------------------------------------------------------------------------

if(PROJECT_IS_TOP_LEVEL)
  set(CPACK_GENERATOR DEB)
  set(CPACK_PACKAGE_NAME libunroll-dev)
  set(CPACK_PACKAGE_CONTACT "the authors of unroll")
  set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
  set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
  set(CPACK_DEBIAN_PACKAGE_SECTION libdevel)
  set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ${BUILD_SHARED_LIBS})
  set(CPACK_DEBIAN_PACKAGE_SUGGESTS libxtensor-dev)
  set(CPACK_STRIP_FILES ${BUILD_SHARED_LIBS})
  include(CPack)
endif()
