# Makes tables of the lines that compare.sh gathered: section,peer,what,mode,T,B,I,H,threads,median_ms,...

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

# The median of a peer for a line of a table, or "" if it was not measured.
function value(peer, line,    list) {
  list = samples[peer, line]
  return list == "" ? "" : median(list)
}

# What a line is compared with. By hand there is an LSTM only. A cell of one's own has in libtorch the
# faster one of its two forms beside it, and in oneDNN, where there is none, the fused LSTM.
function comparable(peer, line,    form, a, b) {
  if (peer == "by hand") {
    if (line !~ /LSTM/) return ""
    form = line
    sub(/ (custom)?LSTM(_plain)?/, " handLSTM", form)
    return value("unroll", form)
  }
  if (line !~ / customLSTM/) return value(peer, line)
  form = line
  if (peer == "oneDNN") {
    sub(/ customLSTM(_plain)?/, " LSTM", form)
    return value(peer, form)
  }
  sub(/ customLSTM(_plain)?/, " customLSTM", form)
  a = value(peer, form)
  sub(/ customLSTM/, " customLSTM_plain", form)
  b = value(peer, form)
  return a == "" || (b != "" && b < a) ? b : a
}

function keep(line, section, text) {
  if (line in known) return
  known[line] = text
  lines[section] = lines[section] line "\n"
}

function add(peer, line, x) { samples[peer, line] = samples[peer, line] " " x }

$1 == "peak" { peaks = peaks " " $5; isa = $4; next }

$1 == "overhead" {
  # overhead,overhead,PEER,n=N,fwd+bwd X ns/op (min Y),fwd-with-graph X,inference X (2000 ops)
  if ($4 !~ /^n=/) next
  split($5, both, " ")
  split($6, graph, " ")
  split($7, inference, " ")
  n = split("forward and backward:" both[2] "|forward, recorded:" graph[2] "|inference:" inference[2], parts, "|")
  for (i = 1; i <= n; ++i) {
    split(parts[i], pair, ":")
    line = "overhead " $4 " " pair[1]
    keep(line, "overhead", "| " $4 ", " pair[1])
    add($3, line, pair[2])
  }
  next
}

$1 == "memory" {
  if ($5 != 1000) next
  line = "memory " $3
  keep(line, "memory", "| " $3)
  add($2, line, $12)
  next
}

{
  line = $1 " " $3 " " $5 "," $6 "," $7 "," $8 " " $9
  text = "| " $3 " | " $5 ", " $6 ", " $7 ", " $8
  if ($1 == "stream") text = "| " $3 " | " $8
  if ($1 == "charlm") text = "| " $3 " | " $9
  keep(line, $1, text)
  x = $10
  if ($1 == "stream") x *= 1000
  if ($1 == "charlm") x = $5 * $6 / $10 * 1000
  add($2, line, x)
  flops[line] = ($1 == "fwd" ? 2 : 6) * $5 * $6 * ($7 + $8) * gates($3) * $8 / $9
}

function number(x) {
  return x == "" ? "" : sprintf(x < 1 ? "%.3f" : x < 10 ? "%.2f" : x < 1000 ? "%.1f" : "%.0f", x)
}

# more: 1 where a larger number is better.
function ratio(ours, peer, more) {
  if (ours == "" || peer == "") return ""
  return sprintf("%.2f", more ? ours / peer : peer / ours)
}

# columns: the peers; others: what stands left of the numbers.
function table(section, title, others, columns, unit, more, share,
               n, names, i, k, list, count, ours, other, rule) {
  if (lines[section] == "") return
  print "## " title "\n"
  n = split(columns, names, ", ")
  rule = others
  gsub(/[^|]+/, " --- ", rule)
  printf "| %s | unroll, %s |", others, unit
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
    ours = value("unroll", line)
    printf "%s | %s |", known[line], number(ours)
    if (share) printf " %s |", ours == "" ? "" : sprintf("%.0f %%", 100 * flops[line] / (ours * 1e6 * peak))
    for (i = 1; i <= n; ++i) {
      other = comparable(names[i], line)
      printf " %s | %s |", number(other), ratio(ours, other, more)
    }
    printf "\n"
  }
  print ""
}

END {
  peak = median(peaks)
  if (peak == 0) peak = 1e-9
  else printf "Peak of one core, fused multiply-adds (%s), measured in this run: %.0f GFLOP/s.\n\n", isa, peak
  print "Medians. A ratio above 1 says that unroll is better by that factor. By hand: an LSTM on the library's"
  print "own kernels, without a tape. A cell of one's own (customLSTM) is compared with the faster form of the"
  print "same cell in libtorch, and with oneDNN's fused LSTM.\n"
  size = "what | T, B, I, H"
  table("train", "Training step, one thread", size, "by hand, libtorch, oneDNN", "ms", 0, 1)
  table("train_nodx", "Training step, input without gradient, one thread", size, "libtorch", "ms", 0, 0)
  table("threads", "Training step, two threads", size, "by hand, libtorch, oneDNN", "ms", 0, 1)
  table("fwd", "Inference over a sequence, one thread", size, "by hand, libtorch, oneDNN", "ms", 0, 1)
  table("stream", "One step of one sequence", "what | I = H", "libtorch, oneDNN", "us", 0, 0)
  table("overhead", "One op on the tape", "x = tanh(x) + c, n elements", "libtorch", "ns", 0, 0)
  table("charlm", "Character language model", "what | threads", "libtorch", "tokens/s", 1, 0)
  table("memory", "Memory of a training step at (1000, 16, 128, 128)", "what", "libtorch", "MB", 0, 0)
}
