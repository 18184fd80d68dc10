# Installs the library into a scratch directory and builds and runs the program in tests/consumer
# against that copy.
#
# Arguments: BUILD, the build directory; SOURCE, the project; WORK, a scratch directory; CXX, FLAGS,
# TYPE, GENERATOR and LAUNCHER as the build directory has them.
cmake_minimum_required(VERSION 3.25)

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output
                  ERROR_VARIABLE output)
  if(result)
    message(FATAL_ERROR "${ARGN}\nfailed:\n${output}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix)
run(${CMAKE_COMMAND} -S ${SOURCE}/tests/consumer -B ${WORK}/build -G ${GENERATOR}
    -D CMAKE_BUILD_TYPE=${TYPE} -D CMAKE_CXX_COMPILER=${CXX} -D CMAKE_CXX_FLAGS=${FLAGS}
    -D CMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER} -D CMAKE_PREFIX_PATH=${WORK}/prefix)
run(${CMAKE_COMMAND} --build ${WORK}/build)
run(${WORK}/build/consumer)

# The copy must not point back here.
file(GLOB_RECURSE files ${WORK}/prefix/*.cmake ${WORK}/prefix/*.h)
foreach(file ${files})
  file(STRINGS ${file} leaks REGEX "${SOURCE}/|${BUILD}/")
  if(leaks)
    message(SEND_ERROR "${file} names the source or the build directory:\n${leaks}")
  endif()
endforeach()
