"""Command lines of the published systems, as their readmes and scripts have them."""

import shlex

_COCO = "/data/tensorflow/coco2017/ssd_tf_records"
_R34 = "/data/tensorflow/ssd-r34/tensorflow_datasets/ssd/ssd_r34-mlperf/mlperf_artifact"
_BF16 = {"batch_size": 128, "dtype": "bf16", "device": "hpu", "epochs": 64.0, "log_every": "10"}
_FPN = {"batch_size": 32, "device": "mlu", "steps": 100000}
_CENTER = {"batch_size": 8, "steps": 140000, "log_every": "100", "checkpoint_every": "1000"}
_VGG = {"batch_size": 8, "dtype": "fp16", "device": "npu"}
# Line -> processes and settings.
TRAININGS = [
    (
        f"python3 ssd.py -e 64 -b 128 -d bf16 --model_dir /tmp/ssd_1_hpu --save_summary_steps 10 "
        f"--data_dir {_COCO} --resnet_checkpoint {_R34}",
        1,
        {**_BF16, "fine_tune_checkpoint": _R34, "keep_checkpoints": 20},
    ),
    (
        f"$PYTHON ssd.py -e 64 -b 128 -d fp32 --model_dir /tmp/ssd_1_hpu --data_dir {_COCO} "
        f"--resnet_checkpoint {_R34}",
        1,
        {**_BF16, "dtype": "fp32", "log_every": "1", "checkpoint_every": "5.0 epochs"},
    ),
    (
        f"$PYTHON ssd.py -e 64 -b 240 -d bf16 --model_dir /tmp/ssd_1_hpu --data_dir {_COCO} "
        f"--resnet_checkpoint {_R34}",
        1,
        {**_BF16, "batch_size": 240, "log_every": "1"},
    ),
    (
        f"""mpirun --allow-run-as-root --bind-to core --map-by socket:PE=6 --np 8 \\
  $PYTHON /root/Model-References/TensorFlow/computer_vision/SSD_ResNet34/ssd.py --use_horovod \\
   --epochs 64 --batch_size 128 --dtype bf16 --model_dir /tmp/ssd_8_hpus \\
   --save_summary_steps 10 --save_checkpoints_epochs 64 \\
   --data_dir {_COCO} --resnet_checkpoint {_R34}""",
        8,
        {**_BF16, "checkpoint_every": "64.0 epochs"},
    ),
    (
        f"$PYTHON ssd.py --save_summary_steps 10 --data_dir {_COCO} --resnet_checkpoint {_R34} "
        "--profile 50,53 --steps 100",
        1,
        {"batch_size": 128, "dtype": "bf16", "steps": 100, "profile": (50, 53)},
    ),
    ("python ssd.py", 1, {"batch_size": 128, "dtype": "bf16", "epochs": 50.0, "log_every": "1"}),
    ("ssd.py -b128 -s 7 --no_hpu", 1, {"batch_size": 128, "steps": 7, "device": "auto"}),
    ("ssd.py --save_checkpoints_steps=500", 1, {"checkpoint_every": "500"}),
    (
        """horovodrun -np 8 python3 model_main.py \\
    --batch_size=32 \\
    --pipeline_config_path="models/configs/ssd320_full_8mlus.config" \\
    --num_steps=1000 \\
    --do_train=True \\
    --fine_tune_checkpoint="./checkpoints/model.ckpt-100000" \\
    --fine_tune_checkpoint_type="detection" \\
    --model_dir=m \\
    --use_horovod=True \\
    --hvd_device=mlu \\
    --use_amp=True \\
    --use_performance=False \\
    --use_profiler=False""",
        8,
        {
            **{**_FPN, "steps": 1000, "dtype": "fp16"},
            "fine_tune_checkpoint": "./checkpoints/model.ckpt-100000",
            "fine_tune_checkpoint_type": "detection",
            "WarmupCosineSteps.base_learning_rate": 0.16,
            "WarmupCosineSteps.total_steps": 12500,
        },
    ),
    (
        """python3 model_main.py --batch_size=32 \\
    --pipeline_config_path="models/configs/ssd320_full_1mlus.config" --num_steps=100000 \\
    --do_train=True --fine_tune_checkpoint="" --fine_tune_checkpoint_type="classification" \\
    --model_dir=m --use_horovod=False --hvd_device=mlu --use_amp=False \\
    --use_performance=False --use_profiler=False popd""",
        1,
        {**_FPN, "WarmupCosineSteps.warmup_steps": 8000, "evaluate_every": 10**9},
    ),
    (
        "mpirun -np 4 --bind-to none --map-by slot -x NCCL_DEBUG=INFO -mca pml ob1 "
        "python3 object_detection/model_main.py "
        "--pipeline_config_path=/config/ssd320_full_4gpus.config --model_dir=/results/r --amp",
        4,
        {"batch_size": 32, "steps": 25000, "dtype": "fp16", "evaluate_every": 10**9},
    ),
    *(
        (
            f"""horovodrun -np 8 python centernet_train.py\\
    --mode=train\\
    --num_workers=1\\
    --checkpoint_every_n=1000\\
    --eval_on_train_data=False\\
    --pipeline_config_path=./models/mlu_centernet_config.config\\
    --batch_size=8\\
    --num_train_steps=140000\\
    --num_steps_per_iter=100\\
    --model_dir=mlu_model\\
    --do_train=True\\
    --use_gpus=False\\
    --use_profiler=False\\
    --use_performance=False\\
    --use_horovod=True\\
    --use_amp={amp}""",
            8,
            {
                **_CENTER,
                "device": "mlu",
                "keep_checkpoints": 7,
                **({"dtype": "fp16"} if amp else {}),
            },
        )
        for amp in (False, True)
    ),
    (
        "python model_main_tf2.py --pipeline_config_path=mlu_centernet_config.config "
        "--model_dir=m --use_gpu=True --num_train_steps=0 --use_performance=True",
        1,
        {"batch_size": 16, "steps": 140000, "device": "gpu", "use_performance": True},
    ),
    ("tools/train.py configs/ssd/ssd300_coco_npu.py", 1, {**_VGG, "epochs": 120}),
    (
        "python3.7 ./tools/train.py ./configs/ssd/ssd300_coco_npu.py --work-dir w --gpus 8 "
        "--resume-from a/ckpt-3 --no-validate --seed 0 --launcher none --cfg-options "
        "data.samples_per_gpu=4 total_epochs=1 lr_config.step=16,22 optimizer.lr=1e-3",
        8,
        {
            **{**_VGG, "batch_size": 4, "epochs": 5.0, "evaluate_every": 0},
            "resume_from": "a/ckpt-3",
            "StepDecay.boundaries": (80, 110),
            "StepDecay.base_learning_rate": 1e-3,
        },
    ),
    ("tools/train.py configs/ssd/ssd512_coco.py --gpu-ids 0 2", 2, {"batch_size": 8}),
    ("bash tools/dist_train.sh configs/ssd/ssd300_coco_npu_8p.py 8 --seed 0", 8, _VGG),
    (
        "python -m torch.distributed.launch --nproc_per_node=8 --master_port=29500 "
        "tools/train.py configs/ssd/ssd300_coco.py --launcher pytorch --options seed=3",
        8,
        {"batch_size": 8, "seed": 3},
    ),
]
# Line -> command.
OTHERS = {
    f"$PYTHON ssd.py --mode eval --model_dir /tmp/ssd_1_hpu --data_dir {_COCO} "
    f"--resnet_checkpoint {_R34}": f"evaluate --model_dir=/tmp/ssd_1_hpu --device=hpu "
    f"--every_checkpoint --data_dir={_COCO} --batch_size=128",
    "ssd.py --inference a.jpg --model_dir m": "predict --model_dir=m --device=hpu a.jpg",
    "python3 model_main.py --do_train=False --pipeline_config_path=ssd320_full_1mlus.config "
    "--model_dir=m --use_performance=False \\\npopd": "evaluate --model_dir=m --checkpoint=latest",
    "model_main.py --checkpoint_dir=c --model_dir=/results --run_once "
    "--pipeline_config_path=ssd320_full_1gpus.config": "evaluate --model_dir=c "
    "--output_dir=/results/evaluation --checkpoint=latest",
    "model_main.py --checkpoint_dir=c --model_dir=c --eval_training_data "
    "--pipeline_config_path=ssd320_full_1gpus.config": "evaluate --model_dir=c "
    "--split=coco_train --wait",
    """python centernet_train.py\\
        --pipeline_config_path=./models/mlu_centernet_config.config\\
       \t--model_dir=mlu_model\\
       \t--checkpoint_dir=./mlu_model\\
       \t--load_latest_ckpt_continuously=False\\
       \t--do_train=False""": "evaluate --model_dir=./mlu_model --checkpoint=latest "
    "--batch_size=1 --device=mlu",
    "centernet.py --checkpoint_dir=m --model_dir=m --eval_timeout=60 --use_gpus": "evaluate "
    "--model_dir=m --wait --timeout=60 --batch_size=1 --device=gpu",
    "tools/test.py configs/ssd/ssd300_coco_npu_8p.py work_dirs/s/latest.pth --eval bbox "
    "--out=r/results.pkl": "evaluate --model_dir=work_dirs/s --checkpoint=latest --output_dir=r "
    "--device=npu",
    "./tools/dist_test.sh configs/ssd/ssd300_coco.py w/ckpt-500 8": "launch --num_processes=8 -- "
    "evaluate --model_dir=w --checkpoint=w/ckpt-500",
}


def split(line):
    """The words that a shell makes of a line, with $PYTHON unset, as in a readme."""
    return [word for word in shlex.split(line.replace("\\\n", "")) if word != "$PYTHON"]


def training_of(command):
    if command[0] != "launch":
        return command
    return command[command.index("--") + 1 :]
