# `looklisten serve` in a container, not as root. For an NVIDIA GPU:
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 -t looklisten .
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

RUN useradd --create-home --uid 10001 looklisten
WORKDIR /app
# PyTorch first: it is the largest part, and changes least.
RUN pip install --no-cache-dir --index-url ${TORCH_INDEX} torch
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir '.[serve,search]'

USER looklisten
WORKDIR /home/looklisten
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD \
    ["python", "-c", "import urllib.request as web; web.urlopen('http://127.0.0.1:8080/healthz', timeout=3)"]
ENTRYPOINT ["looklisten"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080"]
