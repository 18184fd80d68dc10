# Checks that the times in README.md are those of benchmarks/RESULTS.md; says how a line must be.
#
# Arguments: SOURCE, the project.
cmake_minimum_required(VERSION 3.25)

file(STRINGS ${SOURCE}/README.md rows REGEX "^\\| [A-Z][A-Za-z ]+ \\| [0-9]+, [0-9]+, [0-9]+, [0-9]+ \\|")
file(STRINGS ${SOURCE}/benchmarks/RESULTS.md lines)
list(LENGTH rows count)
if(count LESS 3)
  message(FATAL_ERROR "README.md has no table of times")
endif()

foreach(row ${rows})
  string(REGEX MATCH "^\\| ([A-Za-z ]+) \\| ([0-9, ]+) \\|" _ "${row}")
  set(cell ${CMAKE_MATCH_1})
  set(sizes ${CMAKE_MATCH_2})
  string(REPLACE "LSTM as a cell of your own" customLSTM what "${cell}")
  # what | sizes | unroll | of peak | by hand | ratio | libtorch | ratio | oneDNN | ratio
  set(wanted)
  set(training FALSE)
  foreach(line ${lines})
    if(line MATCHES "^## ")
      string(COMPARE EQUAL "${line}" "## Training step, one thread" training)
    endif()
    if(training AND line MATCHES
       "^\\| ${what} \\| ${sizes} \\| ([0-9.]+) \\|[^|]*\\|[^|]*\\|[^|]*\\| ([0-9.]+) \\|[^|]*\\| ([0-9.]+) \\|")
      set(wanted "| ${cell} | ${sizes} | ${CMAKE_MATCH_1} | ${CMAKE_MATCH_2} | ${CMAKE_MATCH_3} |")
      if(NOT what STREQUAL cell)  # oneDNN has its own cells alone
        set(wanted "| ${cell} | ${sizes} | ${CMAKE_MATCH_1} | ${CMAKE_MATCH_2} | |")
      endif()
    endif()
  endforeach()
  if(NOT row STREQUAL wanted)
    message(SEND_ERROR "README.md has\n  ${row}\nbut benchmarks/RESULTS.md\n  ${wanted}")
  endif()
endforeach()
