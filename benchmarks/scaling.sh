# Training steps with one thread and with two, and how much faster the second makes them
# Sourced by benchmarks/run, which has the functions.

build_programs train_benchmark
echo "what,T,B,I,H,one_thread_ms,two_threads_ms,ratio"
rows=$(seq 0 5)
arguments=()
while (($#)); do
  case $1 in
    --row) rows=$2 && shift ;;
    *) arguments+=("$1") ;;
  esac
  shift
done
for row in $rows; do
  for threads in 1 2; do
    ours train --row "$row" --mode train --threads "$threads" "${arguments[@]}" | sed 1d
  done | awk -F, '
    { key = $2 "," $4 "," $5 "," $6 "," $7; ms[key, $8] = $9 }
    $8 == 2 { printf "%s,%.3f,%.3f,%.2f\n", key, ms[key, 1], $9, ms[key, 1] / $9 }'
done
