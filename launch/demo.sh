#!/usr/bin/env bash
# Trains a small PainFormer on real recordings and prints what it learned.
#
#   launch/demo.sh                 small model; minutes on 2 CPU cores
#   launch/demo.sh --full          the 19.6 M-parameter model; hours on a CPU
#   RUNS=DIR launch/demo.sh        where data and results go (default: runs)
#
# Safe to stop and to repeat: it resumes where it was.
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/venv.sh"

config=configs/demo.py size=96 name=demo
case "${1:-}" in
  '') ;;
  --full) config=configs/demo.py:painformer size=224 name=demo-full ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
case ${RUNS:=$root/runs} in
  /*) runs=$RUNS ;;
  *) runs=$PWD/$RUNS ;;
esac

make_venv demo
cd -- "$root" >/dev/null
painformer() { "$venv/bin/python" -m painformer_jax "$@"; }
SECONDS=0
painformer data demo --data-dir "$runs/data-$size" --image-size "$size"
painformer pretrain --config "$config" --workdir "$runs/$name" \
  "--config.data_dir=$runs/data-$size"
painformer report "$runs/$name"
echo "All of it took $((SECONDS / 60)) min $((SECONDS % 60)) s after installation."
