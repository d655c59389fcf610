#!/usr/bin/env bash
# The figures that need a GPU, in under 9 minutes on one GPU machine with only the repository and its wheels:
#   smoke     imports, the rate of a large product cold and warm, copies                    (gpu_smoke.py)
#   tests     the tests that need a GPU: kernels, attention, waits of a step                (pytest -m gpu)
#   train     real text, one rank, loss falls, interrupted, resumed, exported               (gpu_train.py)
#   step      our step against transformers, and with each optimisation switched off        (gpu_step.py)
#   kernels   our kernels against PyTorch's                                                 (kernels.py)
#   zero      ZeRO stages 0 to 3                                                            (zero_stages.py)
#   sweep     tiles, warps and stages of our attention, next to PyTorch's                   (attention_sweep.py)
#   profile   where the time of a step goes, as a Chrome trace and a table                  (bench step)
#   reference ELECTRA-Small, three seeds of about eight minutes; only when asked, and last   (reference_curves.py)
#
#   benchmarks/gpu.sh [OUT]        tables to the terminal, and everything to OUT/*.txt and *.json (default: gpu-figures)
#   PYTHON=/path/to/python         the Python that has torch, deepspeed and transformers (default: .venv, else python3)
#   QUICK=1                        the smallest sizes, wherever this is: on a CPU too, to see that it runs
#   REFERENCE=1                    the part `reference` too, up to 40 minutes more; its text is in REFERENCE_DATA, which
#                                  `reference_text.py wikipedia` fills where there is a network (default: runs/reference-data)
#
# Each part has its own time limit, and one that fails does not keep the others from running; the exit status says so.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
out=${1:-gpu-figures}
mkdir -p "$out"
out=$(cd "$out" && pwd)
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export TORCHINDUCTOR_CACHE_DIR="${TORCHINDUCTOR_CACHE_DIR:-$out/inductor}"
failed=()

part() { # NAME SECONDS COMMAND...; FIGURES among them is the file of its figures
  local name=$1 seconds=$2 began=$SECONDS
  shift 2
  echo "== $name (at most $seconds s)"
  if ! timeout --kill-after=5 "$seconds" "${@/FIGURES/$out/$name.json}" 2>"$out/$name.log" | tee "$out/$name.txt"; then
    echo "$name failed or ran out of time; the end of $out/$name.log:"
    tail -n 15 "$out/$name.log"
    failed+=("$name")
  fi
  echo "   ($name: $((SECONDS - began)) s)"
}

if [ -n "${QUICK:-}" ]; then
  train=(--preset tiny --rows 8 --steps 40)
  step=(--cases tiny:32:4 --peers transformers --variants "head: all logits in memory" "attention: triton" --steps 1)
  zero=(--preset tiny --vocab-size 1000 --row-length 32 --micro-rows 2 --steps 1)
  kernels=(--quick)
  sweep=(--compile-only --head-size 32 --most 3)
  profile=(model.preset=tiny train.global_rows=4 train.micro_rows=4 data.row_length=32 train.device=cpu)
  limits=(100 200 300 400 400 200 100 100)
else
  "$PYTHON" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' ||
    { echo "PyTorch sees no GPU here; QUICK=1 runs the smallest sizes on a CPU" >&2; exit 2; }
  train=()
  step=(--seconds 80)
  zero=(--preset base --row-length 512 --micro-rows 32 --precision bf16)
  kernels=(--seconds 46)
  sweep=(--seconds 36)
  profile=(train.global_rows=64 train.micro_rows=64)
  limits=(30 90 70 125 80 65 42 38) # and 5 more each where TERM is not enough: 540 s and the import above at most
fi
part smoke "${limits[0]}" "$PYTHON" benchmarks/gpu_smoke.py --json FIGURES
part tests "${limits[1]}" "$PYTHON" -m pytest -m gpu -p no:cacheprovider -rs tests/model tests/train/test_host_sync.py
part train "${limits[2]}" "$PYTHON" benchmarks/gpu_train.py "${train[@]}" --json FIGURES
part step "${limits[3]}" "$PYTHON" benchmarks/gpu_step.py "${step[@]}" --json FIGURES
part zero "${limits[4]}" "$PYTHON" benchmarks/zero_stages.py "${zero[@]}" --json FIGURES
part kernels "${limits[5]}" "$PYTHON" benchmarks/kernels.py "${kernels[@]}" --json FIGURES
part sweep "${limits[6]}" "$PYTHON" benchmarks/attention_sweep.py "${sweep[@]}" --json FIGURES
part profile "${limits[7]}" "$PYTHON" -m electra_dist.cli bench step configs/base.yaml --synthetic --steps 3 --profile "$out/trace" "${profile[@]}"
if [ -n "${REFERENCE:-}" ]; then
  reference=(small-gpu --data "${REFERENCE_DATA:-runs/reference-data}")
  if [ -n "${QUICK:-}" ]; then
    reference=(benchmarks/reference-tiny.yaml --seeds 1 2 --data "$out/data")
  fi
  part reference 2400 "$PYTHON" benchmarks/reference_curves.py "${reference[@]}" --runs "$out/runs" --out "$out"
fi
echo "figures in $out"
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
