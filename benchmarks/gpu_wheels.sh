#!/usr/bin/env bash
# Wheels for a GPU machine without network, which has torch, transformers and numpy already: what it lacks to run the
# repository as it lies there, without installing it.
#
#   benchmarks/gpu_wheels.sh [FOLDER]      gather them (default: .wheels); needs network, and torch in PYTHON for DeepSpeed
#   there:  python3 -m pip install --no-index --no-deps --target /tmp/site .wheels/*.whl && export PYTHONPATH=/tmp/site
#
#   PYTHON=/path/to/python                 has torch, setuptools and pip (default: .venv, else python3)
#   TARGET=3.12                            the Python of the GPU machine
#   ALSO="wandb click ..."                 more packages, by name, each with its own needs named too
#
# Versions are those of constraints.txt. Nothing else may pull in torch: the GPU machine keeps its own.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-.wheels}
target=${TARGET:-3.12}
most_mib=40 # with the repository well below the 60 that are carried easily
needed=(pydantic pydantic_core annotated-types typing-inspection # the configuration
  webdataset braceexpand                                         # the shards
  hjson py-cpuinfo)                                              # DeepSpeed's own; ninja, msgpack, einops, psutil, tqdm are common
# shellcheck disable=SC2206
needed+=(${ALSO:-})

if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi
pinned() { # NAME: with its version; constraints.txt spells names as it likes
  awk -F== -v name="$1" 'function plain(x) { gsub(/[-_.]+/, "-", x); return tolower(x) }
    plain($1) == plain(name) { print; found = 1 } END { exit !found }' constraints.txt ||
    { echo "$1: not in constraints.txt" >&2; return 1; }
}

mkdir -p "$folder"
rm -f "$folder"/*.whl
requirements=()
for name in "${needed[@]}"; do
  requirement=$(pinned "$name")
  requirements+=("$requirement")
done
platforms=()
for platform in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do
  platforms+=(--platform "${platform}_x86_64")
done
"$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
  --python-version "$target" --implementation cp "${platforms[@]}" --dest "$folder" "${requirements[@]}"
# A source distribution; without compiled operators it is the same for every Python.
DS_BUILD_OPS=0 "$PYTHON" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
  --wheel-dir "$folder" "$(pinned deepspeed)"

bad=$(find "$folder" -name '*.whl' ! -name '*-any.whl' ! -name "*-cp${target/./}-*" ! -name '*-abi3-*')
[ -z "$bad" ] || { echo "not for Python $target: $bad" >&2; exit 1; }
mib=$(du --summarize --block-size=1M "$folder" | cut -f 1)
((mib <= most_mib)) || { echo "$folder: $mib MiB, more than $most_mib: leave something out" >&2; exit 1; }
echo "$(find "$folder" -name '*.whl' | wc -l) wheels, $mib MiB, in $folder"
