# shellcheck shell=bash disable=SC2034
# Sourced by the scripts that try or measure patgate: builds it, runs it over folders of its own with a user and a
# token, and at exit stops it and removes what it made. Everything about it is told in the GATEWAY_ variables.

# With KDE's programs comes a back end for sound; the one that plays nothing is small.
client_packages=(age ansible-core apache2 borgbackup cadaver caddy chromium curl davfs2 dbus-daemon default-jdk-headless
    duplicity fail2ban ffmpeg filezilla fuse3 git gvfs gvfs-backends kde-cli-tools keepassxc kio kio-extras lftp
    libglib2.0-bin libhttpclient-java libmono-system4.0-cil libreoffice-writer-nogui litmus logrotate mono-mcs
    mono-runtime nginx openssh-client openssh-sftp-server phonon4qt5-backend-null php-cli php-phpseclib3 prometheus
    putty-tools python3 python3-asyncssh python3-paramiko python3-pexpect python3-uno python3-venv rclone restic rsync
    sshfs sshpass unison vim-tiny)

# build PROFILE: builds the program (dev or release) and sets GATEWAY to its path. A GATEWAY that is set is used as it
# is.
build() {
    [[ -z ${GATEWAY:-} ]] || return 0
    local repository target folder=$1
    repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
    [[ $1 != dev ]] || folder=debug
    (cd "$repository" && cargo build --locked --bin patgate --profile "$1")
    target=$(cd "$repository" && cargo metadata --format-version 1 --no-deps --locked |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
    export GATEWAY=$target/$folder/patgate
}

unset "${!PATGATE_@}"       # no setting of the caller's own server

# as_root SCRIPT [ARGUMENT]...: goes on as root with what was built, where we are not root.
as_root() {
    ((EUID == 0)) || exec sudo env "PATH=$PATH" "GATEWAY=$GATEWAY" "$@"
}

# serve FOLDER [FLAG]...: serves a new folder, with a state folder beside it, both in a new folder below FOLDER.
serve() {
    export GATEWAY_WORK
    GATEWAY_WORK=$(mktemp -d "$1/patgate-XXXXXX")
    shift
    trap stop EXIT
    trap 'exit 130' INT TERM
    export GATEWAY_STATE=$GATEWAY_WORK/state GATEWAY_ROOT=$GATEWAY_WORK/files
    mkdir "$GATEWAY_ROOT"
    : > "$GATEWAY_WORK/out"
    "$GATEWAY" serve --root "$GATEWAY_ROOT" --state "$GATEWAY_STATE" --http 127.0.0.1:0 --sftp 127.0.0.1:0 "$@" \
        < /dev/null > "$GATEWAY_WORK/out" 2> "$GATEWAY_WORK/log" &
    served=$!
    local ready tries=300
    until ready=$(grep -m1 '^patgate ready ' "$GATEWAY_WORK/out"); do
        if ((tries-- == 0)) || ! kill -0 "$served" 2>/dev/null; then
            echo "patgate did not get ready:" >&2
            cat "$GATEWAY_WORK/out" "$GATEWAY_WORK/log" >&2
            exit 1
        fi
        sleep 0.1
    done
    local http=${ready#* http=} sftp=${ready#* sftp=} login=alice token
    http=${http%% *} sftp=${sftp%% *}
    "$GATEWAY" --state "$GATEWAY_STATE" admin user create "$login" > /dev/null
    token=$("$GATEWAY" --state "$GATEWAY_STATE" admin user token -u "$login" -e 1d -q)
    export GATEWAY_DAV_URL=${http%/}/dav/$login/ GATEWAY_DAV_USER=$login GATEWAY_DAV_PASSWORD=$token
    export GATEWAY_DAV_BEARER=$token GATEWAY_DAV_PID=$served
    export GATEWAY_SFTP_HOST=${sftp%:*} GATEWAY_SFTP_PORT=${sftp##*:} GATEWAY_SFTP_USER=$login
    export GATEWAY_SFTP_PASSWORD=$token GATEWAY_SFTP_PID=$served
}

# Ends the program, by force where it does not end by itself, and removes the folders.
stop() {
    local code=$? tries=300
    trap - EXIT
    trap '' PIPE
    set +e              # whatever fails now, the program is ended
    if ((code != 0)) && [[ -s $GATEWAY_WORK/log ]]; then
        echo "the last lines of patgate's log:" >&2
        tail -n 40 "$GATEWAY_WORK/log" >&2
    fi
    kill -TERM "$served" 2>/dev/null
    while kill -0 "$served" 2>/dev/null; do
        if ((tries-- == 0)); then
            echo "patgate did not end within 30 s of SIGTERM" >&2
            kill -KILL "$served"
            code=1
            break
        fi
        sleep 0.1
    done
    wait "$served" 2>/dev/null
    rm -rf "$GATEWAY_WORK"
    exit "$code"
}
