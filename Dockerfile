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
RUN useradd --uid 10001 --create-home techdeck \
    && install -d -o techdeck /data /data/artifacts /data/spool
COPY --from=build /opt/techdeck /opt/techdeck
ENV PATH=/opt/techdeck/bin:$PATH REMAP_SIGTERM=SIGQUIT PYTHONUNBUFFERED=1
USER techdeck
WORKDIR /data
CMD ["techdeck", "--help"]
