# Checks that vcpkg.json and conanfile.py name the packages and the versions that CMakeLists.txt asks
# for, and that all three and docs/changelog.md name one version of unroll.
#
# Arguments: SOURCE, the project.
cmake_minimum_required(VERSION 3.25)

file(READ ${SOURCE}/CMakeLists.txt cmake)
file(READ ${SOURCE}/vcpkg.json vcpkg)
file(READ ${SOURCE}/conanfile.py conan)
file(READ ${SOURCE}/docs/changelog.md changelog)

# "name version" of each; CMake's name for it, lower-case and with "-".
string(REGEX MATCHALL "\nunroll_find_package\\([a-z0-9_]+ [0-9.]+" calls "${cmake}")
set(wanted)
foreach(call ${calls})
  string(REGEX REPLACE ".*\\(" "" dependency "${call}")
  string(REPLACE "_" "-" dependency "${dependency}")
  list(APPEND wanted "${dependency}")
endforeach()

# add_vcpkg(path...): the dependencies in a list of vcpkg.json.
set(in_vcpkg)
function(add_vcpkg)
  string(JSON count LENGTH "${vcpkg}" ${ARGN})
  math(EXPR last "${count} - 1")
  foreach(i RANGE ${last})
    string(JSON name GET "${vcpkg}" ${ARGN} ${i} name)
    string(JSON version GET "${vcpkg}" ${ARGN} ${i} version>=)
    list(APPEND in_vcpkg "${name} ${version}")
  endforeach()
  set(in_vcpkg "${in_vcpkg}" PARENT_SCOPE)
endfunction()
add_vcpkg(dependencies)
add_vcpkg(features xtensor dependencies)

string(REGEX MATCHALL "requires\\(\"[^\"]+" calls "${conan}")
set(in_conan)
foreach(call ${calls})
  string(REGEX REPLACE "requires\\(\"([^/]+)/\\[>=([0-9.]+)[^]]*\\]" "\\1 \\2" dependency "${call}")
  list(APPEND in_conan "${dependency}")
endforeach()

# What the package managers call by another name.
list(TRANSFORM in_vcpkg REPLACE "^utfcpp " "utf8cpp ")
list(TRANSFORM in_conan REPLACE "^utfcpp " "utf8cpp ")
list(TRANSFORM in_conan REPLACE "^nlohmann_json " "nlohmann-json ")

# 8.1 and 8.1.0 are one version.
foreach(list wanted in_vcpkg in_conan)
  list(TRANSFORM ${list} REPLACE "( [0-9]+\\.[0-9]+)\\.0$" "\\1")
  list(SORT ${list})
endforeach()
list(LENGTH wanted count)
if(count LESS 5)
  message(FATAL_ERROR "CMakeLists.txt was not understood: ${wanted}")
endif()
foreach(file vcpkg conan)
  if(NOT in_${file} STREQUAL wanted)
    message(SEND_ERROR "CMakeLists.txt asks for ${wanted}\n${file} for ${in_${file}}")
  endif()
endforeach()

string(REGEX MATCH "project\\(unroll VERSION ([0-9.]+)" _ "${cmake}")
set(version ${CMAKE_MATCH_1})
string(JSON in_vcpkg GET "${vcpkg}" version)
string(REGEX MATCH "\n    version = \"([0-9.]+)\"" _ "${conan}")
set(in_conan ${CMAKE_MATCH_1})
string(REGEX MATCH "\n## ([0-9.]+)" _ "${changelog}")
set(in_changelog ${CMAKE_MATCH_1})
foreach(file vcpkg conan changelog)
  if(NOT in_${file} STREQUAL version)
    message(SEND_ERROR "CMakeLists.txt has version ${version}, ${file} '${in_${file}}'")
  endif()
endforeach()
