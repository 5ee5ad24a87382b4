#!/usr/bin/env bash
# Everything that needs a large GPU, in one command:
#
#     benchmarks/gpu.sh                       # Qwen3-8B, recipes at 200 samples, at most 4 hours
#     MODEL=... SCALE=50 MINUTES=60 benchmarks/gpu.sh
#
# 1. tokens per second through the harness against vLLM's offline engine (vllm_efficiency.py);
# 2. prompt tokens that the prefix cache serves (prefix_cache.py);
# 3. the recipes of `personabench reproduce`, at SCALE samples each.
#
# The same command goes on where it was stopped: a finished step is not repeated, and an unfinished
# recipe resumes at its next sample.  When the minutes are over, the step in progress is interrupted
# and what is left is listed.
#
# MODEL       the model, a name or a folder              PYTHON    the interpreter with personabench
# SCALE       samples of each recipe                     RECIPES   the recipes (default: all)
# MINUTES     time for everything                        OUT       the folder of the results
# SAMPLES     prompts of the first step                  LIMIT     questions of the second
# VLLM_ARGS   arguments of the server                    MAX_TOKENS  tokens of each timed answer
# REPLY_TOKENS  cuts every reply of the second step, which only a slow server needs
set -uo pipefail
cd "$(dirname "$0")/.."

MODEL=${MODEL:-Qwen/Qwen3-8B}
SCALE=${SCALE:-200}
MINUTES=${MINUTES:-240}
SAMPLES=${SAMPLES:-4096}
LIMIT=${LIMIT:-37}
MAX_TOKENS=${MAX_TOKENS:-64}
VLLM_ARGS=${VLLM_ARGS:---max-model-len 8192}
OUT=${OUT:-results/gpu}
PYTHON=${PYTHON:-.venv/bin/python}
PERSONABENCH=${PYTHON%/*}/personabench
LIST='from personabench.run.recipe import list_recipes; print(*list_recipes())'
RECIPES=${RECIPES:-$($PYTHON -c "$LIST")}

mkdir -p "$OUT"
deadline=$((SECONDS + MINUTES * 60))
left=()
failed=()

# step NAME COMMAND...: run a command within the time that is left, once.
step() {
  local name=$1 log="$OUT/$1.txt"
  shift
  if [ -e "$OUT/$name.done" ]; then
    echo "$name: done before, see $log"
    return
  fi
  local seconds=$((deadline - SECONDS))
  if [ "$seconds" -le 0 ]; then
    left+=("$name")
    return
  fi
  echo "$name: $*"
  # An interrupt lets a run finish what is in flight; the kill is for one that does not end.
  timeout --signal=INT --kill-after=120 "$seconds" "$@" 2>"$OUT/$name.log" | tee "$log"
  local code=${PIPESTATUS[0]}
  case $code in
    0) touch "$OUT/$name.done" ;;
    124 | 130 | 137) left+=("$name") ;;
    *) failed+=("$name (exit code $code, see $OUT/$name.log)") ;;
  esac
}

{
  command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,memory.total --format=csv
  "$PERSONABENCH" doctor
} >"$OUT/machine.txt" 2>&1

step efficiency "$PYTHON" benchmarks/vllm_efficiency.py --model "$MODEL" --samples "$SAMPLES" \
  --max-tokens "$MAX_TOKENS" --vllm-args="$VLLM_ARGS"
step prefix-cache "$PYTHON" benchmarks/prefix_cache.py --model "$MODEL" --limit "$LIMIT" \
  --max-tokens "$MAX_TOKENS" ${REPLY_TOKENS:+--reply-tokens "$REPLY_TOKENS"} \
  --vllm-args="$VLLM_ARGS" --log "$OUT/server.log"
for recipe in $RECIPES; do
  step "recipe-$recipe" "$PERSONABENCH" reproduce "$recipe" --scale "$SCALE" --backend vllm \
    --model "$MODEL" --vllm-args="$VLLM_ARGS" --results "$OUT/results"
done

echo
echo "results: $OUT/*.txt"
for name in "${failed[@]}"; do echo "failed: $name"; done
for name in "${left[@]}"; do echo "left: $name; the same command goes on"; done
[ ${#failed[@]} -eq 0 ] || exit 1
[ ${#left[@]} -eq 0 ] || exit 3
