# logagg without a PostgreSQL of its own: set LOGAGG_DATABASE_URL.
# The image is as old as its base: rebuild it with `docker build --pull` when Python or Debian mend something.

FROM python:3.13-slim-bookworm AS build
WORKDIR /src
# --without-pip: the image that runs needs no installer; the one of this stage fills the environment from outside.
RUN python -m venv --without-pip /opt/logagg
# What may be installed comes first, checked by its hashes, in a layer that is made again only when the lock changes: all
# extras, and what builds logagg. From there on no index is asked.
COPY .ci/lock.txt .ci/
RUN pip download --no-cache-dir --require-hashes --only-binary :all: --dest wheels --requirement .ci/lock.txt
COPY . .
# Extras of logagg that are to be in the image, with commas between: `docker build --build-arg EXTRAS=otel .`
ARG EXTRAS=""
RUN pip --python /opt/logagg/bin/python install --no-cache-dir --no-index --find-links wheels "./${EXTRAS:+[$EXTRAS]}" \
 && /opt/logagg/bin/logagg --version


FROM python:3.13-slim-bookworm
# A number that no distribution gives away, so that files on a mounted volume belong to nobody else.
RUN groupadd --gid 10514 logagg \
 && useradd --uid 10514 --gid logagg --no-create-home --home-dir /var/lib/logagg --shell /usr/sbin/nologin logagg \
 && install --directory --owner logagg --group logagg --mode 0700 /var/lib/logagg
COPY --from=build /opt/logagg /opt/logagg
# Within a container 127.0.0.1 is the container: who may reach these ports is said by `docker run --publish`. That is
# what LOGAGG_INSECURE is about: without it a listener that is open to others wants something to protect it.
ENV PATH=/opt/logagg/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LOGAGG_DATA_DIR=/var/lib/logagg \
    LOGAGG_INSECURE=true \
    LOGAGG_HTTP_LISTEN=0.0.0.0:8000 \
    LOGAGG_TCP_LISTEN=0.0.0.0:5170 \
    LOGAGG_SYSLOG_UDP_LISTEN=0.0.0.0:5140 \
    LOGAGG_SYSLOG_TCP_LISTEN=0.0.0.0:5140 \
    LOGAGG_RELP_LISTEN=0.0.0.0:2514 \
    LOGAGG_FORWARD_LISTEN=0.0.0.0:24224 \
    LOGAGG_GELF_UDP_LISTEN=0.0.0.0:12201 \
    LOGAGG_GELF_TCP_LISTEN=0.0.0.0:12201 \
    LOGAGG_LUMBERJACK_LISTEN=0.0.0.0:5044
EXPOSE 8000/tcp 5170/tcp 5140/tcp 5140/udp 2514/tcp 24224/tcp 12201/tcp 12201/udp 5044/tcp
USER 10514:10514
WORKDIR /var/lib/logagg
# /healthz: the process answers. Whether PostgreSQL does is /readyz, and no reason to start this container anew.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", "\
import http.client, os, sys;\
http = http.client.HTTPConnection('127.0.0.1', int(os.environ['LOGAGG_HTTP_LISTEN'].rpartition(':')[2]), timeout=4);\
http.request('GET', '/healthz');\
sys.exit(http.getresponse().status != 200)"]
# SIGTERM: the listeners close, what was received is stored, then it ends. Give `docker stop` as long as stop_timeout.
STOPSIGNAL SIGTERM
ENTRYPOINT ["logagg"]
CMD ["serve"]
