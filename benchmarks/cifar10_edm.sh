#!/usr/bin/env bash
# The EDM model of CIFAR-10 on all GPUs of a machine, and the distances of the bundled model and of this one.
#
#     benchmarks/cifar10_edm.sh DATA REFERENCE.npz DETECTOR OUT
#
# DATA is a set of CIFAR-10's training images, REFERENCE.npz its statistics under DETECTOR. The same command goes on
# after an interruption. GPUS, TRAIN and EVALUATE replace the number of processes and the options.
set -euo pipefail
data=$1 reference=$2 detector=$3 out=$4
gpus=${GPUS:-4}
train=${TRAIN:---minutes 16 --batch 2048 --lr 2e-3 --ema-images 1000000 --dropout 0 --compile --save-minutes 5}
evaluate=${EVALUATE:---seeds 0-19999 --batch 1000 --compile}
mkdir -p "$out"
# Each process sees one GPU, cuda:0 to it: so all compile the same code, and share what is on disk.
# shellcheck disable=SC2016
one='export CUDA_VISIBLE_DEVICES=$LOCAL_RANK LOCAL_RANK=0; exec python3 -m restart_sampling "$@"'
ranks() { python3 -m torch.distributed.run --standalone --nproc_per_node="$gpus" --no-python bash -c "$one" rank "$@"; }

# shellcheck disable=SC2086
ranks train "$data" --out "$out/edm" --parametrization edm --cond $train
for model in cifar10-small "$out/edm/model.safetensors"; do
    # shellcheck disable=SC2086
    ranks evaluate --model "$model" --plan 18 --plan 36 --plan "18 [3,2,0.06,0.30]" --plan "18 [3,2,1.09,3.2]" \
        --plan "16 [5,1,1.09,3.2] solver=ab" --plan "22 churn=8 s_min=0.5 s_max=20" \
        --reference "$reference" --detector "$detector" --trust-detector --results "$out/results.jsonl" $evaluate
done
