# Checks the promise of unroll.h: it reads nothing but the standard library, and not its heavy
# headers, each public header stands alone, and docs/exceptions.md has each of the framework's.
#
# Arguments: CXX, the compiler; FLAGS, its options; INCLUDE, the build tree's include directory;
# SOURCE, the project; WORK, a scratch directory.
cmake_minimum_required(VERSION 3.25)

# Compiles a file with only this include and sets `read` to the headers that were read.
function(compile header)
  file(WRITE ${WORK}/user.cpp "#include <unroll/${header}>\n")
  separate_arguments(flags UNIX_COMMAND "${FLAGS}")
  execute_process(
    COMMAND ${CXX} -std=c++20 ${flags} -fsyntax-only -MD -MF ${WORK}/user.d
            -I ${INCLUDE} -I ${SOURCE} ${WORK}/user.cpp
    RESULT_VARIABLE result ERROR_VARIABLE errors)
  if(result)
    message(FATAL_ERROR "${header} does not compile alone:\n${errors}")
  endif()
  file(READ ${WORK}/user.d rule)
  string(REGEX MATCHALL "[^ \\\n]+\\.[a-z]+|/[^ \\\n]+" read "${rule}")
  set(read ${read} PARENT_SCOPE)
endfunction()

compile(unroll.h)

set(ours ${read})
list(FILTER ours INCLUDE REGEX "/(framework|modules|optim|data)/[a-z_/]+\\.h$")
list(TRANSFORM ours REPLACE ".*/(framework|modules|optim|data)/" "\\1/")
list(REMOVE_DUPLICATES ours)
if(NOT "framework/tensor.h" IN_LIST ours)
  message(FATAL_ERROR "unroll.h did not read framework/tensor.h, but only: ${read}")
endif()

set(heavy "/(xtensor|xtl|xsimd|fmt|nlohmann|utf8cpp|utf8)[/.]")
string(APPEND heavy "|/c\\+\\+/[^/]+/(algorithm|atomic|chrono|filesystem|format)$")
string(APPEND heavy "|/c\\+\\+/[^/]+/(iostream|iterator|memory|random|regex|sstream|thread)$")
foreach(file IN LISTS read)
  if(file MATCHES "${heavy}")
    message(SEND_ERROR "unroll.h reads ${file}")
  endif()
endforeach()

foreach(header IN LISTS ours)
  compile(${header})
endforeach()

file(READ ${SOURCE}/docs/exceptions.md exceptions)
file(STRINGS ${SOURCE}/framework/framework.h includes REGEX "^#include")
foreach(include IN LISTS includes)
  string(REGEX REPLACE "#include \"(.*)\"" "\\1" header "${include}")
  string(FIND "${exceptions}" "`${header}`" at)
  if(at EQUAL -1)
    message(SEND_ERROR "docs/exceptions.md does not say what ${header} guarantees")
  endif()
endforeach()
