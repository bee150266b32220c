# shellcheck shell=bash
# Sourced by ./run: the .deb in a clean Debian. A removal keeps settings, state and logs; a purge removes what the agent has written, but the
# state only if no container of a task is left.

: "${cache:?}" "${work:?}" "${root:?}" "${log:?}"
part=${part:-}
wants=etc/systemd/system/multi-user.target.wants

# As an operator does it, but without anything from the network. The input is empty: a question would fail.
in_root() { chroot "$root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@" </dev/null; }
apt() { in_root apt-get -q -y --no-install-recommends --allow-downgrades "$@"; }
package() { echo "/packages/ecs-agent_$1-1_amd64.deb"; }
# shellcheck disable=SC2016
version() { in_root dpkg-query -W -f '${db:Status-Abbrev}${Version}' ecs-agent; }

fresh_root() {
    rm -rf "${root:?}"
    cp -a "$cache/$part" "$root"
    echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/sooner" # nobody needs these files after a power cut
    mkdir -p "$root/packages"
    cp "$work"/packages/*.deb "$root/packages/"
}
# All files but those in which dpkg and apt write what they do, and an empty directory of systemd's.
everything() {
    (cd "$root" && find . -not -path "./$wants" -not \( -path './var/lib/dpkg*' -o -path './var/log/*' -o -path './var/cache/*' -o -path './var/lib/apt/*' \
        -o -path './packages*' -o -path './tmp/*' \) | LC_ALL=C sort)
}
# Where the root has the programs of systemd, they do it, although no systemd runs.
enable_by_hand() {
    if has usr/bin/systemctl; then
        in_root systemctl --quiet enable ecs.service 2>/dev/null # it mentions that there is no /proc
        return
    fi
    mkdir -p "$root/$wants"
    ln -sf /usr/lib/systemd/system/ecs.service "$root/$wants/ecs.service"
}
# A `docker` in the root that gives this answer. (apt lets scripts find no program in /usr/local.)
docker_says() {
    printf '#!/bin/sh\necho "%s"\n' "$1" >"$root/usr/bin/docker"
    chmod 0755 "$root/usr/bin/docker"
}

deb_life() {
    local before
    same "files, modes and owners" "$(files zsh/vendor-completions)" "$(dpkg-deb -c "$root$(package 1.0.0)" |
        awk '$1 !~ /^d/ { sub(/^\./, "", $6); sub(/^l---------/, "lrwxrwxrwx", $1); print $1, $2, $6 ($7 ? " " $7 " " $8 : "") }' |
        LC_ALL=C sort -k 3)"
    expect "is installed" apt install "$(package 1.0.0)"
    expect "its program runs, found by PATH" agent_runs
    expect "there is no ecs.config" hasnt etc/ecs/ecs.config
    same "nothing is enabled" "" "$(find "$root/etc/systemd/system" -name 'ecs*')"

    live_here
    enable_by_hand
    before=$(lives)
    expect "is upgraded" apt install "$(package 1.1.0)"
    same "the new version is there" "ii 1.1.0-1" "$(version)"
    same "settings, state and logs are as before the upgrade" "$before" "$(lives)"
    expect "is still enabled" has $wants/ecs.service
    expect "goes back to the earlier version" apt install "$(package 1.0.0)"
    same "the earlier version is there" "ii 1.0.0-1" "$(version)"
    expect "is removed" apt remove ecs-agent
    expect "its program is gone" hasnt usr/libexec/ecs-agent
    same "settings, state and logs are as before the removal" "$before" "$(lives)"
    expect "is installed again" apt install "$(package 1.1.0)"
    expect "is enabled as before" has $wants/ecs.service
}

deb_purge() {
    local before
    before=$(everything)
    apt install "$(package 1.0.0)" >"$work/output" 2>&1
    live_here
    enable_by_hand
    echo old >"$root/var/lib/ecs/data/agent.db"
    expect "is purged while Docker does not answer" apt purge ecs-agent
    expect "the state stays when Docker does not answer" has var/lib/ecs/data/ecs-agent.redb
    expect "the purge says so" grep -q 'the state of tasks stays in /var/lib/ecs/data' "$work/output.last"
    same "logs are purged" "" "$(find "$root/var/log/ecs" -type f 2>/dev/null)"
    expect "is not enabled any more" hasnt $wants/ecs.service

    docker_says 0123456789ab
    apt install "$(package 1.0.0)" >"$work/output" 2>&1
    expect "is purged with the container of a task" apt purge ecs-agent
    expect "the state stays while a container of a task is left" has var/lib/ecs/data/ecs-agent.redb

    docker_says ""
    apt install "$(package 1.0.0)" >"$work/output" 2>&1
    expect "is purged without containers" apt purge ecs-agent
    same "only the state of the Go agent is left" agent.db "$(find "$root/var/lib/ecs/data" -mindepth 1 -printf '%P\n')"
    same "settings are the operator's" 'ECS_CLUSTER="mine"' "$(cat "$root/etc/ecs/ecs.config")"

    rm -r "$root/var/lib/ecs/data/agent.db" "$root/etc/ecs/ecs.config" "$root/etc/systemd/system/ecs.service.d" "$root/usr/bin/docker"
    apt install "$(package 1.0.0)" >"$work/output" 2>&1
    expect "is purged once more" apt purge ecs-agent
    same "nothing of ours is left" "$before" "$(everything)"
}

# A package with the names and the habits of amazon-ecs-init: its unit has the name of ours, and its removal masks it, as debhelper does.
other_package() {
    local tree="$work/other"
    rm -rf "$tree"
    mkdir -p "$tree/DEBIAN" "$tree/usr/lib/systemd/system" "$tree/usr/libexec"
    printf '%s\n' 'Package: amazon-ecs-init' 'Version: 1.105.1-1' 'Architecture: amd64' 'Maintainer: nobody <nobody@localhost>' \
        'Description: stands for the package of ecs-init' >"$tree/DEBIAN/control"
    printf '[Service]\nExecStart=/usr/libexec/amazon-ecs-init start\n[Install]\nWantedBy=multi-user.target\n' >"$tree/usr/lib/systemd/system/ecs.service"
    : >"$tree/usr/libexec/amazon-ecs-init"
    cat >"$tree/DEBIAN/postinst" <<'SCRIPT'
#!/bin/sh
deb-systemd-helper unmask ecs.service >/dev/null
deb-systemd-helper update-state ecs.service
SCRIPT
    cat >"$tree/DEBIAN/postrm" <<'SCRIPT'
#!/bin/sh
[ "$1" != remove ] || deb-systemd-helper mask ecs.service >/dev/null
[ "$1" != purge ] || { deb-systemd-helper purge ecs.service && deb-systemd-helper unmask ecs.service; } >/dev/null
SCRIPT
    chmod 0755 "$tree/DEBIAN/postrm" "$tree/DEBIAN/postinst"
    dpkg-deb --root-owner-group -b "$tree" "$root/packages/amazon-ecs-init.deb" >/dev/null
}

deb_in_place_of_ecs_init() {
    local before
    other_package
    apt install /packages/amazon-ecs-init.deb >"$work/output" 2>&1
    live_here
    enable_by_hand
    echo old >"$root/var/lib/ecs/data/agent.db"
    before=$(lives)
    expect "is installed in place of amazon-ecs-init" apt install "$(package 1.0.0)"
    expect "ecs-init is gone" hasnt usr/libexec/amazon-ecs-init
    expect "the unit is ours" grep -q '^ExecStart=/usr/libexec/ecs-agent' "$root/usr/lib/systemd/system/ecs.service"
    expect "the unit is not masked" hasnt etc/systemd/system/ecs.service
    expect "what was enabled is enabled" has $wants/ecs.service
    same "settings and state are as before" "$before" "$(lives)"
    expect "amazon-ecs-init comes back" apt install /packages/amazon-ecs-init.deb
    expect "its unit is in place" grep -q amazon-ecs-init "$root/usr/lib/systemd/system/ecs.service"
    expect "our program is gone" hasnt usr/libexec/ecs-agent
    same "settings and state are still there" "$before" "$(lives)"
}

deb_calls() {
    apt purge amazon-ecs-init ecs-agent >"$work/output" 2>&1
    record_systemctl usr/bin
    apt install "$(package 1.0.0)" >"$work/output" 2>&1
    same "an installation starts and enables nothing" "daemon-reload" "$(calls)"
    apt install "$(package 1.1.0)" >"$work/output" 2>&1
    same "an upgrade starts a running agent anew, and waits for nothing" $'daemon-reload\n--no-block try-restart ecs.service' "$(calls)"
    printf '[Unit]\n' >"$root/etc/systemd/system/ecs.service"
    expect "goes back" apt install "$(package 1.0.0)"
    expect "a unit in /etc that hides ours is mentioned" grep -q '^ecs-agent: /etc/systemd/system/ecs.service is used' "$work/output.last"
    same "going back does the same as an upgrade" $'daemon-reload\n--no-block try-restart ecs.service' "$(calls)"
    apt remove ecs-agent >"$work/output" 2>&1
    same "a removal stops the agent and its rules" $'stop ecs.service ecs-host-*\ndaemon-reload' "$(calls)"
}

