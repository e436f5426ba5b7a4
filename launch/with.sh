#!/usr/bin/env bash
# Runs a command with what JAX and XLA are told on a kind of machine:
#
#   launch/with.sh cpu|gpu|tpu COMMAND [ARGUMENT ...]
#
#   JAX_COMPILATION_CACHE_DIR=DIR   where compiled programs are kept, so that a restart
#                                   begins at once (default: ~/.cache/painformer/KIND)
#
# What is set already stays; flags that are set already come last and prevail. An XLA
# that does not know a flag ends the process: tests/launch/test_launch.py starts JAX
# with each of these.
set -euo pipefail

kind=${1:-}
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/painformer/$kind
case $kind in
  cpu)
    export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
    # Programs for one processor may not run on another that shares the home folder.
    cache=$cache-$(uname -n)
    ;;
  gpu)
    # Rather an error than a run that falls back to the CPU without a word, as JAX does
    # where 'cpu' is named too.
    export JAX_PLATFORMS=${JAX_PLATFORMS:-cuda}
    # Of each GPU's memory; JAX takes three quarters by default.
    export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}
    # Sums of gradients travel while others are still computed.
    export XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true ${XLA_FLAGS:-}"
    ;;
  tpu)
    export JAX_PLATFORMS=${JAX_PLATFORMS:-tpu,cpu}
    # The same for TPUs, as MaxText sets it for data parallelism; not measured here. They
    # are flags of the TPU's own compiler: in XLA_FLAGS they would end the process.
    export LIBTPU_INIT_ARGS="--xla_tpu_enable_data_parallel_all_reduce_opt=true\
 --xla_tpu_data_parallel_opt_different_sized_ops=true ${LIBTPU_INIT_ARGS:-}"
    ;;
esac
if [ -z "$kind" ] || [ -z "${JAX_PLATFORMS:-}" ] || [ $# -lt 2 ]; then
  sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$cache}
shift
exec "$@"
