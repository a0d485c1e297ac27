#!/usr/bin/env bash
# SSD300 VGG-16 (SSD for PyTorch, Ascend): the speed of several machines with 8 NPUs each over an
# epoch of 5 passes.
# Original: test/train_performance_multinodes.sh --data_path=xxx --batch_size=8 --nnodes=2 \
#   --node_rank=0 --local_addr=xxx --master_addr=xxx on each machine
# Here machine 0 starts the processes of all: HOSTS names them, host1:8,host2:8. On the others the same
# line does nothing, and addresses and ports are not needed. PROCESSES is their number (8 a machine).
# BACKBONE names the initial weights; unset, the published ImageNet VGG-16 where it can be had.
# RECIPE=ssd512_vgg16 trains SSD512.
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

nodes=2 rank=0 rest=()
for word in "$@"; do
  case "${word//-/_}" in
    __nnodes=*) nodes="${word#*=}" ;;
    __node_rank=*) rank="${word#*=}" ;;
    __local_addr=* | __master_addr=* | __master_port=*) ;;
    *) rest+=("$word") ;;
  esac
done
if [ "$rank" != 0 ]; then
  echo "machine $rank: its processes are started from machine 0"
  exit 0
fi
if [ "$nodes" -gt 1 ] && given 'nnodes' "$@" && [ -z "${HOSTS:-}$SMOKE" ]; then
  echo "--nnodes=$nodes: HOSTS must name the machines and their processes, such as host1:8,host2:8" >&2
  exit 1
fi

train "${RECIPE:-ssd300_vgg16}" npu "${PROCESSES:-$((8 * nodes))}" --batch_size=8 --use_amp --epochs=5 \
  --no_validate --use_performance --fine_tune_checkpoint="${BACKBONE:-}" -- "${rest[@]+"${rest[@]}"}"
