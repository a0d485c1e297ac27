"""The commands: one thin module each, loaded only when it is asked for."""
