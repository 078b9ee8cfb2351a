# The router and the migrate tool.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --release --package switchyard-router --package switchyard-migrate

FROM debian:bookworm-slim
RUN useradd --system --no-create-home --shell /usr/sbin/nologin switchyard
COPY --from=build /src/target/release/switchyard /src/target/release/switchyard-migrate /usr/local/bin/
USER switchyard
EXPOSE 6432 6433
ENTRYPOINT ["switchyard"]
CMD ["run", "--config", "/etc/switchyard/switchyard.toml"]
