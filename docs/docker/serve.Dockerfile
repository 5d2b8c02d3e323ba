# The page and its HTTP API, on the CPU; see docs/docker.md. Built from the repository root:
#   docker build -f docs/docker/serve.Dockerfile -t agegender-serve .
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
RUN pip install ".[web,hub]" && useradd --uid 10001 agegender

# Files are written to /tmp only, so that the root file system can be read-only.
ENV HOME=/tmp
WORKDIR /tmp
USER 10001
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/health', timeout=4)"]
ENTRYPOINT ["agegender", "serve", "host=0.0.0.0", "port=7860"]
# The names in the browser's address bar; another one: docker run ... agegender-serve allowed_hosts=[faces.example]
CMD ["allowed_hosts=[localhost]"]
