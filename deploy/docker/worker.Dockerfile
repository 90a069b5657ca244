# syntax=docker/dockerfile:1
# A worker with its libtorch; `muster` is in it too, for `muster run` in one container. From the root of the repository:
#   docker build --file deploy/docker/worker.Dockerfile --target cpu --tag muster-worker:cpu .
#   docker build --file deploy/docker/worker.Dockerfile --target cuda --tag muster-worker:cuda .
#
# It runs as user 10001 and writes to /tmp and /var/cache/muster only, so the rest may be read-only. The target cuda
# needs a driver for CUDA 13 and NVIDIA's container toolkit on the host, and nothing else.

FROM rust:1.90-bookworm AS build
# Of the distribution's security updates the newest are wanted, not the ones of the day this was written.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY deploy/setup/libtorch.sh deploy/setup/
RUN deploy/setup/libtorch.sh
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
COPY common common
COPY configs configs
COPY coordinator coordinator
COPY proto proto
# A member of the workspace must be there; nothing of it is compiled.
COPY tests tests
COPY worker worker
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package muster-coordinator --package muster-worker \
    && mkdir -p /out/bin /out/torch/lib /out/nvidia/cu13/lib \
    && for program in muster muster-worker; do \
           strip --strip-debug -o "/out/bin/$program" "target/release/$program" || exit 1; \
       done
# What computing on processors needs of libtorch, and the two libraries of CUDA that it is linked to.
RUN site=$(echo .cache/libtorch/venv/lib/python3*/site-packages) \
    && cp "$site"/torch/lib/libtorch_cpu.so "$site"/torch/lib/libc10.so "$site"/torch/lib/libgomp.so.1 /out/torch/lib/ \
    && cp "$site"/nvidia/cu13/lib/libcudart.so.13 "$site"/nvidia/cu13/lib/libcupti.so.13 /out/nvidia/cu13/lib/

# Gradients through NCCL.
FROM build AS plugin
COPY deploy/setup/nccl_plugin.sh deploy/setup/
RUN deploy/setup/nccl_plugin.sh && mv target/release/libmuster_nccl.so /out/bin/

# All of libtorch's libraries of CUDA, in the folders where it looks for them.
FROM debian:bookworm-slim AS libraries
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /venv \
    && /venv/bin/pip install --no-cache-dir torch==2.11.0 \
    && mkdir -p /out/torch \
    && mv /venv/lib/python3*/site-packages/torch/lib /out/torch/lib \
    && mv /venv/lib/python3*/site-packages/nvidia /out/nvidia \
    && rm -rf /venv

FROM debian:bookworm-slim AS base
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 muster \
    && useradd --uid 10001 --gid muster --home-dir /var/cache/muster --shell /usr/sbin/nologin muster \
    && install --directory --mode 0700 --owner muster --group muster /var/cache/muster /run/muster
ENV LD_LIBRARY_PATH=/opt/muster/torch/lib \
    XDG_CACHE_HOME=/var/cache/muster \
    HF_HOME=/var/cache/muster/huggingface
WORKDIR /var/cache/muster
USER 10001:10001
# There is no port to ask: a worker that is well has a runner.
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s \
    CMD ["sh", "-c", "grep --text --quiet --no-messages 'muster-worker.[r]unner' /proc/[0-9]*/cmdline"]
ENTRYPOINT ["muster-worker"]
CMD ["supervise"]

FROM base AS cuda
COPY --from=libraries /out/torch /opt/muster/torch
COPY --from=libraries /out/nvidia /opt/muster/nvidia
COPY --from=plugin /out/bin /usr/local/bin
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    MUSTER_SLOT_DEVICE=cuda:0

FROM base AS cpu
COPY --from=build /out/torch /opt/muster/torch
COPY --from=build /out/nvidia /opt/muster/nvidia
COPY --from=build /out/bin /usr/local/bin
