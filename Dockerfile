# syntax=docker/dockerfile:1

# The version of rust-toolchain.toml, which is not copied: it also asks for clippy and rustfmt. Both digests are those of
# multi-platform indexes; Renovate keeps them up to date.
FROM rust:1.95-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1 AS build
WORKDIR /src

# The dependencies, in a layer that stays valid until a manifest or the lock file changes. Cargo wants a manifest and a
# target of every workspace member, also of those that are not built here, so each gets an empty one.
COPY Cargo.toml Cargo.lock ./
COPY knowledge/Cargo.toml knowledge/Cargo.toml
COPY simulator/Cargo.toml simulator/Cargo.toml
COPY testing/Cargo.toml testing/Cargo.toml
COPY xtask/Cargo.toml xtask/Cargo.toml
RUN for member in . knowledge simulator testing xtask; do \
        mkdir -p "$member/src" \
        && touch "$member/src/lib.rs" \
        && echo 'fn main() {}' >"$member/src/main.rs" || exit 1; \
    done
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo build --release --locked --package composio-operator

# The operator. Cargo tells by modification times what changed, and a copied file may be older than the empty target.
COPY src src
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    touch src/lib.rs src/main.rs \
    && cargo build --release --locked --package composio-operator

# glibc, libgcc and the CA certificates; no shell. The same Debian as above, so that its glibc is not older.
FROM gcr.io/distroless/cc-debian12:nonroot@sha256:9dac0a79194e45a7da0158a9c6da57b217585af0786db3845d1f0ec1a0dd182f
COPY --from=build /src/target/release/composio-operator /usr/local/bin/composio-operator
# As a number, so that Kubernetes can tell that it is not root.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/composio-operator"]
CMD ["run"]
