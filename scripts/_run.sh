# What the run scripts of the published systems share; they source it.
#
# What every run script reads from the environment:
#   DATA_DIR   folder of converted data (data/coco), which scripts/prepare_coco.sh makes, or COCO as it
#              is downloaded; the links of scripts/env.sh where they are there
#   DATASET, DATASET_LABEL  instead of it records and label map of another tool; see scripts/env.sh
#   MODEL_DIR  run directory (runs/SYSTEM/SCRIPT)
#   DEVICE     cpu, gpu, hpu, mlu, npu or tpu, instead of the script's device
#   HOSTS      machines with their number of processes, such as host1:8,host2:8
#   PYTHON     interpreter (.venv/bin/python of this checkout, else python3)
#   DRY_RUN=1  print the command and do nothing
#   SMOKE=1    a few steps of a narrow network on rendered scenes, on the CPU, two processes at most,
#              from random weights unless some are named; everything goes to SMOKE_DIR (runs/smoke)
# Arguments of a script come after its own flags and those of SMOKE=1, and win over them.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
SCRIPT="$(basename "$0" .sh)"
SYSTEM="$(basename "$(cd "$(dirname "$0")" && pwd)")"
SMOKE="${SMOKE:-}"
DRY_RUN="${DRY_RUN:-}"
SMOKE_DIR="${SMOKE_DIR:-runs/smoke}"
if [ -z "${PYTHON:-}" ]; then
  PYTHON="$ROOT/.venv/bin/python"
  [ -x "$PYTHON" ] || PYTHON=python3
fi
# NVIDIA's scripts take two words first: the run directory, except those of latencies, and the folder
# of the configurations. They are the positional parameters of the script that sources this.
if [[ "$SCRIPT" == SSD320_* ]]; then
  if [[ "$SCRIPT" != *_inference && "${1:-}" == [!-]* ]]; then
    MODEL_DIR="$1"
    shift
  fi
  if [[ "${1:-}" == [!-]* ]]; then
    echo "$1 is not read: the settings of its configuration are in the script" >&2
    shift
  fi
fi
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
source "$ROOT/scripts/env.sh"

# Flags that set the same thing: where an argument is one of them, the script's own are left out.
SAME_SETTINGS=(
  'num_steps|steps|num_train_steps|s|epochs|e|train_epochs'
  'batch_size|b'
  'dtype|d|use_amp|amp'
  'mode|do_train|no_validate'
  'log_every|log_step_count_steps|save_summary_steps|num_steps_per_iter|v'
  'checkpoint_every|save_checkpoints_epochs|save_checkpoints_steps|checkpoint_every_n|c'
  'fine_tune_checkpoint|resnet_checkpoint'
  'device|hvd_device|use_gpus?|use_tpu'
)
WEIGHTS='fine_tune_checkpoint|resnet_checkpoint|resume_from|finetune_ckpt|fine_tune_ckpt'

# run COMMAND FLAGS...: runs the program, or prints its command.
run() {
  if [ -n "$DRY_RUN" ]; then
    printf '%q ' "$PYTHON" -m ssd_centernet "$@"
    echo
  else
    echo "== ssd_centernet $*"
    "$PYTHON" -m ssd_centernet "$@"
  fi
}

# run_in PROCESSES COMMAND FLAGS...: the same in several processes.
run_in() {
  local processes="$1"
  shift
  [ -z "$SMOKE" ] || processes=$((processes > 2 ? 2 : processes))
  if [ "$processes" -eq 1 ]; then
    run "$@"
  else
    run launch --num_processes="$processes" ${HOSTS:+--hosts="$HOSTS"} -- "$@"
  fi
}

# given NAMES ARGUMENTS...: succeeds if one of the flags (a|b) is among the arguments.
given() {
  local names="$1" word
  shift
  for word in "$@"; do
    [[ "${word//-/_}" =~ ^__?($names)(=|$) ]] && return 0
  done
  return 1
}

# weights_named FLAGS...: succeeds if they name weights to begin with; an empty value names none.
weights_named() {
  local word
  for word in "$@"; do
    [[ "${word//-/_}" =~ ^__?($WEIGHTS)(=.|$) ]] && return 0
  done
  return 1
}

# is_replaced FLAG ARGUMENTS...: succeeds if an argument sets the same thing as a flag of a script.
is_replaced() {
  local flag="$1" names
  shift
  for names in "${SAME_SETTINGS[@]}"; do
    given "$names" "$flag" && given "$names" "$@" && return 0
  done
  return 1
}

# places RUN ARGUMENTS...: fills PLACES with the flags for data and run directory, except those among
# the arguments. RUN names the training script whose run directory is used.
places() {
  local trained="$1" top="runs" data="data/coco"
  shift
  [ ! -d "$COCO_DIR/tfrecords" ] || data="$COCO_DIR/tfrecords"
  [ -z "$SMOKE" ] || { top="$SMOKE_DIR" && data="$SMOKE_DIR/data"; }
  PLACES=()
  given 'data_dir|data_path' "$@" || PLACES+=(--data_dir="${DATA_DIR:-$data}")
  given 'model_dir|work_dir' "$@" || PLACES+=(--model_dir="${MODEL_DIR:-$top/$SYSTEM/$trained}")
}

# train RECIPE DEVICE PROCESSES FLAGS... -- ARGUMENTS...
train() {
  local recipe="$1" device="${DEVICE:-$2}" processes="$3" own=() flags=() word
  shift 3
  while [ "$1" != -- ]; do
    own+=("$1")
    shift
  done
  shift
  places "$SCRIPT" "$@"
  own=(--device="$device" "${own[@]}")
  if [ -n "$SMOKE" ]; then
    smoke_data
    own+=(--gin_file="$ROOT/scripts/smoke/$recipe.gin" --device=cpu --num_steps=3 --batch_size=2)
    ! given profile "${own[@]}" || own+=(--profile=1,2)
    weights_named "${own[@]}" "$@" || own+=(--from_scratch)
  fi
  for word in "${own[@]}"; do
    is_replaced "$word" "$@" || flags+=("$word")
  done
  run_in "$processes" train --gin_file="$recipe" "${PLACES[@]}" "${flags[@]}" "$@"
}

# evaluate TRAINING DEVICE PROCESSES FLAGS...: scores the run of the script TRAINING.
evaluate() {
  local trained="$1" device="${DEVICE:-$2}" processes="$3" word words=()
  shift 3
  # Only `train` knows the originals' names.
  for word in "$@"; do
    [[ "$word" =~ ^--data[_-]path(=|$) ]] && word="--data_dir${word#--data?path}"
    [[ "$word" =~ ^--work[_-]dir(=|$) ]] && word="--model_dir${word#--work?dir}"
    words+=("$word")
  done
  set -- "${words[@]+"${words[@]}"}"
  [ -z "$SMOKE" ] || device=cpu
  smoke_run "$trained"
  places "$trained" "$@"
  run_in "$processes" evaluate --device="$device" "${PLACES[@]}" "$@"
}

# detect TRAINING DEVICE FLAGS... IMAGES...
detect() {
  local trained="$1" device="${DEVICE:-$2}"
  shift 2
  [ -z "$SMOKE" ] || device=cpu
  smoke_run "$trained"
  places "$trained" --data_dir "$@"
  run predict --device="$device" "${PLACES[@]}" "$@"
}

# latency RECIPE DEVICE FLAGS... -- ARGUMENTS...: times a detector with random weights.
latency() {
  local recipe="$1" flags
  flags=(--part=inference --gin_file="$recipe" --device="${DEVICE:-$2}")
  shift 2
  while [ "$1" != -- ]; do
    flags+=("$1")
    shift
  done
  shift
  [ -z "$SMOKE" ] || flags+=(--gin_file="$ROOT/scripts/smoke/$recipe.gin" --device=cpu
    --warmup_iters=1 --benchmark_iters=2)
  run benchmark "${flags[@]}" "$@"
}

# Renders and converts a few scenes, once.
smoke_data() {
  local split
  [ -z "$DRY_RUN" ] && [ ! -e "$SMOKE_DIR/data/mscoco_label_map.pbtxt" ] || return 0
  run make_synthetic --output_dir="$SMOKE_DIR/coco" --num_train=8 --num_val=4 \
    --min_size=60 --max_size=90
  for split in train val; do
    run convert --annotations="$SMOKE_DIR/coco/annotations/instances_$split.json" \
      --image_dir="$SMOKE_DIR/coco/$split" --output_dir="$SMOKE_DIR/data" --split="$split" --name=coco
  done
}

# In a smoke run, trains the run to evaluate if it does not exist yet.
smoke_run() {
  [ -n "$SMOKE" ] && [ -z "$DRY_RUN" ] && [ -z "${MODEL_DIR:-}" ] || return 0
  [ -e "$SMOKE_DIR/$SYSTEM/$1/checkpoint" ] || bash "$(dirname "$0")/$1.sh"
}
