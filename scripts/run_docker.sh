#!/usr/bin/env bash
# Run a command in the image of the Dockerfile, with data, runs and a device of this machine.
#
#   bash scripts/run_docker.sh                                a shell in the image
#   DEVICE=gpu bash scripts/run_docker.sh ssd_centernet doctor
#   DEVICE=hpu IMAGE=ssd_centernet:gaudi bash scripts/run_docker.sh \
#     ssd_centernet train --device=hpu --gin_file=ssd300_resnet34 --data_dir=data/coco --model_dir=runs/ssd300
#
# What it reads from the environment:
#   IMAGE        image (ssd_centernet)
#   DEVICE       the device for the container: cpu, gpu, hpu, mlu or npu (cpu)
#   DEVICES      numbers of the devices, 0,1 (all)
#   DATA_DIR     folder of this machine for data/ in the container (data)
#   RUNS_DIR     the same for runs/ (runs); both are made if they are missing
#   AS_ROOT=1    run as root in the container, instead of as the calling user
#   DOCKER_ARGS  more arguments for docker run, such as "-v /datasets/coco:/ssd_centernet/coco:ro"
#   DRY_RUN=1    print the command and do nothing
#   DEV          where the device files of MLU and NPU are (/dev)
set -euo pipefail

IMAGE="${IMAGE:-ssd_centernet}"
DEVICE="${DEVICE:-cpu}"
DEVICES="${DEVICES:-all}"
DATA_DIR="${DATA_DIR:-data}"
RUNS_DIR="${RUNS_DIR:-runs}"
DEV="${DEV:-/dev}"
INSIDE="/ssd_centernet"

fail() {
  printf 'run_docker: %s\n' "$*" >&2
  exit 2
}

[[ "$DEVICES" =~ ^(all|[0-9]+(,[0-9]+)*)$ ]] ||
  fail "DEVICES=$DEVICES: expected numbers such as 0,1, or all."

# device_files PATTERN WHAT...: the files of the chosen devices; PATTERN has % for the number.
device_files() {
  local pattern="$1" number file found=()
  if [ "$DEVICES" = all ]; then
    for file in "$DEV"/${pattern/\%/[0-9]*}; do
      # davinci0 is a device, davinci_manager is not; a pattern that matches nothing is itself.
      [[ "${file##*/}" =~ ^${pattern/\%/[0-9]+}$ ]] && [ -e "$file" ] && found+=("$file")
    done
  else
    for number in ${DEVICES//,/ }; do
      file="$DEV/${pattern/\%/$number}"
      [ -e "$file" ] || fail "DEVICE=$DEVICE, DEVICES=$DEVICES: there is no $file on this machine."
      found+=("$file")
    done
  fi
  [ ${#found[@]} -gt 0 ] ||
    fail "DEVICE=$DEVICE: there is no $DEV/${pattern/\%/0} on this machine. Is its driver installed?"
  add_existing "" "${found[@]}"
}

# add_existing WORD FILES...: gives the container the files that exist, as devices; with WORD "-v",
# as read-only mounts at the same place.
add_existing() {
  local word="$1" file
  shift
  for file in "$@"; do
    [ -e "$file" ] || continue
    if [ "$word" = -v ]; then
      OPTIONS+=(-v "$file:$file:ro")
    else
      OPTIONS+=(--device "$file")
    fi
  done
}

OPTIONS=()
case "$DEVICE" in
  cpu) ;;
  gpu)
    if [ "$DEVICES" = all ]; then
      OPTIONS+=(--gpus all)
    else
      OPTIONS+=(--gpus "\"device=$DEVICES\"")
    fi
    # NCCL exchanges gradients between processes through shared memory.
    OPTIONS+=(--ipc=host --ulimit memlock=-1)
    ;;
  hpu)
    OPTIONS+=(--runtime=habana -e "HABANA_VISIBLE_DEVICES=$DEVICES"
      -e OMPI_MCA_btl_vader_single_copy_mechanism=none --cap-add=sys_nice --ipc=host --net=host)
    ;;
  mlu)
    device_files cambricon_dev%
    add_existing "" "$DEV"/cambricon_ctl "$DEV"/cambricon_ipcm*
    add_existing -v /usr/bin/cnmon
    OPTIONS+=(--ipc=host)
    ;;
  npu)
    device_files davinci%
    add_existing "" "$DEV"/davinci_manager "$DEV"/devmm_svm "$DEV"/hisi_hdc
    add_existing -v /usr/local/Ascend/driver /usr/local/dcmi /usr/local/bin/npu-smi \
      /etc/ascend_install.info
    OPTIONS+=(--ipc=host)
    ;;
  *) fail "DEVICE=$DEVICE: expected cpu, gpu, hpu, mlu or npu." ;;
esac
# The calling user owns what the run writes. That user has no home in the image.
[ "${AS_ROOT:-0}" = 1 ] || OPTIONS+=(--user "$(id -u):$(id -g)" -e HOME=/tmp)
if [ -t 0 ] && [ -t 1 ]; then OPTIONS+=(-it); fi
[ $# -gt 0 ] || set -- bash

if [ -z "${DRY_RUN:-}" ]; then
  command -v docker >/dev/null || fail "docker is not installed on this machine."
  # Otherwise docker makes them, as root.
  mkdir -p "$DATA_DIR" "$RUNS_DIR"
fi
# Absolute even if it does not exist yet: docker takes a relative path for the name of a volume.
absolute() { case "$1" in /*) printf '%s' "$1" ;; *) printf '%s' "$PWD/$1" ;; esac; }
# DOCKER_ARGS is several words on purpose.
# shellcheck disable=SC2206
COMMAND=(docker run --rm --init "${OPTIONS[@]}"
  -v "$(absolute "$DATA_DIR"):$INSIDE/data" -v "$(absolute "$RUNS_DIR"):$INSIDE/runs"
  ${DOCKER_ARGS:-} "$IMAGE" "$@")
if [ -n "${DRY_RUN:-}" ]; then
  printf '%q ' "${COMMAND[@]}"
  echo
else
  exec "${COMMAND[@]}"
fi
