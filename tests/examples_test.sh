#!/usr/bin/env bash
# Runs small jobs of the example programs and looks at what they print and write.
#
# usage: examples_test.sh DIRECTORY-OF-THE-PROGRAMS TEST
set -euo pipefail
programs=$1
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() {
  echo "FAILED: $*" >&2
  exit 1
}
language_model() { "$programs/language_model" "$@"; }

# check "1.5 < 2" "what this means"
check() {
  awk "BEGIN { exit !($1) }" || fail "$2: $1"
}
# values FILE KEY: the values of a key in a file of JSON lines
values() {
  sed -n "s/.*\"$2\":\([^,}]*\).*/\1/p" "$1"
}
# What a training leaves that depends on no clock.
results() {
  values "$1" train_perplexity
  values "$1" valid_perplexity
}

# Two texts that are easy to learn, of 30 different characters or less.
head -c 6000 <(while :; do echo "the quick brown fox jumps over the lazy dog"; done) >fox.txt
head -c 800 fox.txt >valid.txt
small=(--text fox.txt --hidden 24 --embed 0 --batch 8 --steps 20 --quiet)
adam=("${small[@]}" --lr 0.01 --epochs 12)

every_cell_learns() {
  local cell gates
  for cell in rnn gru lstm; do
    language_model train "${adam[@]}" --cell $cell --valid valid.txt --test valid.txt \
      --log $cell.jsonl >$cell.out
    local -a train
    mapfile -t train < <(values $cell.jsonl train_perplexity)
    check "${#train[@]} == 13" "an object for each epoch and a last one"
    check "${train[0]} > 10" "the perplexity of an almost untrained $cell"
    check "${train[11]} < 1.6" "the training perplexity of a $cell"
    check "${train[11]} == ${train[12]}" "the last object repeats the last epoch"
    check "$(values $cell.jsonl test_perplexity) < 1.4" "the test perplexity of a $cell"
    [[ $(values $cell.jsonl final) == true ]] || fail "one object is the final one"
    case $cell in rnn) gates=1 ;; gru) gates=3 ;; lstm) gates=4 ;; esac
    # 27 letters and spaces, the line end and <unk>; weights and two biases; the output layer
    check "$(values $cell.jsonl parameters) == $gates * 24 * (29 + 24 + 2) + 29 * (24 + 1)" \
      "the parameters of a $cell"
  done
  # A second layer reads the first one's state, of the same size.
  language_model train "${small[@]}" --cell lstm --layers 2 --forget-bias 1 --epochs 2 --log deep.jsonl >deep.out
  check "$(values deep.jsonl parameters) == 4 * 24 * (29 + 24 + 2 + 24 + 24 + 2) + 29 * (24 + 1)" \
    "the parameters of two layers"
  [[ $(language_model generate --length 30 --temperature 0 | wc -c) -ge 30 ]] || fail "two layers do not write"
  [[ -s language_model.safetensors ]] || fail "the model was not saved"
  ! command -v gnuplot >/dev/null || grep -q '</svg>' language_model.svg || fail "no plot"
  [[ $(ls | wc -l) == 12 ]] || fail "files are left behind: $(ls)"
}

every_option_learns() {
  local options rates
  while read -r options; do
    # shellcheck disable=SC2086
    language_model train --text fox.txt --hidden 24 --embed 16 --quiet $options --log log.jsonl --save "" --plot "" >out
    check "$(values log.jsonl train_perplexity | tail -1) < 3" "the perplexity with $options"
    case $options in *--lr-decay*) rates=$(values log.jsonl learning_rate | tail -4 | xargs) ;; esac
  done <<'END'
--dropout 0.1 --sampling random --batch 8 --steps 20 --lr 0.01 --epochs 12
--clean letters --max-tokens 4000 --batch 8 --steps 20 --lr 0.01 --epochs 12
--optimizer sgd --lr 1 --init uniform:0.3 --batch 8 --steps 20 --epochs 12
--cell lstm --forget-bias 1 --lr 0.01 --lr-decay 0.5 --lr-decay-after 9 --batch 8 --epochs 12
--level word --batch 4 --steps 10 --lr 0.01 --epochs 12
--layers 2 --dropout 0.1 --batch 8 --steps 20 --lr 0.01 --epochs 15
END
  [[ $rates == "0.01 0.005 0.0025 0.00125" ]] || fail "the learning rates are $rates"
}

the_same_seed_gives_the_same_run() {
  language_model train "${adam[@]}" --dropout 0.2 --log a.jsonl >out
  language_model train "${adam[@]}" --dropout 0.2 --log b.jsonl >out
  language_model train "${adam[@]}" --dropout 0.2 --log c.jsonl --seed 1 >out
  [[ $(results a.jsonl) == "$(results b.jsonl)" ]] || fail "two runs differ"
  [[ $(results a.jsonl) != "$(results c.jsonl)" ]] || fail "the seed changes nothing"
}

an_interrupted_run_goes_on_as_if_nothing_had_happened() {
  local sampling long status
  for sampling in sequential random; do
    long=("${small[@]}" --layers 2 --epochs 40 --lr 0.01 --dropout 0.1 --sampling $sampling
      --valid valid.txt)
    language_model train "${long[@]}" --log whole.jsonl --save whole.safetensors >out
    "$programs/language_model" train "${long[@]}" --log parts.jsonl --save parts.safetensors >out &
    until [[ -s parts.jsonl ]]; do sleep 0.01; done
    kill -INT $!
    status=0
    wait $! || status=$?
    [[ $status == 130 ]] || fail "interrupted, it ended with $status: $(cat out)"
    grep -q "train --load parts.safetensors" out || fail "it does not say how to go on"
    check "$(wc -l <parts.jsonl) < 40" "epochs before the interruption"
    language_model train --load parts.safetensors --quiet >out
    [[ $(results whole.jsonl) == "$(results parts.jsonl)" ]] || fail "the two runs differ"
    for model in whole parts; do
      language_model generate --load $model.safetensors --length 200 >$model.txt
    done
    cmp whole.txt parts.txt || fail "the two models write differently"
    rm parts.jsonl
  done
  language_model train --load parts.safetensors --epochs 42 --quiet >out
  grep -q "After 42 epochs" out || fail "it does not go on beyond the first end"
}

generate_continues_a_prefix() {
  language_model train "${small[@]}" --lr 0.01 --epochs 30 >out
  write() { language_model generate --prefix "the quick" "$@"; }
  [[ $(write --temperature 0 --length 34) == "the quick brown fox jumps over the lazy dog" ]] ||
    fail "it learned something else: $(write --temperature 0 --length 34)"
  [[ $(write --temperature 3) == "$(write --temperature 3)" ]] || fail "a seed gives two texts"
  [[ $(write --temperature 3) != "$(write --temperature 3 --seed 1)" ]] || fail "seeds don't count"
  [[ $(write --temperature 3 --top-k 1) == "$(write --temperature 0)" ]] || fail "top-k 1"
  [[ $(write --temperature 3 --top-p 0.01) == "$(write --temperature 0)" ]] || fail "top-p 0.01"
  [[ $(write --length 0) == "the quick" ]] || fail "length 0"
  language_model generate --prefix "é" --length 3 2>err >out
  grep -q "1 of 1 tokens are not in the vocabulary, the first one is 'é'" err || fail "$(cat err)"
}

score_knows_the_language() {
  language_model train "${adam[@]}" >out
  printf 'the lazy dog\ngod yzal eht\n\n' | language_model score >scores
  [[ $(wc -l <scores) == 3 ]] || fail "a line for each line"
  check "$(awk 'NR == 1 { print $1 }' scores) > $(awk 'NR == 2 { print $1 }' scores) + 10" \
    "log-probabilities"
  check "$(awk 'NR == 1 { print $2 }' scores) < 3" "the perplexity of a line that it knows"
  [[ $(language_model score "the lazy dog") == "$(head -1 scores)" ]] || fail "an argument is a line"
  # The perplexity is exp(-log p / characters), to the printed digits.
  check "$(awk 'NR == 2 { d = log($2) * 12 + $1; print d < 0 ? -d : d }' scores) < 0.02" "perplexity"
  check "$(language_model eval --text valid.txt | awk '{ print $2 }') < 1.6" "eval"
}

# refuses CODE MESSAGE ARGUMENT...: of $program
program=language_model
refuses() {
  local code=$1 message=$2 status=0
  shift 2
  "$programs/$program" "$@" >out 2>err </dev/null || status=$?
  [[ $status == "$code" ]] || fail "'$*' ends with $status, not $code: $(cat err)"
  [[ $(cat err) == "$program: $message"* ]] || fail "'$*' says: $(cat err)"
}

mistakes_get_one_clear_error() {
  language_model train "${small[@]}" --epochs 1 --plot "" >out
  printf 'abc\xff' >latin.txt
  echo short >short.txt
  local before
  before=$(ls | grep -v -e out -e err; cksum language_model.safetensors)
  refuses 2 "--hidden: must be at least 1, not -1" --hidden -1
  refuses 2 "--lr: must be above 0, not nan" --lr nan
  refuses 2 "--cell: tree not in {rnn,gru,lstm}" train --cell tree
  refuses 2 "The following argument" --size 3
  refuses 2 "there is no command 'learn' among train, generate, eval, score" learn --hidden 8
  UNROLL_NUM_THREADS=none refuses 1 "UNROLL_NUM_THREADS must be a number from 1 to 4096, not 'none'"
  refuses 1 "cannot read 'none.txt'" --text none.txt
  refuses 1 "cannot read 'latin.txt'" --text latin.txt
  refuses 1 "short.txt: sequential_windows" --text short.txt
  refuses 2 "--layers: must be at least 1, not 0" --layers 0
  refuses 1 "--init none: expected uniform:A or normal:S" --init none
  refuses 1 "--forget-bias is for --cell lstm, not gru" --forget-bias 1
  refuses 1 "cannot write none/model: No such file or directory" --save none/model
  refuses 1 "cannot read 'none'" generate --load none
  refuses 1 "cannot read 'short.txt'" generate --load short.txt
  refuses 2 "--top-p: must be above 0, not 0" generate --top-p 0
  refuses 1 "sample: top_p must be above 0 and at most 1, but is 2" generate --top-p 2
  refuses 1 "language_model.safetensors has had its 1 epochs" --load language_model.safetensors
  refuses 1 "--hidden 25 does not fit language_model.safetensors, which has 24" \
    --load language_model.safetensors --epochs 2 --hidden 25
  refuses 1 "the loss is " "${small[@]}" --epochs 2 --optimizer sgd --lr 1e9 --clip 0
  [[ $(ls | grep -v -e out -e err; cksum language_model.safetensors) == "$before" ]] ||
    fail "a mistake changed a file: $(ls)"
}

without_gnuplot_there_is_a_warning() {
  PATH=/nonexistent "$programs/language_model" train "${small[@]}" --epochs 1 >out 2>err
  /usr/bin/env grep -q "^warning: no plot language_model.svg: gnuplot can't be started" err ||
    fail "$(/usr/bin/env cat err)"
  [[ -s language_model.safetensors && ! -e language_model.svg ]] || fail "$(/usr/bin/env ls)"
}

# A picture that cannot be written is an error, but costs nothing of what was learned.
a_full_disk_costs_the_picture_only() {
  command -v gnuplot >/dev/null || return 0
  local full="cannot write '/dev/full': No space left on device"
  refuses 1 "$full" "${small[@]}" --epochs 1 --log log --plot /dev/full
  [[ $(values log final) == true ]] || fail "the last line of the log is lost with the picture"
  grep -q "^After 1 epochs: " out || fail "the results are lost with the picture"
  language_model generate --length 5 >out || fail "the model is lost with the picture"
  program=memory_tasks
  refuses 1 "$full" --length 5 --cells gru --batches 1 --epochs 1 --quiet --plot /dev/full
  grep -q "^gru " out || fail "the results are lost with the picture"
  memory_tasks test >out || fail "the model is lost with the picture"
  program=monitor
  refuses 1 "$full" --length 4000 --quiet --plot /dev/full
  monitor watch --load monitor.safetensors --plot "" </dev/null >out || fail "the model is lost with the picture"
}

# A curve of one point, and one that never changes, are pictures too.
one_epoch_is_drawn_without_a_warning() {
  command -v gnuplot >/dev/null || return 0
  language_model train "${small[@]}" --epochs 1 --valid valid.txt --plot one.svg >out 2>err
  memory_tasks --length 5 --cells gru --batches 2 --epochs 1 --quiet --plot two.svg >out 2>>err
  [[ ! -s err ]] || fail "$(cat err)"
  grep -q '</svg>' one.svg && grep -q '</svg>' two.svg || fail "no picture"
}

every_example_takes_the_options_that_all_share() {
  local command option
  printf '\x38\0\0\0\0\0\0\0%-56s' '{"__metadata__":{"program":"somebody"}}' >other
  for program in "$root"/examples/*.cpp; do
    program=$(basename "$program" .cpp)
    command=train
    case $program in monitor) command=demo ;; rnn_from_scratch) command= ;; esac
    # shellcheck disable=SC2086
    "$programs/$program" $command --help >help
    for option in seed threads epochs log save load plot quiet; do
      grep -q -e "--$option" help || fail "$program $command has no --$option"
    done
    refuses 2 "--seed: must be at least 0, not -1" --seed -1
    refuses 2 "--threads: must be at least 0, not -1" --threads -1
    refuses 2 "--epochs: must be at least 1, not 0" --epochs 0
    refuses 2 "The following argument was not expected: --nonsense" --nonsense
    refuses 1 "cannot read 'none': No such file" $command --load none
    for option in log save plot heatmap gallery; do
      ! grep -q -e "--$option" help ||
        refuses 1 "cannot write none/file: No such file or directory" $command --$option none/file
    done
    : >empty
    refuses 1 "cannot read 'empty'" $command --load empty
    [[ $program == rnn_from_scratch ]] || # which asks for its tensors alone
      refuses 1 "other is of somebody, not of $program" $command --load other
  done
}

from_scratch_learns() {
  local sampling
  program=rnn_from_scratch
  refuses 1 "valid.txt: 782 letters and spaces are too few for --batch 32 --steps 35" --text valid.txt
  for sampling in sequential random; do
    "$programs/rnn_from_scratch" --text fox.txt --hidden 64 --batch 8 --steps 20 --epochs 60 \
      --max-tokens 4000 --sampling $sampling --prefix "the quick" >out 2>err
    check "$(sed -n 's/Training perplexity \([^ ]*\) .*/\1/p' out) < 1.2" "perplexity, $sampling"
    grep -q "After training:  the quick brown fox jumps over the lazy dog" out || fail "$(cat out)"
  done
  ! command -v gnuplot >/dev/null || grep -q '</svg>' rnn_from_scratch.svg || fail "no plot"
  local going_on=(--text fox.txt --batch 8 --steps 20 --max-tokens 4000 --load rnn_from_scratch.safetensors)
  "$programs/rnn_from_scratch" "${going_on[@]}" --hidden 64 --epochs 1 --save "" --log log --quiet >out
  check "$(values log train_perplexity) < 1.3" "the first epoch of a network that goes on"
  refuses 1 "rnn_from_scratch.safetensors: the state does not fit" "${going_on[@]}" --hidden 65
}

custom_operations_are_right_and_learn() {
  "$programs/custom_op" --epochs 4 --threads 1 --quiet --log log >out
  grep -q "^softsign and leaky_sum: first and second derivatives are right" out || fail "$(cat out)"
  grep -q 'the rule of "wrong_softsign" with inputs (5, 3) is wrong' out || fail "$(cat out)"
  check "$(sed -n 's/before training: \([^ ]*\) .*/\1/p' out) < 60" "the accuracy of a guess"
  check "$(sed -n 's/after training: \([^ ]*\) .*/\1/p' out) > 90" "the accuracy after training"
  check "$(values log accuracy | wc -l) == 5" "an object for each epoch and a last one"
}

sentiment() { "$programs/sentiment" "$@" --threads 1; }

sentiment_hears_what_order_and_negation_decide() {
  local language
  for language in english chinese; do
    sentiment --language $language --epochs 10 --quiet --log $language.jsonl --save $language.st >out
    check "$(values $language.jsonl test_accuracy) > 0.9" "accuracy on unseen patterns, $language"
    check "$(values $language.jsonl test_accuracy) > 0.2 + $(values $language.jsonl \
      test_accuracy_bag)" "accuracy beside that of a bag of words, $language"
    grep -q "^test  *[0-9.]*%  *[0-9.]*%$" out || fail "no table: $(cat out)"
  done
  printf 'The food was not bad\n\nthe film was not good\n' >lines
  [[ $(sentiment classify --load english.st <lines | awk '{ print $1 }' | xargs) == \
    "positive - negative" ]] || fail "$(sentiment classify --load english.st <lines)"
  [[ $(sentiment classify --load chinese.st "电影不好") == 负面* ]] || fail "a Chinese sentence"
  sentiment classify --load english.st "the pizza was good" 2>err >out
  grep -q "line 1: 1 of 4 tokens are not in the vocabulary, the first one is 'pizza'" err ||
    fail "$(cat err)"
}

sentiment_takes_files_and_names_what_is_wrong_in_them() {
  local label
  for label in a b c; do for i in 1 2 3 4; do printf '%s\tword%s x%s\n' $label $label $i; done; done >abc
  sentiment --train abc --dev abc --test abc --epochs 30 --quiet --log abc.jsonl >out
  check "$(values abc.jsonl test_accuracy) == 1" "three labels"
  ! command -v gnuplot >/dev/null || grep -q '</svg>' sentiment.svg || fail "no plot"
  program=sentiment
  printf 'a x\nb\n' >bad
  refuses 1 "bad: line 2: has a label, 'b', but no text" --train bad
  printf 'a x\n\nd y\n' >bad
  refuses 1 "bad: line 3: the label 'd' is not among those to learn: a, b, c" --train abc --dev bad
  printf 'a x\na y\n' >bad
  refuses 1 "bad has only one label" --train bad
  refuses 1 "cannot read 'none'" --train none
  refuses 1 "--dev and --test need --train" --dev abc
  refuses 2 "--language: latin not in {english,chinese}" --language latin
  refuses 1 "cannot read 'bad'" classify --load bad
  refuses 1 "sentiment.safetensors has had its 30 epochs" --load sentiment.safetensors
  refuses 1 "--hidden 3 does not fit sentiment.safetensors, which has 64" \
    --load sentiment.safetensors --epochs 31 --hidden 3
  refuses 1 "the loss is " --train abc --epochs 50 --lr 1e300 --save none.st
  [[ ! -e none.st ]] || fail "a failed training leaves a file"
  refuses 1 "cannot write /dev/full: No space left on device" --train abc --log /dev/full --save kept.st
  sentiment classify --load kept.st "worda xa" >out || fail "the model is lost with the log"
}

an_interrupted_training_goes_on_as_if_nothing_had_happened() {
  local status=0 options=(--hidden 16)
  "$programs/sentiment" "${options[@]}" --epochs 60 --log parts.jsonl --save parts.st --quiet >out &
  until [[ -s parts.jsonl ]]; do sleep 0.01; done
  kill -INT $!
  wait $! || status=$?
  [[ $status == 130 ]] || fail "interrupted, it ended with $status: $(cat out)"
  grep -q "train --load parts.st" out || fail "it does not say how to go on"
  local epochs
  epochs=$(wc -l <parts.jsonl)
  check "$epochs < 30" "epochs before the interruption"
  sentiment train --load parts.st --epochs $((epochs + 2)) --quiet >out
  sentiment "${options[@]}" --epochs $((epochs + 2)) --log whole.jsonl --save whole.st --quiet >out
  [[ $(values whole.jsonl train_loss) == "$(values parts.jsonl train_loss)" ]] ||
    fail "the two runs differ"
  [[ $(sentiment classify --load whole.st "the food was bad") == \
    "$(sentiment classify --load parts.st "the food was bad")" ]] || fail "the two models differ"
}

cloze() { "$programs/cloze" "$@" --threads 1; }

cloze_knows_more_from_both_sides() {
  cloze --epochs 5 --hidden 48 --batch 8 --quiet --log story.jsonl --save story >out
  check "$(values story.jsonl test_accuracy | tail -1) > 0.5" "accuracy from both sides"
  check "$(values story.jsonl test_accuracy | tail -1) > 0.15 + $(values story.jsonl \
    test_accuracy_left | tail -1)" "accuracy beside that from left to right"
  check "$(values story.jsonl test_perplexity) < $(values story.jsonl test_perplexity_left)" \
    "perplexity"
  grep -q "^both sides  *[0-9.]*% *[0-9.]*$" out || fail "no table: $(cat out)"
  cloze fill --load story "It w_s" >out
  grep -q "^  blank   5   both sides: [a-z] 0.[0-9]*" out || fail "$(cat out)"

  # The first word is told by the last one alone.
  local i word
  for i in {1..30}; do for word in cat dog sun sky; do echo "$word and $word"; done; done >twice
  cloze --text twice --level word --epochs 12 --quiet --log twice.jsonl >out
  check "$(values twice.jsonl test_accuracy | tail -1) == 1" "words told from the right"
  check "$(values twice.jsonl test_accuracy_left | tail -1) < 0.8" "words untold from the left"
  [[ $(cloze fill "___ and dog" "sun _ _" | grep -v blank) == "dog and dog
sun and sun" ]] || fail "$(cloze fill "___ and dog" "sun _ _")"
  [[ $(echo "_ and sky" | cloze fill | head -1) == "sky and sky" ]] || fail "lines on stdin"

  program=cloze
  refuses 1 "cannot read 'none'" --text none
  head -9 twice >short
  refuses 1 "short has less than ten lines" --text short
  printf 'a\n%.0s' {1..20} >same
  refuses 1 "same has less than two kinds of tokens" --text same
  refuses 1 "--level \"char\" does not fit cloze.safetensors, which has \"word\"" \
    --load cloze.safetensors --level char --epochs 13
}

forecast() { "$programs/forecast" "$@" --threads 1; }

# error MODEL COLUMN: from the table of forecast; columns 1 to 4 are 1, 4, 16 and 64 steps ahead
error() {
  sed -n "s/^$1  *\([0-9]\)/\1/p" out | awk "{ print \$$2 }"
}

forecast_beats_the_classics() {
  local cell
  forecast --length 1000 --hidden 16 --epochs 250 --batch 8 --lr 0.01 --quiet --log log.jsonl >out
  check "$(error persistence 1) > 0.25 && $(error persistence 1) < 0.31" \
    "persistence has the noise of both values"
  for cell in rnn gru lstm; do
    check "$(error $cell 1) < $(error 'AR(4), least squares' 1)" "one step ahead, $cell"
    check "$(error $cell 3) < 0.8 * $(error 'AR(4), least squares' 3)" "16 steps ahead, $cell"
    check "$(values log.jsonl ${cell}_valid | wc -l) == 250" "an object per epoch"
  done
  check "$(error 'AR(4), least squares' 1) < $(error 'Markov chain' 1)" "AR sees more than one value"
  check "$(error 'AR(4), gradient' 2) / $(error 'AR(4), least squares' 2) - 1 < 0.01" \
    "gradient descent finds the least squares"
  grep -q "beats persistence and beats AR(4)" out || fail "$(cat out)"
  ! command -v gnuplot >/dev/null || grep -q '</svg>' forecast.svg || fail "no plot"
}

forecast_says_when_it_does_not_win() {
  # Of a random walk, nothing beats the last value by much; an untrained network beats nothing.
  awk 'BEGIN { srand(3); for (i = 0; i < 400; ++i) print x += rand() - 0.5 }' >walk.csv
  forecast --csv walk.csv --steps 16 --cells gru --lr 1e-9 --epochs 1 --plot "" --quiet >out
  grep -q "One step ahead it does not beat persistence" out || fail "$(cat out)"
}

forecast_goes_on_from_a_file() {
  local options=(--series mackey-glass --length 600 --hidden 8 --steps 32 --batch 4 --plot "" --quiet)
  forecast "${options[@]}" --epochs 12 --save whole >whole.out
  forecast "${options[@]}" --epochs 5 --save part >out
  forecast train --load part --epochs 12 --quiet >out
  diff whole.out out || fail "the two runs differ"
  [[ $(forecast ahead --load whole --length 3 | wc -l) == 3 ]] || fail "three values ahead"
  forecast ahead --load whole >ahead
  [[ $(forecast ahead --load part) == "$(cat ahead)" ]] || fail "the two models differ"
  # Mackey and Glass stay between 0.2 and 1.4.
  check "$(awk '$1 < 0.2 || $1 > 1.4' ahead | wc -l) == 0" "values ahead: $(xargs <ahead)"
}

forecast_reads_csv_files() {
  program=forecast
  awk 'BEGIN { print "t;\"x, y\"\r"; for (i = 0; i < 300; ++i) print i ";" sin(i / 9) "\r" }' >s.csv
  local options=(--delimiter ";" --steps 16 --batch 4 --cells rnn --epochs 2 --plot "" --quiet)
  forecast --csv s.csv "${options[@]}" >out
  forecast --csv s.csv --column "x, y" "${options[@]}" | diff out - || fail "a column by its name"
  forecast --csv s.csv --column 2 "${options[@]}" | diff out - || fail "a column by its number"
  refuses 1 "--hidden 5 does not fit forecast.safetensors, which has 32" \
    --load forecast.safetensors --epochs 3 --hidden 5
  refuses 1 "forecast.safetensors has had its 2 epochs" --load forecast.safetensors
  sed -i '7s/.*/5;five\r/' s.csv
  refuses 1 "cannot read 's.csv': line 7: column '2' has 'five', which is no number" --csv s.csv \
    "${options[@]}"
  refuses 1 "cannot read 's.csv': there is no column 'z' among 't', 'x, y'" --csv s.csv \
    "${options[@]}" --column z
  (printf '1;2\n%.0s' {1..6} && echo 3) >ragged.csv
  refuses 1 "cannot read 'ragged.csv': line 7: 1 fields, where the first row has 2" \
    --csv ragged.csv "${options[@]}"
  head -50 s.csv | grep -v five >short.csv
  refuses 1 "short.csv: 48 values are too few" --csv short.csv "${options[@]}"
  refuses 1 "short.csv: 48 values are too few" ahead --csv short.csv
  printf '%d\n' {1..100} >row.csv
  refuses 1 "row.csv: 100 values are too few: --steps 64" --csv row.csv
  printf '%d\n' {1..300} >row.csv
  forecast --csv row.csv --cells rnn --epochs 1 --plot "" --quiet --save "" | grep -q "^300 values" ||
    fail "less values than a batch has"
  printf '0.1\n%.0s' {1..300} >five.csv
  refuses 1 "five.csv: StandardScaler: the 240 values are all the same" --csv five.csv
  refuses 1 "cannot read 'none.csv'" --csv none.csv
  refuses 2 "--cells: tree not in {rnn,gru,lstm}" --cells tree
  refuses 2 "--lr: must be above 0, not 0" --lr 0
  refuses 1 "cannot write none/model: No such file or directory" --save none/model
  refuses 1 "cannot write none/log: No such file or directory" --log none/log --epochs 1 --save ""
  refuses 1 "cannot read 'five.csv'" --load five.csv
}

ner() { "$programs/ner" "$@" --threads 1; }

ner_tells_persons_from_brands_by_their_context() {
  local options log
  while read -r options; do
    # shellcheck disable=SC2086
    ner $options --epochs 8 --quiet --log log --save model >out
    check "$(values log test_f1) > 0.9" "F1 on names that training has not, $options"
    check "$(values log test_f1) > 0.2 + $(values log test_f1_hmm)" "F1 beside an HMM, $options"
    check "$(values log test_f1_hmm_posteriors) > 0.4" "F1 of tags with the largest posteriors"
  done <<'END'
--language english
--language english --crf --char-hidden 8 --lower --batch 64
--language chinese --crf
END
  [[ $(ner tag --load model "林丰病了两天。" | xargs) == \
    "林 B-PER 丰 E-PER 病 O 了 O 两 O 天 O 。 O" ]] || fail "$(ner tag --load model "林丰病了两天。")"
}

# names FILE: the kind of each entity and its name, without what is no name in it
names() {
  awk -F'\t' -v join="$([[ $1 == *chinese* ]] || echo ' ')" '
    function end() { if (name != "") print kind " " name; name = "" }
    $2 ~ /^[BS]-/ { end(); name = $1; kind = substr($2, 3); next }
    $2 ~ /^[IME]-/ { name = name join $1; next }
    { end() }
    END { end() }' "$1" | sed 's/ Motors$//; s/ & Sons$//; s/公司$//' |
    awk '{ for (i = 2; i <= NF; ++i) print $1, $i }' | sort -u
}

ner_tests_on_names_that_training_has_not() {
  local language both
  for language in english chinese; do
    for part in train test; do names "$root/examples/data/ner.$language.$part.conll" >$part; done
    check "$(wc -l <test) > 100" "names of persons and brands"
    both=$(comm -12 <(cut -d' ' -f2 train | sort -u) <(cut -d' ' -f2 test | sort -u))
    [[ -z $both ]] || fail "$language: names in both parts: $both"
    # Many a name is a person here and a brand there: the word itself does not tell.
    check "$(cut -d' ' -f2 test | sort | uniq -d | wc -l) > 30" "names of both kinds, $language"
  done
}

ner_reads_the_shape_of_words_by_their_characters() {
  # Nothing but the ending says what a name is of, and those of the test part are new.
  awk 'function name(i) { return sprintf("%c%c%c", 65 + i % 23, 97 + i % 19, 97 + i % 17) }
    BEGIN { for (i = 0; i < 240; ++i) {
      file = i < 200 ? "shape.train" : "shape.test"
      if (i % 2) print name(i) "ino B-PER\ncame O\n" >file
      else print name(i) "co B-BRAND\ncame O\n" >file } }'
  local size
  for size in 0 8; do
    ner --train shape.train --test shape.test --char-hidden $size --epochs 15 --quiet --log $size.log >out
  done
  check "$(values 0.log test_f1) < 0.7" "words that are all unknown"
  check "$(values 8.log test_f1) > 0.95" "with their characters"
}

ner_takes_files_and_names_what_is_wrong_in_them() {
  # Tokens stand in the second column, plain tags in the third, entities as IOB1 in the fourth.
  local i
  for i in $(seq 40); do
    printf '1 Ann%d NN I-PER\n2 and CC O\n3 Bo%d NN I-PER\n4 Co NN B-PER\n5 sang VB O\n\n' "$i" "$i"
    printf '1 the DT O\n2 sea NN O\n3 sang VB O\n\n'
  done >iob1
  local columns=(--token-column 2 --epochs 10 --quiet --log log)
  ner --train iob1 --dev iob1 --test iob1 "${columns[@]}" --scheme IOB1 >out 2>err
  check "$(values log test_f1) == 1" "entities in the scheme IOB1"
  [[ ! -s err ]] || fail "$(cat err)"
  [[ $(ner tag "Dan and Bo Co sang" | awk '{ print $2 }' | xargs) == "I-PER O I-PER B-PER O" ]] ||
    fail "the tags are not IOB1: $(ner tag "Dan and Bo Co sang")"
  ner --train iob1 --dev iob1 --test iob1 "${columns[@]}" --scheme BIO --crf >out 2>err
  grep -q "^warning: 80 tags break the rules of BIO; they count as conlleval has it:$" err ||
    fail "$(cat err)"
  grep -q "^iob1: line 1: I-PER, but BIO has B-PER there$" err || fail "$(cat err)"
  ner --train iob1 --test iob1 "${columns[@]}" --column 3 --tags plain >out
  check "$(values log test_accuracy) == 1" "parts of speech"
  check "$(values log test_accuracy_hmm) > 0.9" "parts of speech by an HMM"
  grep -q "^test  BiLSTM  *100.0%$" out || fail "no table: $(cat out)"

  program=ner
  printf 'Ann B-PER\n\nsang\n' >bad
  refuses 1 "bad: line 3: has 1 column, but the token is in column 1 and the tag in column -1" \
    --train bad
  printf 'Ann B-PER\nsang VB\n' >bad
  refuses 1 "bad: line 2: 'VB' is no tag of entities" --train bad
  refuses 1 "bad: line 1: has 2 columns" --train bad --column 3 --tags plain
  printf '\n' >bad
  refuses 1 "bad has no sentence" --train iob1 "${columns[@]}" --scheme IOB1 --dev bad
  refuses 1 "--dev and --test need --train" --test iob1
  refuses 2 "--scheme: IOB not in {BIO,IOB1,BIOES,BMES}" --scheme IOB
  refuses 1 "--crf true does not fit ner.safetensors, which has false" \
    --load ner.safetensors --epochs 11 --crf
}

memory_tasks() { "$programs/memory_tasks" "$@" --threads 1; }

memory_tasks_are_solved_by_cells_with_gates() {
  memory_tasks --length 20 --hidden 32 --epochs 8 --quiet --log log.jsonl >out
  check "$(values log.jsonl baseline | tail -1) == 0.16666666666666666" "the variance of the sum"
  for cell in gru lstm; do
    check "$(values log.jsonl ${cell}_test_loss) < 0.1667 / 10" "the loss of a $cell"
    check "$(values log.jsonl ${cell}_test_accuracy) > 0.8" "sums that a $cell has right"
    grep -q "^$cell .* solved$" out || fail "it does not say that a $cell has solved it: $(cat out)"
  done
  [[ $(values log.jsonl final) == true ]] || fail "one object is the final one"
  ! command -v gnuplot >/dev/null || grep -q '</svg>' memory_tasks.svg || fail "no plot"
  check "$(memory_tasks test --length 30 | awk '$1 == "gru" { print $3 }') < 0.1667 / 3" \
    "the loss of a GRU on longer sequences"

  memory_tasks --task copy --length 2 --hidden 48 --cells gru --epochs 12 --quiet --save copy.st \
    --log copy.jsonl >out
  check "($(values copy.jsonl baseline) - 10 * log(8) / 22) ^ 2 < 1e-12" "the baseline of copy memory"
  check "$(values copy.jsonl gru_test_loss) < 0.8 * $(values copy.jsonl baseline)" "copy memory"
  program=memory_tasks
  refuses 1 "--task \"adding\" does not fit copy.st, which has \"copy\"" --load copy.st --task adding
  refuses 1 "copy.st has had its 12 epochs" --load copy.st
  refuses 2 "--length: must be at least 2, not 1" --length 1
  refuses 2 "--cells: tree not in {rnn,gru,lstm}" --cells tree
}

an_interrupted_comparison_goes_on_as_if_nothing_had_happened() {
  local status=0 options=(--length 10 --hidden 8 --batches 20 --quiet)
  "$programs/memory_tasks" "${options[@]}" --epochs 500 --log parts.jsonl --save parts.st >out &
  until [[ -s parts.jsonl ]]; do sleep 0.01; done
  kill -INT $!
  wait $! || status=$?
  [[ $status == 130 ]] || fail "interrupted, it ended with $status: $(cat out)"
  grep -q "train --load parts.st" out || fail "it does not say how to go on"
  local epochs
  epochs=$(wc -l <parts.jsonl)
  check "$epochs < 400" "epochs before the interruption"
  memory_tasks train --load parts.st --epochs $((epochs + 2)) --quiet >out
  memory_tasks "${options[@]}" --epochs $((epochs + 2)) --log whole.jsonl >out
  for cell in rnn gru lstm; do
    [[ $(values whole.jsonl ${cell}_loss) == "$(values parts.jsonl ${cell}_loss)" ]] ||
      fail "the two runs of a $cell differ"
  done
}

monitor() { "$programs/monitor" "$@"; }

# of MODEL COLUMN: from the table of monitor; its columns are error, precision and recall
of() {
  awk "\$1 == \"$1\" { print \$$2 }" out
}

monitor_finds_faults() {
  monitor --length 10000 --quiet --save "" --log log.jsonl >out
  check "$(of network 2) < 0.75 * $(of persistence 2)" "the errors of a network that learned"
  check "$(of network 3) > 0.9 && $(of network 4) > 0.8" "precision and recall"
  check "$(of network 4) > $(of persistence 4)" "recall beside that of persistence"
  ! command -v gnuplot >/dev/null || grep -q '</svg>' monitor.svg || fail "no plot"
  # The same through a pipe: what the demonstration does inside.
  monitor generate --length 10000 >values
  monitor watch --save "" --plot "" <values >watched
  diff <(grep -A 9 "  error  precision" out) <(grep -A 9 "  error  precision" watched) ||
    fail "another table: $(cat watched)"
  check "$(of network 3) == $(printf %.3f "$(values log.jsonl precision)")" "precision in the log"
  check "$(of network 4) == $(printf %.3f "$(values log.jsonl recall)")" "recall in the log"
  check "$(grep -c ^ALARM watched) == $(values log.jsonl alarms)" "a line for each alarm"
  check "$(values log.jsonl microseconds) > 0" "microseconds per value"
}

monitor_needs_no_more_memory_for_a_longer_stream() {
  monitor --length 2000 --quiet --save "" --plot "" --log short.jsonl >out
  monitor --length 20000 --quiet --save "" --plot "" --log long.jsonl >out
  check "$(values short.jsonl peak_bytes) == $(values long.jsonl peak_bytes)" "bytes of tensors"
}

monitor_survives_malformed_lines() {
  monitor generate --length 3000 >good
  monitor watch --save "" --plot "" <good >expected
  check "$(grep -c ^ALARM expected) > 3" "there are alarms to compare"
  awk '{ print } NR == 700 { print "abc"; print ""; print "nan"; print "1 2"; print "1e300" }' good >bad
  printf 'a\xff\x01b\r\n' >>bad
  head -c 300000 /dev/zero | tr '\0' 7 >>bad
  monitor watch --save "" --plot "" --log log.jsonl <bad >out 2>err
  diff <(sed 's/ALARM line [0-9]*/ALARM/; s/0 malformed.*//' expected | grep -v us) \
    <(sed 's/ALARM line [0-9]*/ALARM/; s/7 malformed.*//' out | grep -v us) || fail "other alarms"
  grep -q "^3,000 values, 7 malformed lines" out || fail "$(cat out)"
  [[ $(wc -l <err) == 7 ]] || fail "a line for each: $(cat err)"
  grep -q "^warning: line 701: 'abc' is no number$" err || fail "$(cat err)"
  grep -q "^warning: line 3006: 'a??b' is no number$" err || fail "$(cat err)"
  grep -q "^warning: line 3007: '7\{40\}...' is no number$" err || fail "$(cat err)"
  check "$(values log.jsonl malformed | wc -l) == 8" "malformed lines in the log, and their number"
  monitor watch --plot "" </dev/null | grep -q "^0 values, 0 malformed lines, 0 alarms" ||
    fail "an empty stream"
  monitor watch --plot "" --save "" < <(printf "5\n%.0s" {1..2000}) >out
  grep -q "^2,000 values, 0 malformed lines, 0 alarms" out || fail "what never changes: $(cat out)"
}

monitor_learns_from_the_past() {
  monitor generate --length 2000 >all
  head -1000 all >past.csv
  (sed -n '1001,1003p' all; echo 50) >now
  monitor watch --history past.csv --epochs 3 --log log --save "" --plot "" <now >out 2>err
  grep -q "^ALARM line 4: 50, expected" out || fail "it does not know what is usual: $(cat out)"
  check "$(values log error | wc -l) == 3" "an object for each time through the past"
  check "$(values log error | tail -1) < 0.8 * $(values log error | head -1)" "it learned the past"
  program=monitor
  refuses 2 "--epochs requires --history" watch --epochs 2
  sed -i '7s/.*/five/' past.csv
  refuses 1 "cannot read 'past.csv': line 7: column '1' has 'five', which is no number" watch \
    --history past.csv
}

monitor_goes_on_with_what_it_saved() {
  monitor generate --length 2400 >values
  # Interrupted while it waits for the next line.
  mkfifo pipe
  "$programs/monitor" watch --plot "" --log first.jsonl <pipe >first.out &
  exec 3>pipe
  head -1200 values >&3
  until [[ $(values first.jsonl line | wc -l) -gt 0 ]]; do sleep 0.01; done
  sleep 0.3
  kill -INT $!
  local status=0
  wait $! || status=$?
  exec 3>&-
  [[ $status == 130 ]] || fail "interrupted, it ended with $status: $(cat first.out)"
  grep -q "^1,200 values.*Saved monitor.safetensors" first.out || fail "$(cat first.out)"
  # No second warm-up: a fault right at the start is seen.
  (sed -n '1201,1203p' values; echo 50) | monitor watch --load monitor.safetensors --save "" --plot "" >out
  grep -q "^ALARM line 4: 50, expected" out || fail "it has forgotten what is usual: $(cat out)"
  program=monitor
  refuses 1 "cannot read 'none'" watch --load none
  refuses 1 "cannot read 'values'" watch --load values
  refuses 1 "--hidden 3 does not fit monitor.safetensors, which has 16" watch --load monitor.safetensors --hidden 3
  refuses 1 "cannot write none/model: No such file or directory" --save none/model
  refuses 1 "cannot write none/plot: No such file or directory" --plot none/plot
  refuses 1 "cannot write none/log: No such file or directory" --log none/log
  refuses 2 "--limit: must be above 0, not -1" --limit -1
  # What was learned is not lost where the log cannot be written.
  rm monitor.safetensors
  monitor watch --log /dev/full --plot "" <values >out 2>err && fail "the disk is full"
  grep -q "^monitor: cannot write /dev/full: No space left on device" err || fail "$(cat err)"
  (sed -n '1022,1100p' values; echo 50) | monitor watch --load monitor.safetensors --log "" --plot "" >out
  grep -q "^ALARM line 80: 50, expected" out || fail "what it had learned is lost: $(cat out)"
}

translate() { "$programs/translate" "$@" --threads 1; }

translate_learns_number_words_and_shows_what_it_looks_at() {
  translate --epochs 20 --quiet --log log.jsonl >out
  check "$(values log.jsonl greedy_exact) > 0.95" "exact match on numbers that it has not seen"
  check "$(values log.jsonl beam_exact) > 0.95" "... with beam search"
  check "$(values log.jsonl beam_bleu4) > 0.2 + $(values log.jsonl word_for_word_bleu4)" "BLEU-4"
  check "$(values log.jsonl valid_loss | tail -1) < 0.1" "the loss per token"
  grep -q "^beam search, 4 wide  *[0-9.]* %  *[0-9.]*  *[0-9.]*$" out || fail "no table: $(cat out)"
  [[ $(translate translate "Four thousand") == "quatre mille" ]] || fail "4,000"
  printf 'forty-two\n\ntwo hundred and ten\n' | translate translate --beam 1 >lines
  [[ $(cat lines) == $'quarante-deux\n\ndeux cent dix' ]] || fail "lines: $(cat lines)"
  translate translate "five apples" --heatmap five.svg 2>err >out
  grep -q "line 1: 1 of 2 tokens are not in the vocabulary, the first one is 'apples'" err ||
    fail "$(cat err)"
  ! command -v gnuplot >/dev/null || {
    grep -q '</svg>' translate.svg || fail "no plot"
    grep -q 'hundred' translate_attention.svg || fail "no heatmap"
    grep -q '&lt;unk>' five.svg || fail "no heatmap of a line"
  }
  printf 'forty-two\tquarante-deux\nten\tdouze\n' >pairs
  translate eval --pairs pairs >out
  grep -q "^2 given sentences" out && grep -q "^greedy search  *50.0 %" out || fail "$(cat out)"
}

translate_takes_every_option() {
  local options
  translate --bundled phrases --max-pairs 150 --hold-out 0 --epochs 1 --quiet --save "" >out
  grep -q "^150 training sentences" out || fail "150 phrases: $(cat out)"
  head -60 "$root/examples/data/phrases.tsv" >pairs
  cut -f1 pairs >en
  cut -f2 pairs >fr
  while read -r options; do
    # shellcheck disable=SC2086
    translate $options --source en --target fr --valid-pairs pairs --test-source en --test-target fr \
      --batch 16 --quiet --hidden 32 --embed 24 --log log.jsonl >out 2>err
    check "$(values log.jsonl beam_bleu4) > 0.3 + $(values log.jsonl word_for_word_bleu4)" "$options"
    check "$(values log.jsonl valid_loss | tail -1) < 0.7" "validation with $options"
  done <<'END'
--cell rnn --attention none --layers 2 --dropout 0.1 --lr 0.003 --epochs 80
--cell gru --attention dot --bidirectional --beam 2 --length-penalty 0 --lr 0.01 --epochs 40
--cell lstm --attention general --layers 2 --bidirectional --keep-case --lr 0.01 --epochs 40
--attention additive --level char --min-freq 2 --lr 0.01 --epochs 40
END
  translate --pairs pairs --max-length 6 --epochs 1 --quiet --hold-out 0 2>err >out
  grep -q "^warning: [0-9]* sentences have more than 6 tokens and are not learned" err || fail "$(cat err)"

  translate --pairs pairs --epochs 4 --quiet --log whole.jsonl --save whole.st >out
  translate --pairs pairs --epochs 2 --quiet --log parts.jsonl --save parts.st >out
  translate train --load parts.st --epochs 4 --quiet >out
  [[ $(values whole.jsonl train_loss | tail -1) == "$(values parts.jsonl train_loss | tail -1)" ]] ||
    fail "a training in two parts differs"
}

translate_names_what_is_wrong_in_its_files() {
  program=translate
  printf 'Go.\tVa !\nRun.\n' >bad
  refuses 1 "cannot read 'bad': line 2: there is no tab between source and target" --pairs bad
  printf 'Go.\n' >en
  refuses 1 "'bad' has 2 lines, but 'en' has 1" --source bad --target en
  refuses 1 "--source and --target go together" --source en
  refuses 1 "--valid-pairs or --valid-source and --valid-target, not both" \
    --valid-pairs bad --valid-source bad --valid-target bad
  : >empty
  refuses 1 "empty has no pair" --pairs empty
  printf 'Go on, now.\tVa !\n' >long
  refuses 1 "there is nothing to learn: try a larger --max-length" --pairs long --max-length 2
  refuses 2 "--attention: loud not in {none,additive,general,dot}" --attention loud
  refuses 2 "--beam: must be at least 1, not 0" --beam 0
  refuses 1 "cannot write none/map.svg" --heatmap none/map.svg
  refuses 1 "cannot read 'bad'" translate --load bad "Go."
  translate --max-pairs 20 --epochs 1 --attention none --quiet >out 2>err
  refuses 1 "line 1: --heatmap: this model has no attention" translate two --heatmap x.svg
  refuses 1 "eval: --pairs, or --source and --target" eval
  refuses 1 '--attention "dot" does not fit translate.safetensors, which has "none"' \
    --load translate.safetensors --epochs 2 --attention dot
}

ngram() { "$programs/ngram" "$@" --threads 1; }

# of_order ORDER COLUMN: from the table of ngram; columns are the perplexities of train and valid
of_order() {
  sed -n "s/^order $1 ([^)]*) *//p" out | awk "{ print \$$2 }"
}

ngram_stands_beside_the_network() {
  # Half of the lines are of the one kind, half of the other; which one it is the first word tells.
  awk 'BEGIN { srand(1); for (i = 0; i < 500; ++i)
    print rand() < 0.5 ? "ada sees the old river" : "bob sees the new bridge" }' >text
  local options=(--hidden 48 --epochs 20 --batch 8 --steps 30 --lr 0.01 --quiet)
  ngram --text text "${options[@]}" --log log.jsonl >out
  local order
  for order in 1 2 3; do
    check "$(of_order $order 2) < $(of_order $((order - 1)) 2)" "order $order on what is held out"
  done
  check "$(of_order 0 2) > 8 && $(of_order 5 2) < 1.3" "perplexities"
  check "$(values log.jsonl valid_perplexity_gru) < $(of_order 2 2)" "the network beside order 2"
  check "$(values log.jsonl valid_perplexity_5) / $(of_order 5 2) < 1.01" "the log has the table"
  grep -q "^ *500 'sees' *500 'sees the'" out || fail "the most frequent: $(cat out)"
  ! command -v gnuplot >/dev/null || grep -q '</svg>' ngram.svg || fail "no plot"

  # An order of two letters cannot know by the end of the line how it began; the network can.
  ngram score "ada sees the old river" "ada sees the new bridge" "bridge new the sees ada" >out
  [[ $(wc -l <out) == 4 ]] || fail "a line for each, and a title: $(cat out)"
  check "$(awk 'NR == 2 { a = $7 } NR == 3 { b = $7 } NR == 4 { c = $7 } END { print a - b, b - c }' \
    out | awk '{ print ($1 > 2) + ($2 > 2) }') == 2" "the network's log p: $(cat out)"
  check "$(awk 'NR == 2 { a = $6 } NR == 4 { c = $6 } END { print a - c }' out) > 5" "order 5"
  [[ $(printf 'ada\n\n' | ngram score | wc -l) == 3 ]] || fail "lines on stdin"
}

ngram_takes_a_model_of_language_model() {
  language_model train "${adam[@]}" --valid valid.txt --save lm >out
  check "$(language_model eval --load lm --text valid.txt | awk '{ print $2 }') > 1" "eval"
  ngram --network lm --order 2 >out
  local expected
  expected=$(language_model eval --load lm --text valid.txt | awk '{ print $2 }')
  check "$(awk '/^gru/ { print $5 }' out) / $expected - 1 < 0.005" "the same network: $(cat out)"
  check "$(of_order 2 2) < $(of_order 0 2)" "the same text"
  [[ $(ngram score "the lazy dog" | awk 'NR == 2 { print $4 }') == \
    $(language_model score --load lm "the lazy dog" | awk '{ print $1 }') ]] || fail "other scores"
  # Chinese, by characters.
  awk 'BEGIN { for (i = 0; i < 200; ++i) print "他把伞放在门口" }' >zh
  ngram --text zh --count char --hidden 16 --epochs 3 --batch 4 --steps 10 --lr 0.01 --quiet >out
  grep -q "200 '他把'" out || fail "$(cat out)"
  ngram score "他把伞放在门口" "门口放在把伞他" >out
  check "$(awk 'NR == 2 { a = $3 } NR == 3 { b = $3 } END { print a - b }' out) > 5" "$(cat out)"
  program=ngram
  refuses 1 "cannot read 'none'" --text none
  refuses 1 "cannot read 'none'" --network none
  refuses 1 "cannot read 'zh'" score --load zh
  refuses 2 "--epsilon: must be above 0, not 0" --epsilon 0
  refuses 2 "--held-out: " --held-out 2
  printf 'abc\n%.0s' {1..20} >short
  refuses 1 "short: random_windows: a batch needs" --text short --plot ""
  echo a >short
  refuses 1 "short: the valid text has less than two tokens" --text short --plot ""
  printf 'a\xff\n' >bad
  refuses 1 "cannot read 'bad': line 1: invalid UTF-8" --text bad
}

caption() { "$programs/caption" "$@" --threads 1; }

caption_describes_combinations_that_it_has_not_seen() {
  caption --count 3000 --epochs 12 --quiet --log log.jsonl >out
  check "$(values log.jsonl unseen_exact | tail -1) > 0.3" "captions of unseen combinations"
  check "$(values log.jsonl seen_exact | tail -1) > 0.2 + $(values log.jsonl seen_nearest)" \
    "captions of seen combinations, beside those of the nearest pictures"
  check "$(values log.jsonl unseen_nearest) == 0" "there is no such caption to look up"
  grep -q "^unseen  *[0-9.]* %  *0.0 %$" out || fail "no table: $(cat out)"
  ! command -v gnuplot >/dev/null || grep -q 'a small' caption_pictures.svg || fail "no pictures"
}

# npy FILE SHAPE BYTE...: an array of unsigned bytes
npy() {
  local file=$1 header
  header="{'descr': '|u1', 'fortran_order': False, 'shape': ($2), }"
  shift 2
  printf '\x93NUMPY\x01\x00\x75\x00%-116s\n' "$header" >"$file"
  # shellcheck disable=SC2059
  printf "$(printf '\\x%02x' "$@")" >>"$file"
}

caption_takes_files() {
  npy two.npy "2, 2, 2, 3" 255 0 0 255 0 0 0 0 0 0 0 0 0 0 255 0 0 255 0 0 0 0 0 0
  printf 'red above\nblue above\n' >two
  caption --pictures two.npy --captions two --epochs 60 --lr 0.01 --quiet --plot "" --gallery "" >out
  [[ $(caption describe --pictures two.npy) == "$(cat two)" ]] || fail "$(cat out)"
  program=caption
  echo red >one
  refuses 1 "'two.npy' has 2 pictures, but 'one' has 1 lines" --pictures two.npy --captions one
  printf 'red\n\n' >one
  refuses 1 "cannot read 'one': line 2: there is no caption" --pictures two.npy --captions one
  refuses 1 "--pictures and --captions go together" --pictures two.npy
  refuses 1 "cannot read 'one': " --pictures one --captions two
  npy flat.npy "1, 4" 0 0 0 0
  refuses 1 "cannot read 'flat.npy': expected an array (pictures, height, width, 3)" describe \
    --pictures flat.npy
  npy small.npy "1, 2, 4, 3" {1..24}
  refuses 1 "'small.npy' has pictures of 24 numbers, but those to learn have 12" describe \
    --pictures small.npy
  refuses 2 "--pictures is required" describe
}

bptt() { "$programs/bptt" "$@" --threads 1; }

# entry NAME COLUMN: of a table that is in `out`
entry() {
  awk -v name="$1" -v column="$2" '$1 == name { print $column; exit }' out
}

bptt_by_hand_equals_the_tape() {
  bptt --parts gradients norms --length 60 --hidden 32 >out
  for gradient in dL/dW_ih dL/dW_hh dL/db_ih dL/db_hh dL/dW dL/db dL/dh_t dL/dx_t; do
    check "$(awk -v name=$gradient '$1 == name { print $(NF - 2) }' out) > 1e-6" "the norm of $gradient"
    check "$(awk -v name=$gradient '$1 == name { print $NF }' out) < 1e-14" "$gradient, by hand and by the tape"
  done
  # Vanishes, fades, explodes: by cell and radius, at the largest distance.
  last() { awk -v cell=$1 -v radius=$2 '$1 == cell && $2 == radius { print $NF }' out; }
  check "$(last RNN 0.5) < 1e-15 && $(last RNN 1) > 1e-4 && $(last RNN 1) < 1 && $(last RNN 1.5) > 5" \
    "the RNN's gradient at a distance"
  check "$(last GRU 0.5) < 1e-9 && $(last LSTM 0.5) < 1e-9" "the gradient of GRU and LSTM"
  ! command -v gnuplot >/dev/null || grep -q '</svg>' bptt_norms.svg || fail "no plot"
  ! command -v gnuplot >/dev/null || grep -q '</svg>' bptt_heatmap.svg || fail "no heatmap"
  bptt --parts norms --length 60 --hidden 32 --forget-bias 4 >out
  check "$(last LSTM 0.5) > 0.01" "the gradient of an LSTM with open forget gates"
}

bptt_shows_what_truncation_and_clipping_do() {
  bptt --parts truncation clipping --length 30 --hidden 32 --truncate 5 --epochs 8 --clip-epochs 25 \
    --quiet --log bptt.jsonl >out
  check "$(entry full 2) < 0.1667 / 10" "the loss with the full gradient"
  check "$(entry random 2) < 0.1667 / 2" "the loss with randomly truncated gradients"
  check "$(entry full 2) < $(entry truncated 2)" "truncation costs"
  check "$(entry truncated 4) < 0.7 * $(entry full 4)" "the memory of truncated backpropagation"
  check "$(entry clipped 2) < 0.13" "the loss with clipping"
  check "$(values bptt_clipping.jsonl clipped_norm | head -1) > 10" "gradients explode"
  [[ $(entry unclipped 2) == diverged ]] || check "$(entry unclipped 2) > $(entry clipped 2) + 0.02" \
    "the loss without clipping"
  ! command -v gnuplot >/dev/null || grep -q '</svg>' bptt_clipping.svg || fail "no plot"
  bptt train --load bptt_truncation.safetensors --epochs 9 --quiet >out
  check "$(entry full 2) < 0.1667 / 10" "it goes on"
  program=bptt
  refuses 2 "--parts: tree not in {gradients,norms,truncation,clipping}" --parts tree
  refuses 1 "Recurrent: random_truncate must be in [0, 1), but is 1" --parts truncation --random-truncate 1
  refuses 1 "bptt_clipping.safetensors has had its 25 epochs" --load bptt_clipping.safetensors
}

custom_cell() { "$programs/custom_cell" "$@" --threads 1; }

custom_cell_learns_beside_the_gru() {
  custom_cell --text fox.txt --hidden 32 --layers 2 --steps 30 --batches 20 --epochs 8 --lr 0.01 \
    --quiet --log log.jsonl >out
  for cell in gru mingru; do
    check "$(values log.jsonl ${cell}_perplexity) < 1.5" "the perplexity of a $cell"
    check "$(values log.jsonl ${cell}_tokens_per_second) > 0" "the speed of a $cell"
    grep -q "^$cell  *[0-9,]*  *[0-9.]*  *[0-9,]*  *[0-9.]*$" out || fail "no table: $(cat out)"
  done
  [[ $(custom_cell generate --prefix "the quick" --length 10 | grep -c "^the quick brown fox$") == 2 ]] ||
    fail "they write: $(custom_cell generate --prefix "the quick" --length 10)"
  check "$(awk '/^struct MinGRUCell/,/^};/' "$root/examples/custom_cell.cpp" | wc -l) < 25" \
    "the lines of the cell"
  program=custom_cell
  echo short >short.txt
  refuses 1 "short.txt has 6 characters, too few for --steps 64" --text short.txt
  refuses 1 "--prefix: a character or more to continue" generate --prefix ""
  refuses 1 "cannot read 'none.txt'" --text none.txt
}

# Whoever adds an example adds its page, its entry in README and its picture in the gallery.
every_example_is_in_the_lists() {
  local name page list gallery=$root/docs/examples/README.md
  list=$("$root/examples/run" --list)
  for name in "$root"/examples/*.cpp; do
    name=$(basename "$name" .cpp)
    page=$(sed -n "s|^- \\[$name\\](\\(docs/[^)]*\\.md\\)): .*|\\1|p" "$root/README.md")
    [[ -n $page && -s $root/$page ]] || fail "README has no page of $name: $page"
    grep -q "\[$name\]([^)]*$(basename "$page"))" "$gallery" || fail "the gallery has no $name"
    grep -q "examples/run $name" "$gallery" || fail "the gallery has no command for $name"
    grep -q "^  $name  *[A-Z]" <<<"$list" || fail "examples/run does not list $name"
  done
  local picture
  for page in "$root"/docs/examples/*.md; do
    while read -r picture; do
      grep -q '</svg>' "$(dirname "$page")/$picture" || fail "$page: there is no $picture"
    done < <(grep -o '!\[[^]]*\]([^)]*\.svg)' "$page" | sed 's/.*(//; s/)//')
  done
}

"$2"
