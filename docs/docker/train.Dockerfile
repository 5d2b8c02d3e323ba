# Training on the CPU; see docs/docker.md. Built from the repository root:
#   docker build -f docs/docker/train.Dockerfile -t agegender-train .
FROM python:3.13-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1

# PyTorch's builds for CPUs, from the index that its install page names; for GPUs, --build-arg INDEX=<another of them>.
ARG INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --index-url "$INDEX" "torch>=2.13" "torchvision>=0.28"

WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY agegender ./agegender
COPY conf ./conf
COPY hydra_plugins ./hydra_plugins
# The versions are those that pyproject.toml allows.
# hadolint ignore=DL3013
RUN pip install ".[hub]" && useradd --uid 10001 agegender && mkdir /runs && chown agegender /runs

# Files are written to /runs, a volume, and /tmp only, so that the root file system can be read-only.
ENV HOME=/tmp AGEGENDER_CACHE=/runs/cache HF_HOME=/runs/cache/huggingface TORCH_HOME=/runs/cache/torch
WORKDIR /runs
USER 10001
ENTRYPOINT ["agegender"]
CMD ["train", "experiment=quickstart"]
