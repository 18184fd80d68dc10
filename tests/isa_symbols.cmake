# Checks the weak functions (inline functions and templates that were not inlined) in the object
# files of framework/kernels/isa. The linker keeps one copy of each for the whole program, and if
# that is the copy compiled with AVX-512, the program dies on a CPU without it. So a weak function
# is an error unless it is xsimd's for one instruction set and only one of these files has it.
#
# Arguments: NM, the tool; OBJECTS, the object files.
cmake_minimum_required(VERSION 3.25)

list(FILTER OBJECTS INCLUDE REGEX "/kernels/isa/")
if(NOT OBJECTS)
  message(FATAL_ERROR "there are no object files to look at")
endif()

set(seen)
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} --defined-only --demangle ${object}
                  OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REPLACE ";" "," symbols "${symbols}")
  string(REGEX MATCHALL " W [^\n]+" weak "${symbols}")
  foreach(function IN LISTS weak)
    if(NOT function MATCHES "xsimd::(sse|avx|neon)" OR function IN_LIST seen)
      message(SEND_ERROR "${object} exports a weak function:${function}")
    endif()
  endforeach()
  list(APPEND seen ${weak})
endforeach()
