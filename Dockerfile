# syntax=docker/dockerfile:1
# The whole platform in one image: flows, steps, training and rendering.
#   CPU:   docker build -t omnihuman .
#   CUDA:  docker build -t omnihuman:cuda --build-arg TORCH_INDEX=https://pypi.org/simple .
#          (PyPI's own torch is built for CUDA; another CUDA: https://download.pytorch.org/whl/cu130 and the like)
#   use:   docker run --rm -v "$PWD":/home/omnihuman/project -v omnihuman:/home/omnihuman/.omnihuman omnihuman demo
# Ablation arms and scheduled runs need a git checkout, which an image has not: mount a clone over /home/omnihuman/project.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# deepspeed comes as source and decides while it is built which operators it may compile.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git make \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /home/omnihuman/project
COPY requirements.lock requirements-no-deps.lock ./
# The lock names torch without its build, so that the build installed here stays.
RUN pip install "$(grep '^torch==' requirements.lock)" --index-url "$TORCH_INDEX" \
    && pip install -r requirements.lock \
    && pip install --no-deps -r requirements-no-deps.lock
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-deps --editable .

FROM python:${PYTHON}-slim-bookworm
# git: DVC, MLflow and the registry ask it for the commit of a mounted clone.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 omnihuman \
    && install --directory --owner omnihuman /home/omnihuman/.omnihuman /home/omnihuman/project
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    OMNIHUMAN_HOME=/home/omnihuman/.omnihuman \
    DVC_SITE_CACHE_DIR=/home/omnihuman/.omnihuman/dvc \
    DO_NOT_TRACK=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    MLFLOW_DISABLE_TELEMETRY=true \
    PYTHONUNBUFFERED=1
WORKDIR /home/omnihuman/project
COPY --chown=omnihuman . .
USER 1000
# Without .git DVC must be told that there is none.
RUN dvc config --local core.no_scm true
VOLUME /home/omnihuman/.omnihuman
HEALTHCHECK --interval=60s --timeout=10s CMD ["omnihuman", "--help"]
ENTRYPOINT ["omnihuman"]
CMD ["--help"]
