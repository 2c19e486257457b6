# syntax=docker/dockerfile:1

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# Only downloads are cached. Cargo tells what changed by modification times, which a copied context does not keep apart
# well enough to trust a cached target folder.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo build --release --locked --package composio-operator

# glibc, libgcc and the CA certificates; no shell. The same Debian as above, so that its glibc is not older.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/composio-operator /usr/local/bin/composio-operator
# As a number, so that Kubernetes can tell that it is not root.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/composio-operator"]
CMD ["run"]
