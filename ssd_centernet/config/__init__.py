"""Gin recipes: read strictly, saved with a run, and told from what a caller of gin has set.

`parsing` reads files and bindings, `trust` holds those of a run to what data may say, and `usage`
refuses settings without effect; `gin_state` alone uses what gin has no public name for; `text`
reads saved settings without building what they name.
"""

from ssd_centernet.config.finding import (
    find_recipe,
    imported_modules,
    recipe_directory,
    recipes,
)
from ssd_centernet.config.gin_state import ConfigError, is_given, operative_config, set_aside
from ssd_centernet.config.parsing import (
    bound_part,
    clear,
    parse,
    register_all,
    save_operative,
)
from ssd_centernet.config.usage import assert_all_used

__all__ = [
    "ConfigError",
    "assert_all_used",
    "bound_part",
    "clear",
    "find_recipe",
    "imported_modules",
    "is_given",
    "operative_config",
    "parse",
    "recipe_directory",
    "recipes",
    "register_all",
    "save_operative",
    "set_aside",
]
