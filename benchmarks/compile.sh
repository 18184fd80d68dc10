# Seconds to compile programs that use the library, and the size of the library
# Sourced by benchmarks/run, which has the functions. --with-peers: torch/torch.h too, if installed.

build_programs unroll_modules unroll_optim unroll_data

# seconds FILE [OPTION...]: median of five compilations, without ccache.
seconds() {
  local file=$1 before times=()
  shift
  for _ in 1 2 3 4 5; do
    before=$EPOCHREALTIME
    on_cores 1 g++ -std=c++20 -O2 "$@" -c "$file" -o /dev/null || die "$file does not compile"
    times+=("$before $EPOCHREALTIME")
  done
  printf '%s\n' "${times[@]}" | awk '{ printf "%.2f\n", $2 - $1 }' | sort -n | sed -n 3p
}

echo "what,value,unit"
for file in "$benchmarks"/compile/*.cpp; do
  value=$(seconds "$file" -I "$root" -I "$root/build/benchmark/include")
  echo "compile $(basename "$file"),$value,s"
done
if [[ ${1:-} == --with-peers && -f /usr/include/torch/csrc/api/include/torch/torch.h ]]; then
  source=$(mktemp --suffix .cpp)
  printf '#include <torch/torch.h>\nint main() { torch::ones({2, 3}).sum(); }\n' >"$source"
  value=$(seconds "$source" -w -I /usr/include/torch/csrc/api/include)
  rm "$source"
  echo "compile torch/torch.h,$value,s"
fi

total=0
for library in "$root"/build/benchmark/libunroll_*.a; do
  stripped=$(mktemp)
  strip --strip-unneeded -o "$stripped" "$library"
  size=$(stat -c %s "$stripped")
  rm "$stripped"
  total=$((total + size))
  echo "$(basename "$library"),$((size / 1024)),KiB"
done
echo "all static libraries,$((total / 1024)),KiB"
