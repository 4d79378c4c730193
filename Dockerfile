FROM python:3.11-slim AS build
WORKDIR /src
# mypyc makes C of the modules that pyproject.toml lists.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY gateway gateway
COPY examples examples
RUN python -m venv /opt/gateway \
 && HATCH_BUILD_HOOKS_ENABLE=true \
    /opt/gateway/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt '.[examples,redis]'

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 gateway
COPY --from=build /opt/gateway /opt/gateway
COPY examples /srv/gateway/examples
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONUNBUFFERED=1
WORKDIR /srv/gateway
USER 10001
EXPOSE 8000 50051
# SIGTERM drains: docker stop should give it longer than [server] drain_timeout_s.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
# It listens on all addresses, so it does not start before it knows who may come in: -e GATEWAY_AUTH__KEYS='me sha256:… tools:*', a line
# of `gateway keys new` (docs/authentication.md). Tools of your own: mount their file and name it as the argument.
ENTRYPOINT ["gateway", "serve", "--host", "0.0.0.0", "--grpc-address", "0.0.0.0:50051"]
CMD ["examples/ml_streaming.py"]
