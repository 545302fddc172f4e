#!/bin/bash
# Asks the language model about all that recipes/small/synthetic.py chose: the server and all clients on one machine.
#   INPUTS=build/ask GGUF=qwen.gguf RESULT=build/answers bash recipes/small/ask.sh
# PYTHON, SECONDS_LEFT (then what is there is kept), ROUND_TRIP (a model that has to find each passage), SERVER (its
# options) and CLIENT (those of synthesize) may be given.
# With TRANSLATE=questions.jsonl.zst, of recipes/small/translate.py, SHARES (16) clients of it ask in the place of these.
# KNOWN may be a file of answers of before. RESULT gets all answers, and the questions that are kept, from time to time.
set -u
PYTHON=${PYTHON:-python3} LEFT=${SECONDS_LEFT:-100000} PORT=${PORT:-8123}
WORK=$(mktemp -d -p "$([ -d /dev/shm ] && echo /dev/shm || echo /tmp)") HERE=$(dirname "$0")
mkdir -p "$RESULT"
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 OPENAI_BASE_URL=http://127.0.0.1:$PORT/v1 OPENAI_API_KEY=none
end=$(($(date +%s) + LEFT))
OMP_NUM_THREADS=4 "$PYTHON" "$HERE/language_model.py" "$GGUF" --port "$PORT" ${SERVER:-} >"$WORK/server.log" 2>&1 &
server=$!
trap 'kill $server $(jobs -p) 2>/dev/null; rm -rf "$WORK"' EXIT
keep() {
    "$PYTHON" "$HERE/synthetic.py" keep "$WORK" --into "$RESULT" >>"$WORK/keep.log" 2>&1
    for log in "$WORK"/*.log; do tail -n 40 "$log" | sed "s|^|$(basename "$log"): |"; done >"$RESULT/logs.txt"
}
until grep -q ^serving "$WORK/server.log"; do
    kill -0 $server 2>/dev/null || { cat "$WORK/server.log"; keep; exit 1; }
    [ "$(date +%s)" -ge "$end" ] && { keep; exit 1; }
    sleep 0.5
done
options="--round-trip none"
ask() { # NAME FILES… -- OPTIONS…
    local name=$1 files=(); shift
    while [ "$1" != -- ]; do files+=("$1"); shift; done; shift
    [ -n "${KNOWN:-}" ] && [ ! -e "$WORK/answers-$name.sqlite" ] && cp "$KNOWN" "$WORK/answers-$name.sqlite"
    exec "$PYTHON" -m triptych data synthesize "${files[@]}" --out "$WORK/$name.jsonl" --model "$MODEL" \
        --answers "$WORK/answers-$name.sqlite" --prompt-style small --max-tokens 96 --set temperature=0.0 \
        --timeout 600 --concurrency 900 $options "$@" ${CLIENT:-} >"$WORK/$name.log" 2>&1
}
MODEL=${MODEL:-Qwen2.5-Coder-1.5B-Instruct}
translate() { # SHARE COUNT
    [ -n "${KNOWN:-}" ] && cp "$KNOWN" "$WORK/answers-$1.sqlite"
    exec "$PYTHON" "$HERE/translate.py" ask "$TRANSLATE" --into "$WORK/answers-$1.sqlite" --share "$1/$2" ${CLIENT:-} \
        >"$WORK/$1.log" 2>&1
}
start() {
    clients=() others=()
    if [ -n "${TRANSLATE:-}" ]; then
        for ((share = 0; share < ${SHARES:-16}; share++)); do translate $share "${SHARES:-16}" & clients+=($!); done
        return
    fi
    for file in "$INPUTS"/*.jsonl.zst; do
        name=$(basename "$file" .jsonl.zst)
        case $name in long-*) continue ;; esac
        if [ "$(stat -c %s "$file")" -lt 120000 ]; then others+=("$file"); continue; fi
        ask "$name" "$file" -- --min-document 200 --min-passage 200 --max-passage 1200 & clients+=($!)
    done
    [ ${#others[@]} -gt 0 ] && { ask others "${others[@]}" -- --min-document 200 --min-passage 200 --max-passage 1200 & clients+=($!); }
    if compgen -G "$INPUTS/long-*.jsonl.zst" >/dev/null; then
        ask long "$INPUTS"/long-*.jsonl.zst -- --per-document 5 --max-passage 1200 & clients+=($!)
    fi
}
start
while :; do
    for _ in {1..30}; do
        sleep 1
        running=0
        for client in "${clients[@]}"; do kill -0 "$client" 2>/dev/null && running=1; done
        [ $running = 0 ] || [ "$(date +%s)" -ge "$end" ] && break
    done
    keep
    [ $running = 0 ] || [ "$(date +%s)" -ge "$end" ] && break
done
kill "${clients[@]}" 2>/dev/null
wait "${clients[@]}" 2>/dev/null
keep
if [ -n "${ROUND_TRIP:-}" ]; then # a model: checks what was answered, sends nothing
    kill $server && wait $server 2>/dev/null
    options="--token-budget 1 --round-trip $ROUND_TRIP"
    start
    wait "${clients[@]}"
    keep
fi
