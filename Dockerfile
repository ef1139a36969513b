# The official image of PostgreSQL with taskshed in it, loaded:
#
#   docker build -t taskshed --build-arg PG_MAJOR=18 .
#   docker run -d --name shop -e POSTGRES_PASSWORD=secret taskshed
#
# What is left is CREATE EXTENSION taskshed in the databases that are to have tasks.
ARG PG_MAJOR=18

FROM postgres:${PG_MAJOR} AS build
RUN apt-get update && \
    apt-get install -y --no-install-recommends gcc libc6-dev make "postgresql-server-dev-$PG_MAJOR"
WORKDIR /build
COPY . .
# No bitcode: nothing of it would be worth inlining, and it would need LLVM.
RUN make with_llvm=no && make with_llvm=no DESTDIR=/installed install

FROM postgres:${PG_MAJOR}
LABEL org.opencontainers.image.title="taskshed" \
      org.opencontainers.image.description="PostgreSQL with taskshed, a scheduler in the database" \
      org.opencontainers.image.source="https://github.com/taskshed/taskshed" \
      org.opencontainers.image.licenses="PostgreSQL"
COPY --from=build /installed /
COPY LICENSE /usr/share/doc/taskshed/
# A cluster that is made in this image begins with the settings of this file.
RUN echo "shared_preload_libraries = taskshed" >>"/usr/share/postgresql/$PG_MAJOR/postgresql.conf.sample"
