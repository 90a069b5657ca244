# syntax=docker/dockerfile:1
# The coordinator: `muster` alone, without libtorch. From the root of the repository:
#   docker build --file deploy/docker/coordinator.Dockerfile --tag muster-coordinator .
#
# It runs as user 10001 and writes to /var/lib/muster only, so the rest may be read-only.

FROM rust:1.90-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY common common
COPY configs configs
COPY coordinator coordinator
COPY proto proto
# Members of the workspace must be there; nothing of these two is compiled.
COPY tests tests
COPY worker worker
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package muster-coordinator \
    && mkdir /out \
    && strip --strip-debug -o /out/muster target/release/muster

FROM debian:bookworm-slim
# Of the distribution's security updates the newest are wanted, not the ones of the day this was written.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 muster \
    && useradd --uid 10001 --gid muster --home-dir /var/lib/muster --shell /usr/sbin/nologin muster \
    && install --directory --mode 0700 --owner muster --group muster /var/lib/muster /run/muster
COPY --from=build /out/muster /usr/local/bin/
ENV MUSTER_STATE=/var/lib/muster/state \
    MUSTER_STORE=/var/lib/muster/store
WORKDIR /var/lib/muster
USER 10001:10001
EXPOSE 7700
# A client in the same place finds the way in by itself.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["muster", "ls"]
ENTRYPOINT ["muster"]
CMD ["serve", "--no-workers", "--listen", "0.0.0.0:7700", "--tls", "auto"]
