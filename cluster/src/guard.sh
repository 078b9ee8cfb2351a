# Waits until its standard input ends, which the system does when the process that started us dies, however it dies.
# Then it stops every PostgreSQL below the directory $1 and, if $2 is "remove", removes the directory.
# The word "done" on standard input says that all this has happened already.
trap '' HUP INT TERM QUIT
base=$1
after=$2
if read -r word && [ "$word" = done ]; then exit 0; fi

# Prints the process of the server in directory $1, if it is that server's and alive.
server() {
    [ -r "$1/postmaster.pid" ] || return 1
    read -r pid < "$1/postmaster.pid" || return 1
    kill -0 "$pid" 2>/dev/null || return 1
    if [ -e "/proc/$pid/cwd" ]; then
        [ "$(readlink "/proc/$pid/cwd")" = "$(cd "$1" && pwd -P)" ] || return 1
    fi
    echo "$pid"
}

stop_all() {
    for data in "$base"/*/data; do
        pid=$(server "$data") || continue
        # A paused server does not hear anything else.
        for paused in "$pid" $(cat "/proc/$pid/task/$pid/children" 2>/dev/null); do kill -CONT "$paused" 2>/dev/null; done
        if [ "$after" = remove ]; then kill -QUIT "$pid"; else kill -INT "$pid"; fi
    done
    for data in "$base"/*/data; do
        waited=0
        while pid=$(server "$data"); do
            if [ "$waited" -ge 300 ]; then kill -KILL "$pid"; fi
            waited=$((waited + 1))
            sleep 0.1
        done
    done
}

# Programs that were filling the directory may still be at it: again until it is gone.
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    stop_all
    [ "$after" = remove ] || exit 0
    rm -rf "$base" 2>/dev/null
    [ -e "$base" ] || exit 0
    sleep 0.2
done
