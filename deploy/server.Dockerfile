# Pages and API; no torch, no vLLM.
FROM node:24-slim AS assets
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
COPY static static
RUN npm ci --ignore-scripts --omit=optional && npm run vendor

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 grow && mkdir /data && chown grow /data
WORKDIR /app
COPY requirements/server.txt requirements/demo.txt requirements/stores.txt requirements/
RUN pip install --no-cache-dir --no-deps -r requirements/server.txt -r requirements/demo.txt -r requirements/stores.txt
COPY . .
COPY --from=assets /app/static/vendor static/vendor
RUN pip install --no-cache-dir --no-deps -e .
USER grow
VOLUME /data
CMD ["grow", "server"]
