# Shared by the scripts beside it; sourced, never run. Sets up .venv/ (the locked packages and this checkout):
#   .uv/          uv, bootstrapped by pip with its hash (requirements/uv.txt)
#   .venv/        the environment; .venv/.edge-face-stamp is written last, and says what is in it
#   .setup.lock   held while setting up, so that two scripts do not get in each other's way
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$ROOT/.venv
UV=$ROOT/.uv/bin/uv
STAMP=$VENV/.edge-face-stamp
export PATH="$PATH:/usr/sbin:/sbin"  # Debian keeps mosquitto there, out of a plain user's PATH

say() { printf '%s\n' "edge-face: $*" >&2; }

die() {
    say "$@"
    exit 1
}

# Print the comment block at the top of the calling script.
show_help() { awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$0"; }

# apt_install PACKAGE... : install Debian packages, or name the one command to type.
apt_install() {
    local as_root=()
    if ! command -v apt-get >/dev/null; then
        die "please install with your system's package manager, then start again: $*"
    fi
    if [ "$(id -u)" != 0 ]; then
        if ! sudo -n true 2>/dev/null; then
            die "something is missing that only an administrator can install. Type this, then start again:
    sudo apt-get install -y $*"
        fi
        as_root=(sudo -n)
    fi
    say "installing with apt: $*"
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq -y)
    if ! "${apt[@]}" install --no-install-recommends "$@" >/dev/null 2>&1 </dev/null; then
        { "${apt[@]}" update && "${apt[@]}" install --no-install-recommends "$@"; } >&2 </dev/null ||
            die "apt could not install: $* (its message is above)"
    fi
}

# What has to be in .venv: the locks, the project's file, this checkout's place, the interpreter.
fingerprint() {
    {
        printf '%s\n' "$ROOT" "$(readlink -f "$VENV/bin/python")"
        cat "$ROOT/pyproject.toml" "$ROOT"/requirements/{run,dev,service}.txt "$VENV/pyvenv.cfg"
    } 2>/dev/null | sha256sum | cut -d' ' -f1
}

# is_ready LEVEL : whether .venv has what LEVEL (run, dev, service) needs. Only shell, a few milliseconds.
is_ready() {
    local level stamp
    [ -x "$VENV/bin/python" ] && [ -r "$STAMP" ] && read -r level stamp <"$STAMP" || return 1
    [ "$level" = "$1" ] || [ "$level $1" = "dev run" ] || return 1
    [ "$stamp" = "$(fingerprint)" ]
}

# The Pythons of this machine, best first, one path a line: pythons MIN MAX (minor versions of Python 3).
pythons() {
    local name
    for name in python3 python3.13 python3.12 python3.11 python3.14 /usr/bin/python3; do
        command -v "$name" >/dev/null || continue
        # A pyenv shim or a broken installation fails here and is passed over.
        (cd / && "$name" - "$1" "$2" 2>/dev/null) <<'PYTHON' || true
import ctypes, os, sqlite3, ssl, struct, sys, sysconfig
low, high = int(sys.argv[1]), int(sys.argv[2])
fits = sys.version_info[0] == 3 and low <= sys.version_info[1] <= high
fits = fits and sys.implementation.name == "cpython" and struct.calcsize("P") == 8
if fits and not sysconfig.get_config_var("Py_GIL_DISABLED"):
    print(os.path.realpath(sys.executable))
PYTHON
    done
}

# Put uv into .uv/, by hash.
bootstrap_uv() {
    local want
    want=$(cat "$ROOT"/requirements/uv*.txt | sha256sum)
    if [ -x "$UV" ] && [ "$(cat "$ROOT/.uv/stamp" 2>/dev/null)" = "$want" ]; then return; fi
    say "fetching uv, the installer (once)"
    rm -rf "$ROOT/.uv"
    if ! try_uv; then
        # Debian's python3 comes without the means to make an environment, in a package of its own.
        apt_install python3 python3-venv
        try_uv || die "python3 cannot make a virtual environment here, although python3-venv is installed."
    fi
    "$UV" --version >/dev/null 2>&1 || die "the uv that pip fetched does not start on this machine ($(uname -m))."
    printf '%s\n' "$want" >"$ROOT/.uv/stamp"
}

# Any Python 3.6 or later that can make an environment, or has pip, will do for fetching uv.
try_uv() {
    local python
    while read -r python; do
        if "$python" -c 'import ensurepip, venv' 2>/dev/null && "$python" -m venv "$ROOT/.uv" >/dev/null 2>&1; then
            if ! "$ROOT/.uv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 8))'; then
                # Ubuntu 18.04 (JetPack 4): its pip knows neither today's wheels nor that uv needs no Python to run.
                pip_install "$ROOT/.uv/bin/python" -r "$ROOT/requirements/uv-old-python.txt"
                pip_install "$ROOT/.uv/bin/python" --ignore-requires-python -r "$ROOT/requirements/uv.txt"
            else
                pip_install "$ROOT/.uv/bin/python" -r "$ROOT/requirements/uv.txt"
            fi
            return 0
        fi
        rm -rf "$ROOT/.uv"
        if "$python" -m pip --version >/dev/null 2>&1; then
            pip_install "$python" --target "$ROOT/.uv" -r "$ROOT/requirements/uv.txt"
            return 0
        fi
    done < <(pythons 6 99 | awk '!seen[$0]++')
    return 1
}

pip_install() {
    local python=$1 log
    shift
    log=$("$python" -m pip --disable-pip-version-check install --quiet --no-deps --only-binary :all: --require-hashes \
        "$@" 2>&1 </dev/null) && return
    printf '%s\n' "$log" | tail -n 5 >&2
    die "pip could not fetch uv: is this machine on the Internet, and its clock right? (pip's message is above)"
}

# uv with its progress bars on a terminal, and silent (but for errors) elsewhere.
uv() {
    if [ -t 2 ]; then "$UV" "$@"; else "$UV" --quiet "$@"; fi
}

make_venv() {
    local python
    python=$(pythons 11 14 | head -n 1)
    if [ -n "$python" ]; then
        say "making .venv/ with $("$python" --version)"
        uv venv --clear --no-project --python "$python" "$VENV" </dev/null ||
            die "uv could not make .venv/ (its message is above)."
    else
        say "this machine has no Python 3.11 to 3.14: fetching uv's own Python 3.11"
        uv venv --clear --no-project --managed-python --python 3.11 "$VENV" </dev/null ||
            die "Python 3.11 could not be fetched (uv's message is above). Please install Python 3.11 or later, or let this
machine reach the Internet, and start again."
    fi
}

# Whether .venv has a Python that works and that the locks serve.
venv_works() {
    "$VENV/bin/python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null
}

install_packages() {
    local level=$1
    say "installing the locked packages (requirements/$level.txt); the first time takes some minutes on a small board"
    # --no-deps: the lock is complete, and face_recognition's own wish for `dlib` (hours of compiling) is not followed.
    uv pip install --python "$VENV/bin/python" --no-deps --require-hashes --build-constraints "$ROOT/requirements/$level.txt" \
        -r "$ROOT/requirements/$level.txt" </dev/null ||
        die "the packages could not be installed (uv's message is above). Is this machine on the Internet, and is the disk
full? Start again later: what has been fetched is kept."
    uv pip install --python "$VENV/bin/python" --no-deps --no-build-isolation -e "$ROOT" </dev/null ||
        die "edge-face itself could not be installed into .venv/ (uv's message is above)."
}

# setup LEVEL : afterwards .venv has the locked packages of LEVEL (run; dev = run and the tools; service = the daemon and
# systemd-python) and this checkout.
# Nothing that a developer has is taken away: once dev, .venv stays dev.
setup() {
    is_ready "$1" && return
    local level=$1 tool
    [ "$(getconf LONG_BIT)" = 64 ] || die "edge-face needs a 64-bit system; this one is 32-bit ($(uname -m))."
    for tool in flock sha256sum readlink; do
        command -v "$tool" >/dev/null || die "the command $tool is missing; it is in Debian's util-linux and coreutils."
    done
    [ -w "$ROOT" ] || die "$ROOT belongs to somebody else: set up as that user, or make a clone of your own."
    exec 9>"$ROOT/.setup.lock"
    if ! flock -n 9; then
        say "another set-up is at work in this checkout; waiting for it"
        flock 9
    fi
    if ! is_ready "$level"; then
        [ ! -e "$VENV/.edge-face-dev" ] || level=dev
        # uv and pip inherit the lock: where only this shell is killed, the next one still waits for them.
        (
            bootstrap_uv
            # .edge-face-busy is there while packages change: found here, an earlier set-up was cut off in the middle.
            if [ -e "$VENV/.edge-face-busy" ]; then say "an earlier set-up was interrupted; making .venv/ anew"; fi
            if [ -e "$VENV/.edge-face-busy" ] || ! venv_works; then
                rm -rf "$VENV"
                make_venv
            fi
            : >"$VENV/.edge-face-busy"
            rm -f "$STAMP"
            [ "$level" != dev ] || : >"$VENV/.edge-face-dev"
            install_packages "$level"
            printf '%s %s\n' "$level" "$(fingerprint)" >"$STAMP.new"
            mv "$STAMP.new" "$STAMP"
            rm -f "$VENV/.edge-face-busy"
            say "ready"
        ) || exit 1
    fi
    exec 9>&-
}
