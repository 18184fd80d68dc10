"""unroll as a Conan 2 package: conan create . --build=missing.

With framework/xtensor.h: -o "unroll/*:with_xtensor=True" -s compiler.cppstd=20 (xtensor asks for it).
"""

from conan import ConanFile
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain, cmake_layout


class Unroll(ConanFile):
    name = "unroll"
    version = "0.1.0"
    description = "A tensor framework with a dynamic computation graph for recurrent models"
    license = "MIT"
    settings = "os", "compiler", "build_type", "arch"
    options = {"shared": [True, False], "with_xtensor": [True, False]}
    default_options = {"shared": False, "with_xtensor": False}
    exports_sources = (
        "CMakeLists.txt", "LICENSE", "cmake/*", "unroll.h",
        "framework/*", "modules/*", "optim/*", "data/*",
    )

    def requirements(self):
        # xtensor comes first: it asks for one version each of xsimd and nlohmann_json, and whatever
        # is in our ranges suits us. The others are header-only here, and private to our .cpp files.
        if self.options.with_xtensor:
            self.requires("xtensor/[>=0.24.3]", transitive_headers=True)
        self.requires("xsimd/[>=8.1.0]")
        self.requires("fmt/[>=9.1.0]", options={"header_only": True})
        self.requires("nlohmann_json/[>=3.11.2]")
        self.requires("utfcpp/[>=3.2.2]")

    def layout(self):
        cmake_layout(self)

    def generate(self):
        CMakeDeps(self).generate()
        toolchain = CMakeToolchain(self)
        for part in ("TESTS", "EXAMPLES", "BENCHMARKS"):
            toolchain.cache_variables[f"UNROLL_BUILD_{part}"] = False
        toolchain.generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def package(self):
        CMake(self).install()

    def package_info(self):
        # The package's own unrollConfig.cmake is better than one that Conan would make.
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs = ["lib/cmake/unroll"]
