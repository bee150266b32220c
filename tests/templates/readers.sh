# shellcheck shell=bash
# Sourced by `run` and `used`, after tests/support/install.sh: a Python with the programs that read templates and policies.

: "${tools:?}" "${log:?}"

# Independent readers of templates and policies. parliament has AWS's list of actions, resources and conditions.
wanted="cfn-lint==1.51.0 moto[cloudformation,autoscaling,ec2,ecr,iam,s3,ssm,server]==5.2.1 parliament==1.6.4 setuptools<81"
install_readers() {
    [ "$(cat "$tools/templates/wanted" 2>/dev/null)" = "$wanted" ] && return
    if ! { have python3 && python3 -c 'import ensurepip, venv'; } 2>/dev/null; then
        packages "Python" "python3 python3-venv" "python3 python3-pip"
    fi
    say "    installing cfn-lint, moto and parliament (into target/tools)"
    make_venv >>"$log" 2>&1 || return 1
    printf '%s' "$wanted" >"$tools/templates/wanted"
}

# Each word of $wanted is one argument.
# shellcheck disable=SC2086
make_venv() { python3 -m venv "$tools/templates" && "$tools/templates/bin/pip" install -q $wanted; }

# Without them the caller ends: skipped, or failed where they are required.
need_readers() {
    install_readers && return
    [ "${ECS_TEST_REQUIRE_MOTO:-}" != 1 ] || die "cfn-lint, moto and parliament cannot be installed (see $log)"
    say "SKIPPED: cfn-lint, moto and parliament cannot be installed (see $log)"
    exit 0
}

# No compiled files beside the sources.
export PYTHONDONTWRITEBYTECODE=1
