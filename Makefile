# The two targets that users of the original demo know. Everything else is plain cargo.

.PHONY: proto bmdemo

# Generated code is made by build.rs; this checks the protos and regenerates.
proto:
	touch build.rs
	cargo build --locked
	@if command -v buf >/dev/null; then cd proto && buf lint; else echo "buf is not installed: lint skipped" >&2; fi

# Binaries to bin/.
bmdemo:
	cargo build --release --locked --bins
	mkdir -p bin
	cp target/release/bmdemo-server target/release/bmdemo-cli bin/
