# Makes the tables of the lines that compare.sh gathered:
# section,peer,what,mode,T,B,I,H,threads,median_ms,min_ms,iterations

function median(list,    values, n, i, j, x) {
  n = split(list, values, " ")
  for (i = 2; i <= n; ++i) {
    x = values[i] + 0
    for (j = i - 1; j >= 1 && values[j] + 0 > x; --j) values[j + 1] = values[j]
    values[j + 1] = x
  }
  return values[int((n + 1) / 2)] + 0
}

function gates(what) { return what == "GRU" ? 3 : what == "RNN" ? 1 : 4 }

# A line of a table: what is the same on all sides, and how it begins.
function keep(section, line, text) {
  if (line in begins) return
  begins[line] = text
  lines[section] = lines[section] line "\n"
}

# One round of one side: its median, and its best run ("" where only one number is known).
function add(peer, line, x, best) {
  medians[peer, line] = medians[peer, line] " " x
  if (best != "" && (!((peer, line) in fastest) || better(line, best, fastest[peer, line])))
    fastest[peer, line] = best
}
function better(line, a, b) { return line ~ /^charlm/ ? a > b : a < b }

# "median" or "best" of all rounds of a side; "" if it was not measured.
function value(kind, peer, line) {
  if (kind == "best") return fastest[peer, line]
  return medians[peer, line] == "" ? "" : median(medians[peer, line])
}

# What a line is compared with. By hand there is an LSTM only. A cell of one's own has in libtorch the
# better one of its two forms beside it, and in oneDNN, where there is none, the fused LSTM.
function opponent(kind, peer, line,    other, a, b) {
  other = line
  if (peer == "by hand") {
    if (line !~ /LSTM/) return ""
    sub(/ (custom)?LSTM(_plain)?/, " handLSTM", other)
    return value(kind, "unroll", other)
  }
  if (line !~ / customLSTM/) return value(kind, peer, line)
  if (peer == "oneDNN") {
    sub(/ customLSTM(_plain)?/, " LSTM", other)
    return value(kind, peer, other)
  }
  sub(/ customLSTM(_plain)?/, " customLSTM", other)
  a = value(kind, peer, other)
  sub(/ customLSTM/, " customLSTM_plain", other)
  b = value(kind, peer, other)
  return a == "" || (b != "" && better(line, b, a)) ? b : a
}

function number(x) {
  return x == "" ? "" : sprintf(x < 1 ? "%.3f" : x < 10 ? "%.2f" : x < 1000 ? "%.1f" : "%.0f", x)
}

function ratio(line, ours, other) {
  if (ours == "" || other == "") return ""
  return sprintf("%.2f", line ~ /^charlm/ ? ours / other : other / ours)
}

# columns: what stands left of the numbers; share: whether to say how much of the peak ours reaches.
function table(section, title, columns, unit, sides, share,    n, names, i, k, count, list, line, ours, rule, best) {
  if (lines[section] == "") return
  n = split(sides, names, ", ")
  rule = columns
  gsub(/[^|]+/, " --- ", rule)
  printf "## %s\n\n| %s | unroll, %s |", title, columns, unit
  if (share) printf " of peak |"
  for (i = 1; i <= n; ++i) printf " %s | ratio |", names[i]
  printf "\n|%s| ---: |", rule
  if (share) printf " ---: |"
  for (i = 1; i <= n; ++i) printf " ---: | ---: |"
  printf "\n"
  count = split(lines[section], list, "\n")
  for (k = 1; k < count; ++k) {
    line = list[k]
    if (line ~ / handLSTM/) continue
    ours = value("median", "unroll", line)
    printf "| %s | %s |", begins[line], number(ours)
    if (share) printf " %s |", ours == "" ? "" : sprintf("%.0f %%", 100 * flops[line] / (ours * 1e6 * peak))
    for (i = 1; i <= n; ++i) {
      best = ratio(line, value("best", "unroll", line), opponent("best", names[i], line))
      printf " %s | %s%s |", number(opponent("median", names[i], line)),
        ratio(line, ours, opponent("median", names[i], line)), best == "" ? "" : " (" best ")"
    }
    printf "\n"
  }
  print ""
}

$1 == "peak" { peaks = peaks " " $5; isa = $4; next }
$1 == "round_trip" {
  trips = trips " " $3
  if (shortest == "" || $3 < shortest) shortest = $3
  if ($3 > longest) longest = $3
  next
}

# overhead,overhead,PEER,n=N,fwd+bwd X ns/op (min Y),fwd-with-graph X,inference X (2000 ops)
$1 == "overhead" {
  if ($4 !~ /^n=[0-9]+$/) next
  for (i = 5; i <= 7; ++i) {
    split($i, words, " ")
    line = "overhead " $4 " " words[1]
    keep("overhead", line, substr($4, 3) " | " words[1])
    add($3, line, words[2], "")
  }
  next
}

# ...,iterations,growth_mb,us_per_time_step
$1 == "memory" {
  if ($5 == 1000) {
    keep("memory", "memory " $3, $3)
    add($2, "memory " $3, $13, "")
  }
  next
}

{
  line = $1 " " $3 " " $5 "," $6 "," $7 "," $8 " " $9
  text = $3 " | " $5 ", " $6 ", " $7 ", " $8
  if ($1 == "stream") text = $3 " | " $8
  if ($1 == "charlm") text = $3 " | " $9
  keep($1, line, text)
  if ($1 == "charlm") {
    add($2, line, $5 * $6 / $10 * 1000, $5 * $6 / $11 * 1000)
  } else if ($1 == "stream") {
    add($2, line, $10 * 1000, $11 * 1000)
  } else {
    add($2, line, $10, $11)
  }
  flops[line] = ($1 == "fwd" ? 2 : 6) * $5 * $6 * ($7 + $8) * gates($3) * $8 / $9
}

END {
  peak = median(peaks)
  if (peak > 0)
    printf "Peak of one core, fused multiply-adds (%s), measured in this run: %.0f GFLOP/s.\n\n", isa, peak
  else
    peak = 1e-9
  if (trips != "")
    printf "A cache line's way from one core to the other and back, before each round with two threads:\n%d ns (median; %d to %d).\n\n", median(trips), shortest, longest
  print "Medians; a ratio above 1 says that unroll is better by that factor, and in parentheses stands the"
  print "ratio of the fastest runs. By hand: an LSTM on the library's own kernels, without a tape. A cell of"
  print "one's own (customLSTM) stands beside the better form of the same cell in libtorch, and beside"
  print "oneDNN's fused LSTM.\n"
  size = "what | T, B, I, H"
  table("train", "Training step, one thread", size, "ms", "by hand, libtorch, oneDNN", 1)
  table("train_nodx", "Training step, input without gradient, one thread", size, "ms", "by hand, libtorch", 0)
  table("threads", "Training step, two threads", size, "ms", "by hand, libtorch, oneDNN", 1)
  table("fwd", "Inference over a sequence, one thread", size, "ms", "by hand, libtorch, oneDNN", 1)
  table("stream", "One step of one sequence", "what | I = H", "us", "libtorch, oneDNN", 0)
  table("overhead", "One op on the tape, x = tanh(x) + c", "elements | what", "ns", "libtorch", 0)
  table("charlm", "Character language model", "what | threads", "tokens/s", "libtorch", 0)
  table("memory", "Memory of a training step at (1000, 16, 128, 128)", "what", "MB", "libtorch", 0)
}
