"""A stand-in for Ascend's adapter: its names, arguments and errors, without its device.

What the library calls of npu_device is here with the signatures of its published sources, and what
it refuses is refused. It computes on the CPU, or on a stub device where STUB_LIBRARY names one.
Between processes it sends arrays over the loopback, to the address in RANK_TABLE_FILE.
"""

import os

from tensorflow.python.eager import context
from tensorflow.python.framework import load_library

from npu_device import distribute, gen_npu_ops
from npu_device._options import NpuConfig

_NAME = "/job:localhost/replica:0/task:0/device:NPU"
_options = NpuConfig()
_handles = {}
# What a test looks at, and whether the device gives infinity.
opened = []
gives_infinity = False


def global_options():
    return _options


def is_inf_nan_enabled():
    return gives_infinity


class NpuDeviceHandle:
    def __init__(self, device_id, workers_num, worker_id):
        self.workers_num, self.worker_id = workers_num, worker_id
        self._name = f"{_NAME}:{device_id}"

    def name(self):
        return self._name

    def is_cluster_worker(self):
        return self.workers_num > 1 and self.workers_num > self.worker_id >= 0

    def as_default(self):
        if "STUB_LIBRARY" in os.environ:
            context.device(self._name).__enter__()
        distribute.context = self
        return self


def open(device_id=None):
    if device_id is None:
        device_id = int(os.getenv("ASCEND_DEVICE_ID", "0"))
    if device_id in _handles:
        return _handles[device_id]
    if _handles:
        existing = list(_handles)
        raise RuntimeError(
            f"Failed create npu instance on device {device_id} as existed instance on {existing}"
        )
    if os.environ.get("STUB_FAILS"):
        raise RuntimeError(f"Failed open npu device {device_id} : the device is busy")
    opened.append((device_id, _options.as_dict()))
    if "STUB_LIBRARY" in os.environ:
        load_library.load_pluggable_device_library(os.environ["STUB_LIBRARY"])
    workers = int(os.getenv("RANK_SIZE", "1"))
    rank = 0
    if workers > 1:
        if "RANK_TABLE_FILE" not in os.environ:
            raise RuntimeError("CM_CHIEF_IP and RANK_TABLE_FILE are all not be configured.")
        if not os.environ.get("RANK_ID"):
            raise RuntimeError("You must specify rank id by set env RANK_ID in distribution mode")
        rank = int(os.environ["RANK_ID"])
        distribute.connect(os.environ["RANK_TABLE_FILE"], rank, workers)
    _handles[device_id] = NpuDeviceHandle(device_id, workers, rank)
    return _handles[device_id]


__all__ = ["distribute", "gen_npu_ops", "global_options", "is_inf_nan_enabled", "open"]
