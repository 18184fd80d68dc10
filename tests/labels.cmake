# CTest reads this after the list of test cases: a tag in a name, as in "[slow] trains a model",
# becomes a label.
foreach(test IN LISTS unroll_tests_TESTS)
  string(REGEX MATCHALL "\\[(slow|thread)\\]" tags "${test}")
  if(tags)
    string(REGEX REPLACE "[][]" "" labels "${tags}")
    set_tests_properties("${test}" PROPERTIES LABELS "${labels}")
  endif()
endforeach()
