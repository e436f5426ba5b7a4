#!/usr/bin/env bash
# Trains on a Cloud TPU slice, or on several (multi-slice), as TPU VMs.
#
#   launch/tpu_vm.sh run --config FILE --workdir /mnt/painformer/DIR [--config.KEY=VALUE ...]
#   launch/tpu_vm.sh log | stop | delete
#
#   NAME=painformer ZONE=us-west4-a           of the queued resource
#   TYPE=v5litepod-16 RUNTIME=v2-alpha-tpuv5-lite   what to ask for
#   SLICES=1                                  how many of them train together
#   SPOT=                                     not empty: machines that may be taken back
#   NFS=10.0.0.2:/share                       what all workers mount at /mnt/painformer
#
# `run` asks for the machines, waits for them, brings the committed code there, starts
# `painformer pretrain` on every worker and watches. Where the machines are taken back
# it asks for new ones, and the run goes on from its last checkpoint; on a worker,
# launch/train.sh starts again what died. It can be stopped (the training goes on) and
# repeated. `stop` saves and ends the training; `delete` gives the machines back.
# shellcheck disable=SC2016  # What is in single quotes, the workers expand.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

NAME=${NAME:-painformer} ZONE=${ZONE:-us-west4-a} TYPE=${TYPE:-v5litepod-16}
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite} SLICES=${SLICES:-1} PERIOD=${PERIOD:-60}
tpus=(gcloud compute tpus)
here=(--zone="$ZONE" --quiet)
if [ "$SLICES" = 1 ]; then
  nodes=("$NAME")
  shape=(--node-id="$NAME")
else
  nodes=()
  for ((i = 0; i < SLICES; i++)); do nodes+=("$NAME-$i"); done
  shape=(--node-count="$SLICES" --node-prefix="$NAME")
fi

say() { echo "tpu_vm.sh: $*" >&2; }

# Runs a command on every worker of every slice, the slices at the same time.
everywhere() {
  local node pids=() pid status=0
  for node in "${nodes[@]}"; do
    "${tpus[@]}" tpu-vm ssh "$node" "${here[@]}" --worker=all --command="$1" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
  return "$status"
}

first() { "${tpus[@]}" tpu-vm ssh "${nodes[0]}" "${here[@]}" --worker=0 --command="$1"; }

state() {
  local text
  if text=$("${tpus[@]}" queued-resources describe "$NAME" "${here[@]}" \
    --format='value(state.state)' 2>&1); then
    echo "$text"
  elif [[ $text == *NOT_FOUND* ]]; then
    echo ABSENT
  else
    echo "not known (${text##*$'\n'})"
  fi
}

create() {
  "${tpus[@]}" queued-resources create "$NAME" "${here[@]}" --accelerator-type="$TYPE" \
    --runtime-version="$RUNTIME" "${shape[@]}" ${SPOT:+--spot}
}

delete() { "${tpus[@]}" queued-resources delete "$NAME" "${here[@]}" --force; }

bring() {
  local node archive
  archive=$(mktemp)
  git archive --format=tar.gz -o "$archive" HEAD
  for node in "${nodes[@]}"; do
    "${tpus[@]}" tpu-vm scp "$archive" "$node:painformer.tgz" "${here[@]}" --worker=all
  done
  rm -f "$archive"
  everywhere "set -e
    mkdir -p painformer && tar xzf painformer.tgz -C painformer
    if ! mountpoint -q /mnt/painformer; then
      sudo mkdir -p /mnt/painformer
      sudo mount -t nfs '${NFS:?name what all workers mount, as NFS=10.0.0.2:/share}' /mnt/painformer
    fi
    cd painformer && bash -c '. launch/venv.sh; make_venv tpu'"
}

# On every worker, so that it outlives this connection; a worker that trains is left alone.
begin() {
  everywhere "cd painformer
    if ! { [ -e train.pid ] && kill -0 \$(cat train.pid); } 2>/dev/null; then
      KIND=tpu setsid nohup launch/train.sh --distributed $* >>train.log 2>&1 </dev/null &
      echo \$! >train.pid
    fi"
}

run() {
  local begun='' now arguments
  printf -v arguments '%q ' "$@"
  while :; do
    now=$(state)
    case $now in  # The states of a queued resource.
      ACTIVE)
        if [ -z "$begun" ]; then
          if bring && begin "$arguments"; then
            begun=1
            say "training began; launch/tpu_vm.sh log shows it"
          else
            say 'the workers are not all ready'
          fi
        elif first '! kill -0 "$(cat painformer/train.pid)"' 2>/dev/null; then
          first 'tail -n 3 painformer/train.log'
          say 'the first worker has ended; launch/tpu_vm.sh delete gives the machines back'
          return
        fi
        ;;
      ABSENT) begun='' && create ;;
      SUSPENDED | FAILED) begun='' && say "the machines are $now" && delete ;;
      *) say "the machines are $now" ;;
    esac
    sleep "$PERIOD"
  done
}

command=${1:-}
case $command in
  run) shift && run "$@" ;;
  log) first 'tail -n 50 -f painformer/train.log' ;;
  stop) everywhere 'kill -TERM "$(cat painformer/train.pid)"' ;;
  delete) delete ;;
  *) sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
esac
