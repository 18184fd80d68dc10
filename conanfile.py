"""unroll as a Conan 2 package: conan create . [-o "unroll/*:with_xtensor=True"]."""

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
        # All but xtensor are header-only here, and private to our .cpp files.
        self.requires("xsimd/[>=8.1.0]")
        self.requires("fmt/[>=9.1.0]", options={"header_only": True})
        self.requires("nlohmann_json/[>=3.11.2]")
        self.requires("utfcpp/[>=3.2.2]")
        if self.options.with_xtensor:
            self.requires("xtensor/[>=0.24.3]", transitive_headers=True)

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
