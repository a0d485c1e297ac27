"""Options that check their values as the adapter's do."""

_CHOICES = {
    "precision_mode": [
        "force_fp32",
        "allow_fp32_to_fp16",
        "force_fp16",
        "must_keep_origin_dtype",
        "allow_mix_precision",
        "cube_fp16in_fp32out",
        "allow_mix_precision_fp16",
        "allow_mix_precision_bf16",
        "allow_fp32_to_bf16",
    ],
    "precision_mode_v2": [
        "fp16",
        "origin",
        "cube_fp16in_fp32out",
        "mixed_float16",
        "mixed_bfloat16",
        "cube_hif8",
        "mixed_hif8",
    ],
    "modify_mixlist": None,
    "op_precision_mode": None,
    "customize_dtypes": None,
    "deterministic": [0, 1],
    "jit_compile": ["true", "false", "auto"],
    "fusion_switch_file": None,
    "graph_memory_max_size": None,
    "variable_memory_max_size": None,
    "op_compiler_cache_mode": ["enable", "disable", "force"],
    "op_compiler_cache_dir": None,
}
_DEFAULTS = {"deterministic": 0, "jit_compile": "auto", "op_compiler_cache_mode": "enable"}


class NpuConfig:
    def __init__(self):
        self.__dict__["_values"] = {name: _DEFAULTS.get(name) for name in _CHOICES}

    def __setattr__(self, key, value):
        if key not in _CHOICES:
            raise ValueError(f"NpuConfig has no option {key}, all options {sorted(_CHOICES)}")
        choices, default = _CHOICES[key], _DEFAULTS.get(key)
        if choices is not None and value not in choices:
            if default is not None and not isinstance(value, type(default)):
                expected, got = type(default).__name__, type(value).__name__
                raise TypeError(f"Expected {expected}, got {got}")
            raise ValueError(f"'{value}' not in optional list {choices}")
        self._values[key] = value

    def as_dict(self):
        return {name: str(value) for name, value in self._values.items() if value is not None}
