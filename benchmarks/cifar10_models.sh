#!/usr/bin/env bash
# The VP and PFGM++ models of CIFAR-10, trained side by side on two GPUs, and what Restart does for each: 20 minutes
# on two H100.
#
#     benchmarks/cifar10_models.sh DATA REFERENCE.npz DETECTOR OUT
#
# DATA is a set of CIFAR-10's training images, REFERENCE.npz its statistics under DETECTOR. The same command goes on
# after an interruption. TRAIN, SWEEP and PLANS replace the options and the plans, to try it on something small.
set -euo pipefail
data=$1 reference=$2 detector=$3 out=$4
train=${TRAIN:---images 6000000 --compile}
sweep=${SWEEP:---images 10000 --blocks 2 --batch 1000 --compile}
plans=${PLANS:-$(dirname "$0")/plans/restarts.txt}
mkdir -p "$out"

one() { # GPU NAME OPTIONS OF THE PARAMETRIZATION
    export CUDA_VISIBLE_DEVICES=$1
    # shellcheck disable=SC2086
    python3 -m restart_sampling train "$data" --out "$out/$2" "${@:3}" $train
    # shellcheck disable=SC2086
    python3 -m restart_sampling sweep --model "$out/$2/model.safetensors" --plans "$plans" \
        --reference "$reference" --detector "$detector" --trust-detector --out "$out/$2-restarts" $sweep
}

one 0 vp --parametrization vp >"$out/vp.log" 2>&1 &
one 1 pfgmpp --parametrization pfgmpp --D 2048 >"$out/pfgmpp.log" 2>&1 &
status=0
for job in $(jobs -p); do wait "$job" || status=1; done
tail -n 20 "$out"/*.log
exit $status
