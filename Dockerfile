# msr in a container. Needs no GPU to build.
#
#   docker build -t msr .                                                 on a processor, or on a GPU: torch brings CUDA's libraries
#   docker build -t msr --build-arg TORCH_INDEX=URL .                     with torch from the index of PyTorch's CPU builds: far smaller
#   docker build -t msr --build-arg BASE=nvidia/cuda:13.0.2-devel-ubuntu24.04 .    where something compiles for the GPU
#   docker run --rm -v "$PWD:/experiments" msr run my.yaml                       add --gpus all on a GPU
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# Images of CUDA come without Python; 3.11 and 3.12 both do. The compiler is for packages that come as source, and for Triton.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends gcc g++ libgomp1 \
    && if ! command -v python3; then \
         DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3 python3-dev python3-venv; \
       fi \
    && rm -rf /var/lib/apt/lists/*

# A virtual environment, since Debian and Ubuntu close their own Python to pip.
RUN python3 -m venv /opt/msr
ENV PATH=/opt/msr/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/experiments/.cache/huggingface

WORKDIR /src
# Torch first and alone: it is most of the image, and a change of the code does not fetch it again.
ARG TORCH_INDEX=
COPY constraints.txt ./
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.11.0 torchvision==0.26.0 torchaudio==2.11.0

ARG EXTRAS=
COPY pyproject.toml README.md LICENSE constraints-vllm.txt ./
COPY templates templates
COPY pipelines pipelines
COPY eval eval
COPY msr_adapter msr_adapter
# The builds for processors are versions of their own (2.11.0+cpu), which a constraint of 2.11.0 accepts.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --constraint constraints.txt ".${EXTRAS:+[$EXTRAS]}"

# Nobody's files are root's: run with --user "$(id -u):$(id -g)" to own what is written to /experiments.
RUN useradd --create-home msr && mkdir /experiments && chown msr /experiments
# hadolint ignore=DL3066
USER msr
WORKDIR /experiments
ENTRYPOINT ["msr"]
CMD ["--help"]
