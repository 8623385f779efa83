# A server for a model repository: x86-64 or SBSA (arm64), with an NVIDIA GPU or without. See docs/jetson.md.
#
#   docker build -t edgeseg .
#   docker run --rm --gpus all --ipc=host -p 8000-8002:8000-8002 -v "$PWD/triton_repo:/models:ro" edgeseg
#
# For JetPack 7.2 build it on the Jetson with the tag of that row in bench/seg_bench/doctor/targets.py.
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver
ARG TRITON_TAG=26.10-py3

FROM ${TRITON_IMAGE}:${TRITON_TAG} AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY export ./export
COPY runtime ./runtime
COPY bench ./bench
# An environment of its own, so that the image's Python and NumPy, which Triton's python backend uses, stay
# as they are; it sees the image's packages, for pip and for TensorRT's bindings where they are there.
RUN python3 -m venv --without-pip --system-site-packages /opt/edgeseg \
    && /opt/edgeseg/bin/python -m pip install --no-cache-dir .

FROM ${TRITON_IMAGE}:${TRITON_TAG}
COPY --from=build /opt/edgeseg /opt/edgeseg
# Links, because the python backend looks for its packages beside the first python3 on PATH.
RUN ln -s /opt/edgeseg/bin/seg-* /usr/local/bin/
# The user triton-server of the image, by number.
USER 1000:1000
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=30s --timeout=5s --start-period=300s --retries=3 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)"]
ENTRYPOINT ["seg-serve", "/models", "--host", "0.0.0.0"]
