# Checks that the fuzz targets compile, which are built only where clang is.
#
# Arguments: CXX, the compiler; FLAGS, its options; INCLUDE, the build tree's include directory;
# SOURCE, the project.
cmake_minimum_required(VERSION 3.25)

separate_arguments(flags UNIX_COMMAND "${FLAGS}")
file(GLOB targets ${SOURCE}/tests/fuzz/*.cpp)
foreach(target IN LISTS targets)
  execute_process(
    COMMAND ${CXX} -std=c++20 ${flags} -fsyntax-only -DFMT_HEADER_ONLY=1 -I ${INCLUDE} -I ${SOURCE}
            ${target}
    RESULT_VARIABLE result ERROR_VARIABLE errors)
  if(result)
    message(SEND_ERROR "${target} does not compile:\n${errors}")
  endif()
endforeach()
