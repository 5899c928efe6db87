#!/bin/bash
# Trains the text-to-image pipeline and the CLIP on CIFAR-10 with one GPU, and judges them:
#
#     bash benchmarks/text_to_image/train.sh CIFAR out/text 21
#
# CIFAR has the folders train and test with a folder for each class; the last argument is the minutes for all.
set -eu
cifar=$1 out=$2 minutes=${3:-21}
here=$(dirname "$0")
part() { awk "BEGIN { print $minutes * $1 }"; }

mkdir -p "$out"
# These two need little of a GPU and nothing of each other.
python3 "$here/train_clip.py" "$cifar/train" --test "$cifar/test" --out "$out" --minutes "$(part 0.19)" &
clip=$!
python3 "$here/train_autoencoder.py" "$cifar/train" --out "$out" --minutes "$(part 0.17)"
wait $clip
python3 "$here/train_diffusion.py" "$cifar/train" --out "$out" --minutes "$(part 0.64)"
python3 "$here/judge.py" "$out" --test "$cifar/test"
