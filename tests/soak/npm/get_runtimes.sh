#!/usr/bin/env bash
# Puts Node 22, Node 24 and Bun into FOLDER, and the packages that tests of the npm build need:
#   FOLDER/node22, node24, bun    a runtime each, as npm's packages `node` and `bun` carry it
#   FOLDER/tools                  TypeScript 5.9, and `webgpu`, which is Dawn for Node
# Needs npm and its registry. What is there already is left as it is.
# usage: get_runtimes.sh FOLDER
set -euo pipefail
out=${1:?usage: get_runtimes.sh FOLDER}

get() {
  local folder="$out/$1"
  shift
  [ -e "$folder/ready" ] && return
  mkdir -p "$folder"
  npm install --prefix "$folder" --silent --no-audit --no-fund --no-save "$@"
  touch "$folder/ready"
}

get node22 node@22.23.3
get node24 node@24.21.0
get bun bun@1.4.5
get tools typescript@5.9.3 webgpu@0.6.2
