# The trainer: runs, training, export. Build from the root of the repository:
#   docker build -f deploy/docker/trainer.Dockerfile -t rekindle-trainer .
# torch from the default index brings CUDA along; for a smaller image without it give the index of PyTorch's
# builds for CPUs: --build-arg TORCH_INDEX_URL=...
# The base is pinned by tag; give PYTHON_IMAGE=python@sha256:... to pin it by digest or to take it from elsewhere.
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# Where packages come from, for sites with an index of their own; the default of pip unless given.
ARG PIP_INDEX_URL
ARG TORCH_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_CONSTRAINT=/src/constraints.txt
WORKDIR /src
COPY constraints.txt ./
# Every version is pinned by constraints.txt, which PIP_CONSTRAINT names. torch comes first and alone, as it is large
# and seldom changes.
# hadolint ignore=DL3013
RUN python -m venv --without-pip /opt/rekindle \
    && pip --python /opt/rekindle/bin/python install --no-cache-dir \
       ${TORCH_INDEX_URL:+--index-url "${TORCH_INDEX_URL}"} "$(grep '^torch==' constraints.txt)"
COPY sdk ./sdk
COPY libs/servicekit ./libs/servicekit
COPY libs/imaging ./libs/imaging
COPY services/trainer ./services/trainer
# hadolint ignore=DL3013
RUN pip install --no-cache-dir hatchling \
    && pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels \
       ./sdk ./libs/servicekit ./libs/imaging ./services/trainer
# Our own distributions by their files: an index may hold others of the same names.
# hadolint ignore=DL3013
RUN pip --python /opt/rekindle/bin/python install --no-cache-dir --no-deps /wheels/*.whl \
    && pip --python /opt/rekindle/bin/python install --no-cache-dir "rekindle-servicekit[postgresql,s3]" "rekindle-trainer[kubernetes,process]"

FROM ${PYTHON_IMAGE}
ARG VERSION=0.3.0.dev0
LABEL org.opencontainers.image.title="rekindle-trainer" \
      org.opencontainers.image.description="Rekindle's trainer: training runs of the igniter and of TransUNet, evaluation, export" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
RUN groupadd --gid 10001 rekindle \
    && useradd --uid 10001 --gid rekindle --no-create-home --home-dir /var/lib/rekindle --shell /usr/sbin/nologin rekindle \
    && install --directory --owner rekindle --group rekindle --mode 0700 /var/lib/rekindle
COPY --from=build /opt/rekindle /opt/rekindle
# Beyond loopback the service starts only with TLS and known callers, or with REKINDLE_TRAINER_INSECURE=true.
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    REKINDLE_TRAINER_ADDRESS=0.0.0.0:50053 \
    REKINDLE_TRAINER_HEALTH_ADDRESS=0.0.0.0:50063 \
    REKINDLE_TRAINER_DATABASE_URL=sqlite:////var/lib/rekindle/trainer.sqlite3 \
    REKINDLE_TRAINER_OBJECTS_DIRECTORY=/var/lib/rekindle/objects \
    REKINDLE_TRAINER_STATE_DIRECTORY=/var/lib/rekindle/trainer \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# Everything that is written lies here and in /tmp, so the rest of the file system may be read-only.
VOLUME ["/var/lib/rekindle"]
WORKDIR /var/lib/rekindle
USER 10001:10001
EXPOSE 50053 50063
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/opt/rekindle/bin/python", "-m", "rekindle_servicekit.probe"]
ENTRYPOINT ["/opt/rekindle/bin/python", "-m", "rekindle_trainer"]
