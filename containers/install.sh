#!/usr/bin/env bash
# What both container recipes run inside of the image, as root, in this order:
#   install.sh system         compilers and Python from the distribution
#   install.sh dependencies   a virtual environment with the versions of constraints.txt
#   install.sh project        electra-dist itself, and a check that all of it can be imported
# It expects the files of the repository in /opt/electra-dist and leaves the environment in /opt/venv.
set -euo pipefail
source_folder=/opt/electra-dist
venv=/opt/venv

install_packages() {
  "$venv/bin/python" -m pip install --no-cache-dir --disable-pip-version-check \
    --constraint "$source_folder/constraints.txt" "$@"
}

system() { # Triton compiles small C programs when it runs, so the compiler and Python's headers stay in the image
  apt-get update
  DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
    g++ gcc python3 python3-dev python3-venv
  rm -rf /var/lib/apt/lists/*
}

dependencies() { # torch first: DeepSpeed imports it while it is built
  python3 -m venv "$venv"
  install_packages --upgrade pip setuptools wheel
  install_packages torch numpy
  check_cuda
  install_packages --no-build-isolation deepspeed
}

check_cuda() { # the toolkit of the base image must be of the same CUDA major version as torch
  local image torch
  image=$(/usr/local/cuda/bin/nvcc --version | sed -nE 's/.*release ([0-9]+)\..*/\1/p')
  torch=$("$venv/bin/python" -c 'import torch; print((torch.version.cuda or "none").partition(".")[0])')
  if [ "$image" != "$torch" ]; then
    echo "torch is built for CUDA $torch and the base image has CUDA $image: take another base image" >&2
    exit 1
  fi
}

project() {
  install_packages --no-build-isolation "${source_folder}[train,hf]"
  "$venv/bin/python" -c 'import deepspeed, torch, transformers, wandb, electra_dist.cli'
  "$venv/bin/electra-dist" --version
}

case "${1:-}" in
system | dependencies | project) "$1" ;;
*)
  echo "install.sh: expected system, dependencies or project, found '${1:-}'" >&2
  exit 2
  ;;
esac
