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
#   NFS=10.0.0.2:/share                       what all workers mount at /mnt/painformer,
#   BUCKET=NAME                               or a bucket with a hierarchical namespace
#   RESTARTS=100                              how often training is begun again
#   ATTEMPTS=5                                how often in a row workers may be not ready
#
# `run` asks for the machines, waits for them, brings the committed code there, starts
# `painformer pretrain` on every worker and watches. Where the machines are taken back
# it asks for new ones, and the run resumes from its last checkpoint; on a worker,
# launch/train.sh starts again what died. `run` ends with the exit status of the training
# where that is done (0), refused (2) or was stopped with `stop` (130), and with 1 where the
# workers could not be made ready; the machines are held all the same. It can be stopped
# (the training continues) and repeated. `stop` saves and ends the training; `delete` gives
# the machines back.
# shellcheck disable=SC2016  # What is in single quotes, the workers expand.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

NAME=${NAME:-painformer} ZONE=${ZONE:-us-west4-a} TYPE=${TYPE:-v5litepod-16}
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite} SLICES=${SLICES:-1} PERIOD=${PERIOD:-60}
ATTEMPTS=${ATTEMPTS:-5}
back='launch/tpu_vm.sh delete gives the machines back'
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

# Of the queued resource. One that says ACTIVE may have lost a slice: then of that.
state() {
  local text node lost
  if text=$("${tpus[@]}" queued-resources describe "$NAME" "${here[@]}" \
    --format='value(state.state)' 2>&1); then
    if [ "$text" = ACTIVE ]; then
      for node in "${nodes[@]}"; do
        lost=$("${tpus[@]}" tpu-vm describe "$node" "${here[@]}" \
          --format='value(state)' 2>/dev/null) || continue
        case $lost in PREEMPTED | TERMINATED) text=$lost ;; esac
      done
    fi
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

# What a worker does to mount what all share at /mnt/painformer. A new machine installs
# updates of its own first, and apt does not wait for itself.
lock=(-o DPkg::Lock::Timeout=600)
if [ -n "${BUCKET:-}" ]; then
  # - All workers see at once what one has written: nothing is kept of what was seen.
  # - Rows of metrics are in the bucket with every checkpoint: while gcsfuse streams what is
  #   written, fsync does not bring it there, only closing the file does.
  # - Without a hierarchical namespace a folder would be renamed file by file, and a kill
  #   could leave half a checkpoint: that is refused. On large machines gcsfuse allows it.
  gcsfuse=(gcsfuse --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0
    --enable-streaming-writes=false --rename-dir-limit=0 "$BUCKET" /mnt/painformer)
  # Not as root: only who mounts a bucket may use it.
  mount="
    if ! command -v gcsfuse >/dev/null; then
      curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg |
        sudo tee /usr/share/keyrings/cloud.google.asc >/dev/null
      echo \"deb [signed-by=/usr/share/keyrings/cloud.google.asc]\" \
        \"https://packages.cloud.google.com/apt gcsfuse-\$(lsb_release -cs) main\" |
        sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
      sudo apt-get update
      sudo apt-get install -y ${lock[*]} gcsfuse
    fi
    sudo chown \"\$(id -u)\" /mnt/painformer
    ${gcsfuse[*]}"
else
  # Who logs in without a terminal may not have the folders of root's programs in PATH.
  mount="
    if ! PATH=\$PATH:/sbin:/usr/sbin command -v mount.nfs >/dev/null; then
      sudo apt-get update
      sudo apt-get install -y ${lock[*]} nfs-common
    fi
    sudo mount -t nfs '${NFS:-}' /mnt/painformer"
fi

# What a worker does to have the environment. The Python of Ubuntu 22.04, which most images
# for TPU VMs are, is too old (3.10), and on others python3-venv may be missing.
# `--system`: not the one of an environment that is not whole and is to be made anew.
environment='. launch/venv.sh
  if ! whole && ! { python=$(find_python) && "$python" -c "import ensurepip"; } 2>/dev/null; then
    curl -LsSf https://astral.sh/uv/install.sh | sh
    ~/.local/bin/uv python install 3.12
    PYTHON=$(~/.local/bin/uv python find --system --managed-python 3.12)
    export PYTHON
  fi
  make_venv tpu'

# Where it is called, in a condition, `set -e` does not hold: older code would be started.
bring() (
  archive=$(mktemp) || exit
  trap 'rm -f "$archive"' EXIT
  git archive --format=tar.gz -o "$archive" HEAD || exit
  for node in "${nodes[@]}"; do
    "${tpus[@]}" tpu-vm scp "$archive" "$node:painformer.tgz" "${here[@]}" --worker=all || exit
  done
  everywhere "set -e
    mkdir -p painformer
    tar xzf painformer.tgz -C painformer
    if ! mountpoint -q /mnt/painformer; then
      sudo mkdir -p /mnt/painformer
      $mount
    fi
    cd painformer
    bash -euo pipefail -c '$environment'"
)

# On every worker, so that it outlives this connection; a worker that trains is left alone.
begin() {
  everywhere "cd painformer || exit
    if ! { [ -e train.pid ] && kill -0 \$(cat train.pid); } 2>/dev/null; then
      rm -f train.status stopped
      STATUS=train.status KIND=tpu setsid nohup launch/train.sh --distributed $* \
        >>train.log 2>&1 </dev/null &
      echo \$! >train.pid
    fi"
}

# What the first worker does: `trains`, `stopped` by `stop`, or the exit status that its
# training left, `killed` where it left none. Nothing where it does not answer.
worker() {
  first '
    if kill -0 "$(cat painformer/train.pid)"; then
      echo worker: trains
    elif [ -e painformer/stopped ]; then
      echo worker: stopped
    else
      status=$(cat painformer/train.status)
      echo "worker: ${status:-killed}"
    fi' 2>/dev/null | sed -n 's/^worker: //p'
}

# The last lines of all workers whose training was refused, after the slice and the host.
refused() {
  local node
  for node in "${nodes[@]}"; do
    "${tpus[@]}" tpu-vm ssh "$node" "${here[@]}" --worker=all --command='
      if [ "$(cat painformer/train.status)" = 2 ]; then
        { echo "exit status 2"; tail -n 3 painformer/train.log; } |
          sed "s/^/refused: $(hostname): /"
      fi' 2>/dev/null | sed -n "s/^refused: /$node, /p"
  done
}

run() {
  local begun='' had='' now how text restarts=0 failed=0 arguments
  # Said before anything is asked for, and paid.
  if [ -n "${NFS:-}" ] && [ -n "${BUCKET:-}" ] || [ -z "${NFS:-}${BUCKET:-}" ]; then
    say 'name what all workers mount: either NFS=10.0.0.2:/share or BUCKET=NAME'
    return 2
  fi
  if ! text=$(git archive --format=tar.gz -o /dev/null HEAD 2>&1); then
    say "no committed code to bring to the workers (${text##*$'\n'})"
    return 2
  fi
  printf -v arguments '%q ' "$@"
  while :; do
    now=$(state)
    case $now in  # The states of a queued resource.
      ACTIVE)
        had=1
        if [ -z "$begun" ]; then
          if bring && begin "$arguments"; then
            begun=1 failed=0
            say "training began; launch/tpu_vm.sh log shows it"
          else  # Machines that are new may refuse ssh for a while.
            failed=$((failed + 1))
            say "the workers are not all ready ($failed of $ATTEMPTS)"
            if [ "$failed" -ge "$ATTEMPTS" ]; then
              say "what failed last is above; the machines are still held: $back"
              return 1
            fi
          fi
        else
          how=$(worker) || true
          case $how in
            trains | '') ;;
            0 | 2 | stopped)
              first 'tail -n 3 painformer/train.log' || true
              say "the first worker has ended ($how); $back"
              [ "$how" != stopped ] || return 130
              return "$how"
              ;;
            # A worker had notice that it is taken back (130), was rebooted or killed, or
            # died too often: if the machines are still there next time, on those.
            *)
              say "the first worker has ended ($how), not by launch/tpu_vm.sh stop"
              # One that is refused alone takes the others with it, and would again.
              text=$(refused) || true
              if [ -n "$text" ]; then
                echo "$text"
                say "refused on ${text%%:*}; $back"
                return 2
              fi
              begun=''
              if [ "$restarts" -ge "${RESTARTS:-100}" ]; then
                say "begun again $restarts times already; no more"
                [ "$how" != killed ] || return 1
                return "$how"
              fi
              restarts=$((restarts + 1))
              ;;
          esac
        fi
        ;;
      # A typo or a quota shows the first time; later the cloud may have none for a while.
      ABSENT)
        begun='' failed=0
        if create; then
          had=1
        elif [ -n "$had" ]; then
          say 'new machines could not be asked for; tried again'
        else
          return 1
        fi
        ;;
      SUSPENDED | FAILED | PREEMPTED | TERMINATED)
        had=1 begun='' failed=0
        say "the machines are $now"
        delete || say 'they could not be deleted'
        ;;
      *) say "the machines are $now" ;;
    esac
    sleep "$PERIOD"
  done
}

command=${1:-}
case $command in
  run) shift && run "$@" ;;
  log) first 'tail -n 50 -f painformer/train.log' ;;
  # The mark says to `run` that this was meant.
  stop) everywhere 'touch painformer/stopped; kill -TERM "$(cat painformer/train.pid)"' ;;
  delete) delete ;;
  *) sed -n '2,15s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
esac
