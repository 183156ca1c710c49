#!/bin/sh
# Runs `node --test` for each file in a sandbox of its own, as many at once as there are CPUs: each-file.sh FILE…
# STOCKADE is the command that runs a program in a sandbox, `stockade run` by default. Fails if a test fails.
set -eu
node=$(command -v node)
printf '%s\0' "$@" | xargs -0 -n 1 -P "$(nproc)" \
  ${STOCKADE:-stockade run} --profile test --ro "$PWD" --cwd "$PWD" -- "$node" --test
