# DeepSpeed on CUDA; nvcc is in the image because DeepSpeed builds some operators at run time. Untested on a GPU.
FROM pytorch/pytorch:2.13.0-cuda13.0-cudnn9-devel
RUN apt-get update && apt-get install -y --no-install-recommends procps && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 grow && mkdir -p /data && chown grow /data
WORKDIR /app
COPY requirements requirements
RUN pip install --no-cache-dir --no-deps -r requirements/server.txt -r requirements/demo.txt -r requirements/stores.txt \
    && grep -vE '^(torch|triton|intel-)' requirements/models.txt > /tmp/models.txt \
    && pip install --no-cache-dir --no-deps -r /tmp/models.txt
COPY . .
RUN pip install --no-cache-dir --no-deps -e .
USER grow
VOLUME /data
CMD ["grow", "train", "--config", "demo", "--run", "demo"]
