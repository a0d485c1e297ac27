"""Gin recipes: read strictly, saved with a run, and told from what a caller of gin has set.

`parsing` reads files and bindings; `gin_state` alone uses what gin has no public name for; `text`
reads saved settings without building what they name.
"""

from ssd_centernet.config.gin_state import operative_config, set_aside
from ssd_centernet.config.parsing import (
    ConfigError,
    assert_all_used,
    bound_part,
    clear,
    find_recipe,
    parse,
    recipe_directory,
    recipes,
    register_all,
    save_operative,
)

__all__ = [
    "ConfigError",
    "assert_all_used",
    "bound_part",
    "clear",
    "find_recipe",
    "operative_config",
    "parse",
    "recipe_directory",
    "recipes",
    "register_all",
    "save_operative",
    "set_aside",
]
