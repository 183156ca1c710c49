# shellcheck shell=sh
# Runs the test binaries in a VM, for what takes this in: it has said where $tests are, which runs there are (`runs` prints
# NAME or NAME@PLACE, one in a line, where NAME is that of a binary or of an area of the suite), of which no more than a `part`
# is made, and how one is made (`run` NAME COMMAND…, with its output to /run/out, as its exit status). What they print goes to the second serial port, between the lines that begin with `===`, which table.py reads.
report=/dev/ttyS1
stty -F $report raw
say() { echo "=== $*" >$report; }

# A binary's tests, once more those that failed, each on its own. More than one runs at a time on one CPU too: most wait.
test_binary() {
  name=$1
  area=${name%@*}
  binary=$tests/deps/$area
  [ -e "$binary" ] || binary="env STOCKADE_TESTS_AREA=$area $tests/deps/suite"
  skip=$(cat "$tests/skip/$area" 2>/dev/null)
  start=$(date +%s)
  say "begin $name"
  binary_as_both "$name" $binary --test-threads 3 ${filter:-$(part "$name")} $skip
  ended=$?
  for test in $(sort -u /run/failed); do
    say "again $name $test"
    binary_as_both "$name" $binary --test-threads 3 --exact "$test"
    say "tried $?"
  done
  say "end $name $ended $(($(date +%s) - start))"
}

# As root and as the ordinary user: all binaries do both themselves but that of the library, whose harness is Rust's.
binary_as_both() {
  name=$1
  shift
  >/run/failed
  run "$name" "$@" --color never
  both=$?
  failures
  if [ "$name" = lib ]; then
    run "$name" setpriv --reuid 1000 --regid 1000 --clear-groups "$@" --color never || both=$?
    failures
  fi
  return $both
}

# Adds to the list of tests that failed.
failures() {
  sed -n 's/^test \([^ ]*\) .*FAILED$/\1/p' /run/out >>/run/failed
}

# All that have not ended yet, in an earlier boot.
test_binaries() {
  for name in $(runs); do
    grep -qxF "$name" "$tests/done" || test_binary "$name"
  done
  say finished
}
