# Builds and runs the program in tests/consumer as a user of the library would.
#
# Arguments: KIND, what it is built against:
#   installed     what cmake --install gives, by find_package and by pkg-config
#   package       the Debian package, unpacked
#   subdirectory  the sources, by add_subdirectory, as shared libraries
# BUILD, the build directory; SOURCE, the project; WORK, a scratch directory; CXX, FLAGS, TYPE,
# GENERATOR and LAUNCHER as the build directory has them.
cmake_minimum_required(VERSION 3.25)

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output
                  ERROR_VARIABLE output)
  if(result)
    message(FATAL_ERROR "${ARGN}\nfailed:\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

# build_consumer(argument...) configures with these arguments, builds and runs.
function(build_consumer)
  run(${CMAKE_COMMAND} -S ${SOURCE}/tests/consumer -B ${work}/build -G ${GENERATOR}
      -D CMAKE_BUILD_TYPE=${TYPE} -D CMAKE_CXX_COMPILER=${CXX} -D CMAKE_CXX_FLAGS=${FLAGS}
      -D CMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER} ${ARGN})
  run(${CMAKE_COMMAND} --build ${work}/build)
  run(${work}/build/consumer)
endfunction()

# The copy must not point back here.
function(check_no_leaks prefix)
  file(GLOB_RECURSE files ${prefix}/*.cmake ${prefix}/*.h ${prefix}/*.pc)
  if(NOT files)
    message(FATAL_ERROR "nothing is installed in ${prefix}")
  endif()
  foreach(file ${files})
    file(STRINGS ${file} leaks REGEX "${SOURCE}/|${BUILD}/")
    if(leaks)
      message(SEND_ERROR "${file} names the source or the build directory:\n${leaks}")
    endif()
  endforeach()
endfunction()

# No header that is installed reads one that is not.
function(check_headers prefix)
  file(GLOB_RECURSE headers RELATIVE ${prefix}/include ${prefix}/include/*.h)
  list(FILTER headers EXCLUDE REGEX "/xtensor\\.h$")  # the one that needs another library
  list(TRANSFORM headers REPLACE "(.+)" "#include <\\1>\n" OUTPUT_VARIABLE includes)
  string(JOIN "" includes ${includes})
  file(WRITE ${work}/headers.cpp "${includes}")
  separate_arguments(options UNIX_COMMAND "${FLAGS}")
  run(${CXX} -std=c++20 ${options} -fsyntax-only -I ${prefix}/include ${work}/headers.cpp)
endfunction()

# What follows removes a directory that is named by arguments.
foreach(name KIND BUILD SOURCE WORK CXX GENERATOR)
  if(NOT ${name})
    message(FATAL_ERROR "consumer.cmake: the argument ${name} is missing")
  endif()
endforeach()
set(work ${WORK}/${KIND})
file(REMOVE_RECURSE ${work})

if(KIND STREQUAL installed)
  run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${work}/prefix)
  build_consumer(-D CMAKE_PREFIX_PATH=${work}/prefix)
  check_no_leaks(${work}/prefix)
  check_headers(${work}/prefix)

  # Once more by pkg-config, and from another place than the one it was installed to.
  file(RENAME ${work}/prefix ${work}/moved)
  set(ENV{PKG_CONFIG_PATH} ${work}/moved/lib/pkgconfig)
  run(pkg-config --cflags --libs unroll)
  separate_arguments(options UNIX_COMMAND "${FLAGS} ${output}")
  run(${CXX} -std=c++20 ${SOURCE}/tests/consumer/main.cpp ${options} -o ${work}/by_pkg_config)
  set(ENV{LD_LIBRARY_PATH} ${work}/moved/lib)  # where the libraries are shared ones
  run(${work}/by_pkg_config)
elseif(KIND STREQUAL package)
  run(cpack --config ${BUILD}/CPackConfig.cmake -G DEB -B ${work}/package)
  file(GLOB package ${work}/package/*.deb)
  run(dpkg-deb --extract ${package} ${work}/root)
  build_consumer(-D CMAKE_PREFIX_PATH=${work}/root/usr)
  check_no_leaks(${work}/root)
elseif(KIND STREQUAL subdirectory)
  build_consumer(-D UNROLL_SOURCE=${SOURCE} -D UNROLL_WERROR=ON -D BUILD_SHARED_LIBS=ON)
  file(GLOB shared ${work}/build/unroll/libunroll_*.so)
  list(LENGTH shared count)
  if(NOT count EQUAL 5)
    message(FATAL_ERROR "there are not five shared libraries: ${shared}")
  endif()
else()
  message(FATAL_ERROR "there is no kind '${KIND}'")
endif()
