"""Run the command line as `python -m ssd_centernet`."""

from ssd_centernet.cli.main import run

if __name__ == "__main__":
    run()
