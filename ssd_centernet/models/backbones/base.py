"""The base of our backbones."""

from ssd_centernet._keras import keras


class Backbone(keras.Model):
    """A functional model that is built anew from its constructor's arguments, `_config`."""

    def get_config(self) -> dict:
        """Return the constructor's arguments."""
        return {"name": self.name, **self._config}

    @classmethod
    def from_config(cls, config: dict, custom_objects=None):
        """Build the network from `get_config`."""
        return cls(**config)
