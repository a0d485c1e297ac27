# An image with the library, everything that training and the tests need, and the scripts.
#
#   docker build --tag ssd_centernet .
#   DEVICE=cpu bash scripts/run_docker.sh bash scripts/demo.sh
#
# docs/docker.md has the arguments for GPU, Gaudi, MLU and Ascend, and says what of this was run.

# An image with Python 3.10 to 3.13, or a vendor's with its TensorFlow (2.10 to 2.21) inside.
ARG BASE=python:3.11-slim
FROM ${BASE}
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]

# What scripts/setup.sh reads. They stay in the environment, so that a script which calls it again
# finds the installation complete.
#   TENSORFLOW=installed   keep the TensorFlow of the base image instead of installing 2.20
#   EXTRAS                 extras of setup.py instead of those that scripts/setup.sh takes; cuda brings
#                          CUDA's libraries for a GPU
#   PYTHON                 interpreter of the base image, where it is not python3
ARG TENSORFLOW=""
ARG EXTRAS=""
ARG PYTHON=""
ENV TENSORFLOW=${TENSORFLOW} EXTRAS=${EXTRAS} PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
WORKDIR /ssd_centernet

# Only what the installation reads: a change of the library's code does not repeat it.
COPY setup.py pyproject.toml ./
COPY constraints constraints
COPY gin_configs gin_configs
COPY scripts/setup.sh scripts/_installed_tensorflow.py scripts/
COPY ssd_centernet/__init__.py ssd_centernet/_keras.py ssd_centernet/_older_keras.py ssd_centernet/
RUN PYTHON="${PYTHON}" bash scripts/setup.sh
ENV PATH=/ssd_centernet/.venv/bin:${PATH}

# Several processes: HOROVOD=1 builds Horovod. Vendors' images bring one of their own.
ARG HOROVOD=""
COPY scripts/install_horovod.sh scripts/
RUN if [ "${HOROVOD}" = 1 ]; then \
      had="$(command -v g++ || true)"; \
      apt-get update; \
      apt-get install --yes --no-install-recommends g++ make openssh-client; \
      HOROVOD_WHEELS=/tmp/wheels bash scripts/install_horovod.sh; \
      if [ -z "${had}" ]; then apt-get purge --yes --auto-remove g++ make; fi; \
      rm -rf /tmp/wheels /var/lib/apt/lists/*; \
    fi

COPY . .
# data/ and runs/ are where scripts/run_docker.sh mounts folders of the host; whoever runs the
# container may write there, and nowhere else in the image.
RUN python -m compileall -q ssd_centernet; \
    mkdir -p data runs; \
    chmod 1777 data runs; \
    ssd_centernet --version

# USER_ID=1000 makes a user with this number and begins as that one instead of root.
ARG USER_ID=0
RUN if [ "${USER_ID}" != 0 ]; then useradd --create-home --uid "${USER_ID}" detector; fi
USER ${USER_ID}

# No entry point of our own: that of a vendor's base image, which sets up its device, stays.
CMD ["ssd_centernet", "--help"]
