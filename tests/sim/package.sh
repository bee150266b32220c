#!/bin/sh
# Makes a small package of the core and the simulator alone, in one crate, so that a build takes seconds.
#   tests/sim/package.sh directory
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$1/src"
cd "$1"
find src -mindepth 1 -delete
cp -r "$root/src/core" "$root/src/model" src/
cp "$root"/tests/sim/seeds.txt src/
(cd "$root/tests/sim" && find . -name '*.rs' ! -name main.rs) | while read -r file; do
    mkdir -p "src/$(dirname "$file")"
    cp "$root/tests/sim/$file" "src/$file"
done
cp "$root/Cargo.lock" "$root/clippy.toml" .
{
    cat "$root/tests/sim/main.rs"
    printf 'extern crate self as ecs_agent;\npub mod core;\npub mod model;\n'
} >src/lib.rs
cat >Cargo.toml <<TOML
[package]
name = "ecs-agent"
version = "0.0.0"
edition = "2024"
[lib]
name = "ecs_agent"
doctest = false
[dependencies]
serde = { version = "1", features = ["derive", "rc"] }
serde_json = { version = "1", features = ["raw_value"] }
serde_path_to_error = "0.1"
thiserror = "2"
url = "2"
zeroize = { version = "1.9", features = ["derive"] }
[dev-dependencies]
proptest = "1"
[profile.test]
debug = false
opt-level = 1
[workspace]
TOML
