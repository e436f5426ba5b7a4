#!/usr/bin/env bash
# Trains on this machine: a laptop, a box with GPUs, a worker of a TPU pod.
#
#   launch/train.sh --config FILE --workdir DIR [--config.KEY=VALUE ...]
#
#   KIND=cpu|gpu|tpu   what to train on (default: gpu where nvidia-smi finds one, else cpu)
#   RESTARTS=5         how often a run that died is started again (default: 5)
#   PAUSE=15           seconds before that
#   STATUS=FILE        where the exit status is written in the end (default: nowhere)
#
# All arguments are those of `painformer pretrain`. A run that died (killed, out of
# memory, a lost device or process) is started again and resumes from its last
# checkpoint. One that ended, was stopped (Ctrl-C, SIGTERM) or was refused (exit status
# 2: a typo, a full disk, a loss that is not finite) is not. SIGUSR1 is passed on: a
# trace of the next steps.
set -euo pipefail
# Whoever asks later whether to begin again, reads it there; a kill leaves none.
[ -z "${STATUS:-}" ] || trap 'echo $? >"$STATUS"' EXIT
trap 'exit 130' INT TERM  # Until there is a training to pass it on to.
. "$(dirname -- "${BASH_SOURCE[0]}")/venv.sh"

[ $# -gt 0 ] || { sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
if [ -z "${KIND:-}" ]; then
  KIND=cpu
  if nvidia-smi -L >/dev/null 2>&1; then KIND=gpu; fi
fi
case $KIND in
  cpu) extra=demo ;;
  gpu) extra=cuda ;;
  tpu) extra=tpu ;;
  *) fail "KIND=$KIND is none of cpu, gpu, tpu" ;;
esac
make_venv "$extra"

child='' heard=''
stopped=''
pass() { heard=1; kill -s "$1" "$child" 2>/dev/null || true; }
# SIGINT as SIGTERM: a shell has what it runs in the background ignore SIGINT.
trap 'stopped=1; pass TERM' INT TERM
trap 'pass USR1' USR1

for ((start = 0; ; start++)); do
  "$root/launch/with.sh" "$KIND" "$venv/bin/python" -m painformer_jax pretrain "$@" &
  child=$!
  while :; do  # A signal ends `wait`, not the child.
    heard='' status=0
    wait "$child" || status=$?
    [ -n "$heard" ] || break
  done
  case $status in 0 | 2 | 130) exit "$status" ;; esac
  [ -z "$stopped" ] || exit "$status"
  if [ "$start" -ge "${RESTARTS:-5}" ]; then
    echo "train.sh: died $((start + 1)) times, the last with exit status $status" >&2
    exit "$status"
  fi
  echo "train.sh: died with exit status $status; starts again in ${PAUSE:-15} s" >&2
  sleep "${PAUSE:-15}" &
  wait $! || [ -z "$stopped" ] || exit "$status"
done
