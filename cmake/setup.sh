# Shell functions shared by examples/run, tests/run and .ci/run, which source this file.
# Messages go to stderr, so that a program's output can be piped.

root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { echo "==> $*" >&2; }

die() {
  echo "error: $*" >&2
  exit 2
}

# prepare "LISTS" "$@": installs what is missing of these lists in cmake/. Under sudo the rest of the
# script is then run again as the owner of the project, so that no file in it belongs to root.
prepare() {
  install_packages $1
  shift
  if [[ $EUID -eq 0 && -n ${SUDO_USER:-} && $(stat -c %U "$root") == "$SUDO_USER" ]]; then
    exec sudo -u "$SUDO_USER" -- "$0" "$@"
  fi
}

# install_packages LIST...: files with a package per line, in cmake/ if no path is given.
install_packages() {
  (($#)) || die "install_packages: which list?"
  local packages installed missing
  mapfile -t packages < <(cd "$root/cmake" && sed -e 's/#.*//' -e 's/ *$//' -e '/^$/d' "$@")
  if ! command -v apt-get >/dev/null; then
    require_tools "there is no apt-get here; unroll needs what Debian calls ${packages[*]}"
    return
  fi

  installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null) ||
    true  # it fails if there is a package that it has never heard of
  missing=()
  for package in "${packages[@]}"; do
    grep -qxF "installed $package" <<<"$installed" || missing+=("$package")
  done
  ((${#missing[@]})) || return 0

  say "Installing the packages ${missing[*]}"
  apt_install "${missing[@]}" >&2 </dev/null ||
    require_tools "could not install them; as root: apt-get install ${missing[*]}"
}

# The package lists may be absent (a fresh container) or outdated.
apt_install() {
  local as_root=()
  if [[ $EUID -ne 0 ]]; then
    command -v sudo >/dev/null || return 1
    as_root=(sudo)
  fi
  local install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive
    apt-get install -y -qq --no-install-recommends "$@")
  if "${install[@]}" --simulate >/dev/null 2>&1 && "${install[@]}"; then
    return
  fi
  "${as_root[@]}" apt-get update -qq && "${install[@]}"
}

# require_tools "what is missing": goes on with a warning if there is a compiler and CMake at all,
# and leaves it to CMake to name the library that is not there.
require_tools() {
  echo "warning: $1" >&2
  for tool in c++ cmake ninja; do
    command -v "$tool" >/dev/null || die "$tool is not installed"
  done
}

# configure PRESET: once; afterwards ninja sees by itself when CMake must run again.
# UNROLL_WERROR=ON in the environment makes warnings errors. A build directory that came here with a
# copy of the project starts afresh.
configure() {
  local build="$root/build/$1" options=()
  [[ -z ${UNROLL_WERROR:-} ]] || options=("-DUNROLL_WERROR=$UNROLL_WERROR")
  if ! grep -qsxF "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$build/CMakeCache.txt"; then
    options+=(--fresh)
  elif [[ -f $build/build.ninja && ${#options[@]} -eq 0 ]]; then
    return
  fi
  say "Configuring build/$1"
  (cd "$root" && cmake --preset "$1" "${options[@]}") >/dev/null </dev/null
}

# build PRESET [TARGET]
build() {
  say "Building ${2:-everything} in build/$1"
  for_preset "$1" cmake --build "$root/build/$1" --parallel "$(nproc)" ${2:+--target "$2"} \
    >&2 </dev/null
}

# run_tests PRESET
run_tests() {
  (cd "$root" && for_preset "$1" ctest --preset "$1")
}

# for_preset PRESET COMMAND...: the sanitizers of older compilers die at random where the kernel
# randomises addresses with more than 28 bits, so programs under them run without (if we may).
for_preset() {
  local command=("${@:2}")
  if [[ $1 =~ ^(sanitize|thread|fuzz)$ ]] && setarch --addr-no-randomize true 2>/dev/null; then
    command=(setarch --addr-no-randomize "${command[@]}")
  fi
  "${command[@]}"
}
