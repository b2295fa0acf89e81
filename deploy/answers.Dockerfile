# One checkpoint as a question-answering API, on a processor: no database, no broker, nothing of the site.
#   docker build -f deploy/answers.Dockerfile -t grow-answers .
#   docker run --rm -p 8080:8080 -e HF_ENDPOINT=https://SITE -e GROW_MODEL=RUN -e GROW_REVISION=step-1000 grow-answers
#   docker run --rm -p 8080:8080 -v FOLDER:/model:ro -e GROW_MODEL=/model grow-answers
FROM python:3.11-slim
RUN useradd --create-home --uid 10001 grow && mkdir /data && chown grow /data
WORKDIR /app
COPY requirements/answers.txt requirements/
RUN pip install --no-cache-dir --no-deps --extra-index-url https://download.pytorch.org/whl/cpu -r requirements/answers.txt
COPY analysis analysis
COPY registry registry
COPY worker worker
USER grow
ENV GROW_HOME=/data \
    HF_HOME=/data/huggingface \
    GROW_BIND=0.0.0.0 \
    GROW_ENGINE=transformers \
    PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=4)"]
CMD ["python", "-m", "worker.answers"]
