#!/usr/bin/env bash
# Tests `engines` for real, in a state folder and on ports of its own; what runs on the default ones is left alone.
# Downloads are shared with OPENMETER_ENGINES_CACHE, or the default state folder: they are not what is tested here.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
WORK=$(mktemp -d)
BASE=$((20000 + $$ % 10000))
CACHE=$(realpath -m "${OPENMETER_ENGINES_CACHE:-$HERE/../../../.state}")
unset OPENMETER_KAFKA_BROKER OPENMETER_CLICKHOUSE_ADDRESS OPENMETER_VALKEY_URL OPENMETER_POSTGRES_URL
export OPENMETER_ENGINES_CACHE=$CACHE
export OPENMETER_STATE_DIR=$WORK/state
export OPENMETER_KAFKA_PORT=$BASE OPENMETER_KAFKA_CONTROLLER_PORT=$((BASE + 1))
export OPENMETER_CLICKHOUSE_PORT=$((BASE + 2)) OPENMETER_VALKEY_PORT=$((BASE + 3))
export OPENMETER_POSTGRES_PORT=$((BASE + 4))
ENGINES=(kafka clickhouse valkey postgresql)

passed=0
failed=0

engines() { "$HERE/engines" "$@"; }

# check "a sentence" COMMAND...: passes when the command succeeds.
check() {
    local sentence=$1 output code
    shift
    # Not in an `if`: there bash would go on after a failed line of the command.
    set +e
    output=$(
        set -e
        "$@" 2>&1
    )
    code=$?
    set -e
    if ((code == 0)); then
        passed=$((passed + 1))
        echo "ok      $sentence"
    else
        failed=$((failed + 1))
        echo "FAILED  $sentence"
        printf '%s\n' "$output" | sed 's/^/        | /'
    fi
}

# refuses PATTERN COMMAND...: the command fails, with one sentence on stderr that matches.
refuses() {
    local pattern=$1 sentence
    shift
    if sentence=$("$@" 2>&1 >/dev/null); then
        echo "it succeeded" && return 1
    fi
    echo "$sentence"
    [[ $(wc -l <<<"$sentence") -eq 1 ]] && grep -Eq -- "$pattern" <<<"$sentence"
}

fails() { ! "$@"; }

says() {
    local pattern=$1 output
    shift
    output=$("$@" 2>&1) || true
    echo "$output"
    grep -Eq -- "$pattern" <<<"$output"
}

pid() { cut -d' ' -f1 "$OPENMETER_STATE_DIR/$1/pid"; }

clickhouse() { curl -fsS "http://127.0.0.1:$OPENMETER_CLICKHOUSE_PORT/" --data-binary "$1"; }

kafka() { java -cp "$CACHE/kafka/libs/*" "$HERE/kafka/Records.java" "127.0.0.1:$OPENMETER_KAFKA_PORT" "$@"; }

postgresql() { psql -qAtX "postgres://openmeter@127.0.0.1:$OPENMETER_POSTGRES_PORT/openmeter" -c "$1"; }

valkey() {
    exec 3<>"/dev/tcp/127.0.0.1/$OPENMETER_VALKEY_PORT"
    printf '%s\r\n' "$1" >&3
    read -r -t 5 answer <&3
    echo "${answer%$'\r'}"
    exec 3>&-
}

cleanup() {
    local name
    for name in "${ENGINES[@]}"; do engines kill "$name" &>/dev/null || true; done
    rm -rf "$WORK"
}
trap cleanup EXIT

# ---- What must not start anything ------------------------------------------------------------------------------------

nothing_runs() { [[ ! -e $OPENMETER_STATE_DIR/$1/pid ]]; }

without_java_and_maven() {
    local farm=$WORK/farm dir
    mkdir -p "$farm"
    for dir in ${PATH//:/ }; do ln -s -t "$farm" "$dir"/* 2>/dev/null || true; done
    rm -f "$farm/java" "$farm/mvn"
    PATH=$farm OPENMETER_ENGINES_CACHE=$WORK/empty engines start kafka
}

with_a_broken() {
    mkdir -p "$WORK/broken"
    printf '#!/bin/sh\necho no network >&2\nexit 1\n' >"$WORK/broken/$1"
    chmod +x "$WORK/broken/$1"
    PATH=$WORK/broken:$PATH OPENMETER_ENGINES_CACHE=$WORK/empty engines start "$2"
}

nothing_is_installed() { [[ ! -e $WORK/empty/kafka/libs && ! -e $WORK/empty/kafka/libs.version ]]; }

with_its_port_taken() {
    python3 -m http.server --bind 127.0.0.1 "$OPENMETER_VALKEY_PORT" &>/dev/null &
    local server=$! code=0
    until (: >"/dev/tcp/127.0.0.1/$OPENMETER_VALKEY_PORT") 2>/dev/null; do sleep 0.05; done
    engines up || code=$?
    kill "$server"
    wait "$server" 2>/dev/null || true
    return $code
}

check "env prints the addresses" says "^export OPENMETER_KAFKA_BROKER=127.0.0.1:$BASE\$" engines env
check "status fails while nothing runs" fails engines status
check "down does nothing when nothing runs" says "valkey +not running" engines down
check "a taken port is one sentence that names the port and its owner" \
    refuses "port $OPENMETER_VALKEY_PORT, which valkey needs, is taken by .*python" with_its_port_taken
check "no engine was started beside the taken port" nothing_runs kafka
check "missing tools are one sentence that names all of them" refuses "java .*mvn" without_java_and_maven
check "a failed download is one sentence that names its log" \
    refuses "downloading Kafka .* failed, see $WORK/state/kafka/download_kafka.log" with_a_broken mvn kafka
check "a failed download leaves nothing installed" nothing_is_installed
check "an unknown engine is refused" refuses "name one engine" engines start postgres

# ---- Up --------------------------------------------------------------------------------------------------------------

# Starts `up` while another holds the lock; it must wait for it.
second_up_waits() {
    local waiting
    exec 7>"$OPENMETER_STATE_DIR/lock"
    flock 7
    engines up >"$WORK/waiting" 7>&- &
    waiting=$!
    sleep 0.5
    [[ -d /proc/$waiting ]] && grep -q "waiting for another" "$WORK/waiting"
    exec 7>&-
    wait "$waiting"
}

is_a_daemon() {
    local name process
    for name in "${ENGINES[@]}"; do
        process=$(pid "$name")
        [[ $(awk '{ print $6 }' "/proc/$process/stat") == "$process" ]]
        [[ $(readlink "/proc/$process/fd/0") == /dev/null ]]
        fails grep -Ex "($OPENMETER_STATE_DIR|$CACHE)/(download\.)?lock" <(readlink "/proc/$process/fd"/*)
    done
}

up_again_is_quick() {
    local began=${EPOCHREALTIME/[.,]/} output
    output=$(engines up)
    echo "$output"
    [[ $(grep -c "already running" <<<"$output") -eq ${#ENGINES[@]} ]]
    (((${EPOCHREALTIME/[.,]/} - began) < 1000000))
}

check "up brings all engines up" engines up
check "status succeeds while all run" says "valkey +up .* MB" engines status
check "each engine is a daemon that holds no lock of ours" is_a_daemon
check "up again is a no-op within a second" up_again_is_quick
check "a second up waits for the first" second_up_waits
check "other ports for a running engine are refused" \
    refuses "runs on port $OPENMETER_VALKEY_PORT, not 1;" env OPENMETER_VALKEY_PORT=1 "$HERE/engines" start valkey

# ---- Killed ----------------------------------------------------------------------------------------------------------

data_is_written() {
    kafka create durable
    kafka produce durable
    clickhouse "CREATE DATABASE IF NOT EXISTS kept"
    clickhouse "CREATE TABLE kept.t (n UInt64) ENGINE = MergeTree ORDER BY n"
    clickhouse "INSERT INTO kept.t SELECT number FROM numbers(1000)"
    postgresql "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n"
    [[ $(valkey "SET key value") == +OK ]]
}

all_are_killed() {
    local name
    for name in "${ENGINES[@]}"; do engines kill "$name"; done
    fails engines status
}

kafka_has_its_records() { [[ $(kafka count durable) == 1000 ]]; }
clickhouse_has_its_rows() { [[ $(clickhouse "SELECT count() FROM kept.t") == 1000 ]]; }
postgresql_has_its_rows() { [[ $(postgresql "SELECT count(*) FROM kept") == 1000 ]]; }
valkey_is_empty() { [[ $(valkey DBSIZE) == :0 ]]; }

postgresql_with_a_client() {
    local client tries
    postgresql "SELECT pg_sleep(300)" &
    client=$!
    for ((tries = 0; tries < 100; tries++)); do
        [[ $(postgresql "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(300)'") == 0 ]] || break
    done
    engines restart postgresql
    fails wait "$client"
    engines kill postgresql
    engines start postgresql
    postgresql_has_its_rows
}

postgresql_is_modest() {
    local port
    [[ $(stat -c %u "/proc/$(pid postgresql)") != 0 ]]
    port=$(printf ':%04X' "$OPENMETER_POSTGRES_PORT")
    [[ $(awk -v port="$port" '$2 ~ port "$" && $4 == "0A" { print $2 }' /proc/net/tcp) == "0100007F$port" ]]
    fails grep -qi "$port .* 0A" /proc/net/tcp6
}

pid_changes() {
    local before
    before=$(pid valkey)
    engines "$@"
    [[ $(pid valkey) != "$before" ]]
}

check "all engines take data" data_is_written
check "a topic is not made by writing to it" fails kafka produce mistyped
check "kill -9 leaves none running" all_are_killed
check "up after kill -9" engines up
check "Kafka has its records after kill -9" kafka_has_its_records
check "ClickHouse has its rows after kill -9" clickhouse_has_its_rows
check "PostgreSQL has its rows after kill -9" postgresql_has_its_rows
check "Valkey begins empty" valkey_is_empty
check "restart gives a new process" pid_changes restart valkey
check "PostgreSQL stops though a client stays, and starts again after kill -9 at once" postgresql_with_a_client
check "PostgreSQL is not root, and listens on loopback alone" postgresql_is_modest

# ---- Elsewhere -------------------------------------------------------------------------------------------------------

external() {
    env OPENMETER_VALKEY_URL="$1" OPENMETER_VALKEY_PORT=1 OPENMETER_STATE_DIR="$WORK/other" "$HERE/engines" "${@:2}"
}
THERE=redis://127.0.0.1:$OPENMETER_VALKEY_PORT/0

check "status shows an external engine" says "valkey +external +$THERE" external "$THERE" status
check "an external engine that is silent is refused" refuses "which does not answer" external redis://127.0.0.1:2 up
check "an external engine is not ours to stop" refuses "not ours to stop" external "$THERE" stop valkey
check "our own address is not external" \
    says "valkey +up" env OPENMETER_VALKEY_URL="$THERE" "$HERE/engines" status

# ---- Down ------------------------------------------------------------------------------------------------------------

# A pid file from before a reboot names a stranger: its pid, another start time.
a_stranger_survives() {
    local stranger
    sleep 300 &
    stranger=$!
    echo "$stranger 1 $OPENMETER_VALKEY_PORT" >"$OPENMETER_STATE_DIR/valkey/pid"
    engines stop valkey
    echo "$stranger 1 $OPENMETER_VALKEY_PORT" >"$OPENMETER_STATE_DIR/valkey/pid"
    fails engines kill valkey
    kill "$stranger" # fails when it is gone
}

nothing_is_left() {
    local name process pids=""
    for name in "${ENGINES[@]}"; do pids+=" $(pid "$name")"; done
    engines kill clickhouse # down must manage with one that is dead already
    engines down
    for process in $pids; do
        [[ ! -d /proc/$process ]] || grep -q '^State:.*zombie' "/proc/$process/status"
    done
    fails grep -ls "$OPENMETER_STATE_DIR" /proc/[0-9]*/cmdline
}

data_is_deleted() { [[ ! -e $OPENMETER_STATE_DIR/kafka/data && -d $CACHE/kafka/libs ]]; }

check "down leaves nothing running" nothing_is_left
check "status fails after down" fails engines status
check "a stranger with our old pid survives" a_stranger_survives
check "clean works when all is down" engines clean
check "clean deletes data and keeps downloads" data_is_deleted

echo "$passed passed, $failed failed"
((failed == 0))
