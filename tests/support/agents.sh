# shellcheck shell=bash
# Sourced by tests/run and tests/engines/run: runs the tests of whole agents, several at once. Needs tally.sh.
#
# An agent owns port 51678, so tests of whole agents run one after the other, or each in a network namespace of its own. The port is in
# the range that connections take theirs from, and a connection of an agent that was killed would hold it for a minute: reserved. Docker
# and registries stay in the namespace of this script. Tests that need Docker's network themselves say so in their names; those of the
# recording do too, since the agent chooses its host ports.
#
# An agent that has just taken its lock and has not described itself yet keeps its neighbours from telling which agents run, and then they
# take over no containers. So each of these tests also has the directories of lock files for itself. A test whose
# agent must see the host's files as Docker does says so in its name (on_the_hosts_files), and runs as those on the host's network.

AGENTS_AT_ONCE=4

# In a mount namespace of its own. `host-setup` makes a directory in /mnt.
alone() {
    mkdir -p /run/ecs-agent
    mount -t tmpfs -o mode=755 tmpfs /run/ecs-agent && mount -t tmpfs -o mode=1777 tmpfs /dev/shm && mount -t tmpfs tmpfs /mnt
}

# agents TEST [MODULE...]: the tests of this binary but for the clients of others, or only those of these modules.
agents() {
    local test=$1 names module wanted=() failed=0
    shift
    names=$("$test" --list --format terse | sed -n 's/: test$//p' | grep -v ^upgrade::)
    for module in "$@"; do wanted+=(-e "^$module::"); done
    if [ $# = 0 ]; then
        names=$(grep -v ^clients:: <<<"$names" || true)
    else
        names=$(grep "${wanted[@]}" <<<"$names" || true)
    fi
    [ -n "$names" ] || return 1
    export ECS_TEST_REQUIRE_DOCKER=1 ECS_TEST_DOCKER_NETWORK="/proc/$$/ns/net"
    export -f first_left_out alone
    local apart on_host output
    apart=$(grep -v -e on_the_hosts_ -e golden <<<"$names" || true)
    on_host=$(grep -e on_the_hosts_ -e golden <<<"$names" || true)
    output=$(mktemp)
    # Beside the others. Its output follows theirs.
    agents_on_the_host "$test" "$on_host" >"$output" 2>&1 &
    # shellcheck disable=SC2016  # the inner shell expands
    xargs -r -P "$AGENTS_AT_ONCE" -I '{}' unshare --net --mount --propagation slave \
        bash -c 'ip link set lo up; alone; echo 51678,51680 >/proc/sys/net/ipv4/ip_local_reserved_ports; said=$("$1" --exact "$2" --show-output 2>&1) || { echo "$said"; echo "FAILED $2"; exit 1; }; echo "$said" | first_left_out; echo "ok $2"' - "$test" '{}' <<<"$apart" ||
        failed=1
    wait "$!" || failed=1
    cat "$output"
    rm "$output"
    return "$failed"
}

# One after the other.
agents_on_the_host() {
    local names
    [ -n "$2" ] || return 0
    mapfile -t names <<<"$2"
    ECS_TEST_DOCKER_NETWORK="" "$1" --exact "${names[@]}" --show-output | without_output
}
