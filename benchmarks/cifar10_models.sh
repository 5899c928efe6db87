#!/usr/bin/env bash
# The VP and PFGM++ models of CIFAR-10, trained side by side on two GPUs, in 8 bits, and what Restart does for each:
# 28 minutes on two H100.
#
#     benchmarks/cifar10_models.sh DATA REFERENCE.npz DETECTOR OUT
#
# DATA is a set of CIFAR-10's training images, REFERENCE.npz its statistics under DETECTOR. The same command goes on
# after an interruption. TRAIN, EVALUATE, SWEEP and PLANS replace the options and the plans, to try it on something
# small.
set -euo pipefail
data=$1 reference=$2 detector=$3 out=$4
train=${TRAIN:---minutes 20 --batch 2048 --lr 2e-3 --ema-images 1000000 --dropout 0 --compile --save-minutes 3}
evaluate=${EVALUATE:---seeds 0-19999 --batch 1000 --compile}
sweep=${SWEEP:---images 10000 --batch 1000 --compile}
plans=${PLANS:-$(dirname "$0")/plans/restarts.txt}
mkdir -p "$out"

one() { # GPU NAME OPTIONS OF THE PARAMETRIZATION
    export CUDA_VISIBLE_DEVICES=$1
    local model=$out/$2/model.safetensors small=$out/cifar10-$2-small.safetensors
    local measure=(--reference "$reference" --detector "$detector" --trust-detector)
    # shellcheck disable=SC2086
    python3 -m restart_sampling train "$data" --out "$out/$2" "${@:3}" $train
    python3 -m restart_sampling model convert "$model" "$small" --int8 --force
    for each in "cifar10-$2-small" "$model" "$small"; do
        # shellcheck disable=SC2086
        python3 -m restart_sampling evaluate --model "$each" --plan 18 "${measure[@]}" --results "$out/$2.jsonl" $evaluate
    done
    # shellcheck disable=SC2086
    python3 -m restart_sampling sweep --model "$model" --plans "$plans" "${measure[@]}" --out "$out/$2-restarts" $sweep
}

one 0 vp --parametrization vp >"$out/vp.log" 2>&1 &
one 1 pfgmpp --parametrization pfgmpp --D 2048 >"$out/pfgmpp.log" 2>&1 &
status=0
for job in $(jobs -p); do wait "$job" || status=1; done
tail -n 20 "$out"/*.log
exit $status
