# find_package(unroll)                     defines unroll::unroll
# find_package(unroll COMPONENTS xtensor)  also unroll::xtensor, and finds xtensor for it

include(CMakeFindDependencyMacro)
find_dependency(Threads)
include(${CMAKE_CURRENT_LIST_DIR}/unrollTargets.cmake)

if("xtensor" IN_LIST unroll_FIND_COMPONENTS)
  find_dependency(xtensor)
  include(${CMAKE_CURRENT_LIST_DIR}/unrollXtensorTargets.cmake OPTIONAL
          RESULT_VARIABLE unroll_xtensor_FOUND)
endif()

foreach(component ${unroll_FIND_COMPONENTS})
  if(unroll_FIND_REQUIRED_${component} AND NOT TARGET unroll::${component})
    set(unroll_FOUND FALSE)
    set(unroll_NOT_FOUND_MESSAGE "this copy of unroll has no component ${component}")
  endif()
endforeach()
