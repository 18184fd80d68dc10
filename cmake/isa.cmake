# The kernels are compiled once per instruction set, from framework/kernels/isa/<isa>.cpp, and one
# of them is chosen at run time, so that one binary is fast everywhere. Sets isa_sources.
#
# These files are optimised in every build type. An inline function of the standard library that
# an unoptimised build leaves standing would be compiled with, say, AVX-512 here, and the linker may
# keep this copy for the whole program: it then dies on an older CPU (tests/isa_symbols.cmake).

set(isa_flags_avx2 -mavx2 -mfma)
set(isa_flags_avx512 -mavx512f -mavx512cd -mavx512dq -mavx512bw -mavx512vl ${isa_flags_avx2})
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  # g++ warns of its own header: _mm512_undefined_ps() is uninitialised on purpose.
  list(APPEND isa_flags_avx512 -Wno-maybe-uninitialized -Wno-uninitialized)
endif()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(isas sse2 avx2 avx512)  # sse2 is part of every x86-64
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set(isas neon)
else()
  message(FATAL_ERROR "There are kernels for x86-64 and aarch64, not for ${CMAKE_SYSTEM_PROCESSOR}")
endif()

# UndefinedBehaviorSanitizer checks every access of every unrolled tile: ten minutes for a file.
# AddressSanitizer stays, but for AVX-512, where it takes nearly as long for the same templates.
set(isa_optimisation -O3)
if(CMAKE_CXX_FLAGS MATCHES "-fsanitize")
  set(isa_optimisation -O1 -fno-sanitize=undefined)
  list(APPEND isa_flags_avx512 -fno-sanitize=all)
elseif(CMAKE_CXX_FLAGS MATCHES "--coverage")
  set(isa_optimisation -O1)
endif()

set(isa_sources)
foreach(isa ${isas})
  set(source ${PROJECT_SOURCE_DIR}/framework/kernels/isa/${isa}.cpp)
  list(APPEND isa_sources ${source})
  set_source_files_properties(${source} PROPERTIES
    COMPILE_OPTIONS "${isa_optimisation};-ffp-contract=fast;${isa_flags_${isa}}")
endforeach()
