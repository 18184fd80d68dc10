# Makes a test case of the C++ in a Markdown page: CONTRIBUTING.md, "A page with code", says how the
# blocks of a page hang together. Usage: awk -v page=docs/modules.md -f extract.awk FILE

function fail(message) {
  printf "error: %s:%d: %s\n", page, FNR, message > "/dev/stderr"
  failed = 1
  exit 1
}

# Where the compiler finds the lines that follow.
function place(line) { return "#line " line " \"" FILENAME "\"\n" }

function open_block(word) {
  if (word != "" && word != "global" && word != "excerpt") fail("cpp blocks may be 'global' or 'excerpt', not '" word "'")
  kind = word
  block = ""
  first = FNR + 1
  program = 0
}

function close_block() {
  if (kind == "excerpt") return
  ++blocks
  if (program) {  # in a namespace, main is a function like others: nothing returns 0 by itself
    sub(/}[ \n]*$/, "return 0; }\n", block)
    globals = globals "namespace program_" blocks " {\n" place(first) block "}\n"
    body[blocks] = "REQUIRE(program_" blocks "::main() == 0);\n"
  } else if (kind == "global") {
    globals = globals place(first) block
    body[blocks] = ""
  } else {
    body[blocks] = place(first) block
  }
}

BEGIN { state = "text" }

state == "text" && /^```cpp( |$)/ { state = "cpp"; open_block($2); next }
state == "text" && /^<!-- cpp( |$)/ { state = "hidden"; open_block($3); next }
state == "text" && /^```output$/ {
  if (!blocks || blocks in output) fail("an output block stands behind the block that prints it")
  state = "output"
  output[blocks] = ""
  output_line[blocks] = FNR
  next
}
state == "text" && /^```/ { state = "other"; next }
state == "hidden" && /^-->$/ { close_block(); state = "text"; next }
state != "text" && state != "hidden" && /^```$/ { if (state == "cpp") close_block(); state = "text"; next }
state == "output" { output[blocks] = output[blocks] $0 "\n"; next }
state == "cpp" || state == "hidden" {
  if (kind != "excerpt" && /^#include/) {
    includes = includes $0 "\n"
    $0 = ""
  }
  if (/^int main\(/) program = 1
  # x.shape();  // (4, 16)      x.size();  // 4
  if (match($0, /^ *[A-Za-z_][^ =]*\.(shape|size|dim|numel)\(\); *\/\/ (\([0-9, ]*\)|[0-9]+)/)) {
    split(substr($0, RSTART, RLENGTH), part, /; *\/\/ /)
    $0 = "CHECK(to_string(" part[1] ") == \"" part[2] "\");"
  }
  block = block $0 "\n"
}

END {
  if (failed) exit 1
  if (state != "text") fail("the page ends within a block")
  printf "// Made by tests/docs/extract.awk from %s.\n", page
  printf "%s#include <doctest/doctest.h>\n#include <unroll/unroll.h>\n\n#include \"tests/docs/page.h\"\n\n", includes
  printf "namespace {\nusing namespace unroll;\nusing std::to_string;\n\n%s\n", globals
  printf "TEST_CASE(\"%s\") {\nconst unroll::test::Directory directory(\"%s\");\n", page, page
  for (i = 1; i <= blocks; ++i) {
    if (i in output) printf "{\nunroll::test::Printed printed;\n%sprinted.check(R\"~(%s)~\", \"%s:%d\");\n", body[i], output[i], page, output_line[i]
    else printf "{\n%s", body[i]
    close_all = close_all "}"
  }
  printf "%s}\n\n}  // namespace\n", close_all
}
