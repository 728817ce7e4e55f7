# syntax of any Docker since 17.05; the base image by digest or tag: --build-arg PYTHON_IMAGE=...
ARG PYTHON_IMAGE=python:3.12-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
COPY requirements.lock ./
RUN python3 -m venv /opt/techdeck \
    && /opt/techdeck/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY techdeck_tasks ./techdeck_tasks
RUN /opt/techdeck/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM ${PYTHON_IMAGE}
# Folders that become volumes: a fresh volume takes their owner and mode over.
RUN useradd --uid 10001 --create-home techdeck \
    && install -d -o techdeck -m 700 /data /data/artifacts /data/uploads /data/spool /data/work /data/output /data/beat \
        /keys /keys/producer /keys/reader /keys/signer
COPY --from=build /opt/techdeck /opt/techdeck
ENV PATH=/opt/techdeck/bin:$PATH PYTHONUNBUFFERED=1 \
    TECHDECK_KEYS_DIR=/keys/producer \
    TECHDECK_READER_KEYS_DIR=/keys/reader \
    TECHDECK_SIGNING_KEYS_DIR=/keys/signer \
    TECHDECK_ARTIFACT_URL=file:///data/artifacts \
    TECHDECK_UPLOAD_DIR=/data/uploads \
    TECHDECK_AUDIT_SPOOL_DIR=/data/spool
USER techdeck
WORKDIR /data
# Asks the workers of this container; processes that are none have a check of their own in the compose file.
HEALTHCHECK --interval=30s --timeout=15s --start-period=60s CMD ["techdeck", "worker", "ping"]
CMD ["techdeck", "--help"]
