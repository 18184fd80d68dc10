# All sides in one run: ours, by hand, libtorch and oneDNN, row by row and side by side
# Sourced by benchmarks/run, which has the functions.

compare_usage() {
  cat <<END
usage: benchmarks/run compare [OPTION...]

Measures the library and its peers alternately, several rounds of each line of the table, and prints
medians. The peers take part where they are installed.

  --with-peers     first install the Debian packages in benchmarks/peers/packages.txt
  --mode LIST      of $all_modes (default: all)
  --row LIST       only these rows of the grid, 0 to 5
  --what LIST      only these, such as LSTM,customLSTM
  --rounds N       (default: $rounds)
  --seconds S      to time each thing in each round (default: $seconds)
  --output FILE    write the page there as well (a run of everything: benchmarks/RESULTS.md)

For a quick look: benchmarks/run compare --mode train --row 0 --what LSTM --rounds 3
END
}

all_modes=train,train_nodx,threads,fwd,stream,overhead,charlm,memory
modes=$all_modes rows=0,1,2,3,4,5 rounds=3 seconds=0.3
whats='' output='' restricted='' with_peers=''
command="benchmarks/run compare $*"
while (($#)); do
  case $1 in
    --with-peers) with_peers=1 ;;
    --mode) modes=$2 restricted=1 && shift ;;
    --row) rows=$2 restricted=1 && shift ;;
    --what) whats=$2 restricted=1 && shift ;;
    --rounds) rounds=$2 && shift ;;
    --seconds) seconds=$2 && shift ;;
    --output) output=$2 && shift ;;
    -h | --help) compare_usage && exit ;;
    *) die "compare: there is no option '$1'; see benchmarks/run compare --help" ;;
  esac
  shift
done
[[ -n $output || -n $restricted ]] || output=$benchmarks/RESULTS.md
for mode in ${modes//,/ }; do
  [[ ,$all_modes, == *,$mode,* ]] || die "compare: there is no mode '$mode'; choose from $all_modes"
done

# --- Building ------------------------------------------------------------------------------------

[[ -z $with_peers ]] || install_packages "$benchmarks/peers/packages.txt"
install_packages packages.txt
configure benchmark
(cd "$root" && cmake --preset benchmark) >/dev/null </dev/null  # it may find new packages
build_programs {train,fwd,stream,overhead,charlm,memory,peak,round_trip}_benchmark
peers=()
for name in torch onednn; do
  if has_peer "$name"; then
    build_programs "${name}_peer"
    peers+=("$name")
  else
    say "$name is not installed and does not take part; --with-peers installs it"
  fi
done

# --- Measuring -----------------------------------------------------------------------------------

raw=$root/build/benchmark/compare.csv
: >"$raw"

# Whether --what asks for it.
wanted() { [[ -z $whats || ,$whats, == *,$1,* ]]; }

# once SECTION SIDE BENCHMARK ARGUMENT...: appends the lines of one run, each after its section.
once() {
  local section=$1 side=$2
  shift 2
  local run=(peer "$side")
  [[ $side != unroll ]] || run=(ours)
  "${run[@]}" "$@" --seconds "$seconds" | awk -F, -v section="$section" '
    $1 != "peer" && NF > 3 { print section "," $0 }' >>"$raw"
}

measure_peak() {
  ours peak --seconds 0.3 | awk -F, '$1 == "peak" { print "peak," $0 }' >>"$raw"
}

# On two cores, whatever UNROLL_CORE says. Virtual cores move between groups of cores that share a
# cache, so it is measured again and again.
measure_round_trip() {
  ours round_trip --threads 2 --seconds 0.01 | awk -F, '$1 == "round_trip" { print $0 }' >>"$raw"
}

# rounds_of SECTION SIDES ARGUMENT...: one line of a table.
rounds_of() {
  local section=$1 sides=$2 round side
  shift 2
  say "$section: $*"
  for ((round = 0; round < rounds; ++round)); do
    [[ $section != threads ]] || measure_round_trip
    for side in $sides; do
      if [[ $side == unroll || " ${peers[*]} " == *" $side "* ]]; then
        once "$section" "$side" "$@"
      fi
    done
  done
}

# over_grid SECTION BENCHMARK ARGUMENT...
over_grid() {
  local section=$1 row what sides
  shift
  for row in ${rows//,/ }; do
    measure_peak
    for what in LSTM customLSTM customLSTM_plain handLSTM GRU RNN; do
      wanted "$what" || continue
      sides="unroll torch onednn"
      [[ $what != custom* ]] || sides="unroll torch"
      [[ $what != hand* ]] || sides=unroll
      [[ $section != train_nodx ]] || sides=${sides/onednn/}
      rounds_of "$section" "$sides" "$@" --row "$row" --what "$what" --iterations 3
    done
  done
}

for mode in ${modes//,/ }; do
  case $mode in
    train | train_nodx) over_grid "$mode" train --mode "$mode" ;;
    threads) over_grid threads train --mode train --threads 2 ;;
    fwd) over_grid fwd fwd ;;
    stream)
      for what in LSTM LSTMCell customLSTM customLSTM_plain; do
        ! wanted "$what" || rounds_of stream "unroll torch onednn" stream --what "$what"
      done ;;
    overhead) rounds_of overhead "unroll torch" overhead ;;
    charlm)
      for what in LSTM customLSTM; do
        for threads in 1 2; do
          ! wanted "$what" || rounds_of charlm "unroll torch" charlm --what "$what" \
            --threads "$threads" --iterations 5
        done
      done ;;
    memory)
      for what in LSTM customLSTM; do
        ! wanted "$what" || rounds_of memory "unroll torch" memory --what "$what" --row 0 \
          --iterations 3
      done ;;
  esac
done

# --- The page ------------------------------------------------------------------------------------

version_of() { dpkg-query -W -f '${Version}' "$1" 2>/dev/null || echo "not installed"; }
revision=$(git -C "$root" describe --always --dirty 2>/dev/null || echo unknown)

tables() { awk -F, -f "$benchmarks/compare.awk" "$raw"; }

page() {
  cat <<END
# Results

    $command

made them on $(date -u +%Y-%m-%d), in $rounds rounds of $seconds s or more for each number.
[docs/benchmarks.md](../docs/benchmarks.md) says what is measured, and how the peers are tuned.

- Machine: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc --all) cores, Linux $(uname -r)
- Caches: $(lscpu -B -C=NAME,ONE-SIZE 2>/dev/null | awk 'NR > 1 { printf "%s%s %d KiB", comma, $1, $2 / 1024; comma = ", " }')
- Compiler: $(g++ --version | head -1)
- unroll: revision $revision
- libtorch $(version_of libtorch-dev), oneDNN $(version_of libdnnl-dev), OpenBLAS $(version_of libopenblas-dev), tcmalloc $(version_of libtcmalloc-minimal4)

END
  tables
}

tables
if [[ -n $output ]]; then
  page >"$output"
  say "Written: $output"
fi
