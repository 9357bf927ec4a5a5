#!/bin/sh
# Prints a table of docs/robustness.md: `fedveil demo` with its default rule under every attack, in percent. The median
# accuracy over the seeds, in brackets the worst, and the median share of a backdoor's examples that succeed.
#
# usage: attack-table.sh FEDVEIL [SEED]...
set -eu
program=$1
shift
seeds=${*:-1 2 3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# The numbers of a key in the summaries of all seeds, in percent and sorted.
numbers() {
    sed -n "s/.*\"$1\": \([0-9.e-]*\).*/\1/p" "$folder/summaries" | awk '{ printf "%.1f\n", 100 * $1 }' | sort -n
}

median() {
    awk '{ value[NR] = $1 } END { if (NR) print value[int((NR + 1) / 2)]; else print "-" }'
}

# row NAME OPTION...
row() {
    name=$1
    shift
    : >"$folder/summaries"
    for seed in $seeds; do
        "$program" demo "$@" --seed "$seed" --json --out "$folder/run" >>"$folder/summaries"
        rm -r "$folder/run"
    done
    accuracy="$(numbers test_accuracy | median) ($(numbers test_accuracy | head -n 1))"
    echo "| $name | $accuracy | $(numbers attack_success | median) |"
}

echo "| attack | accuracy | backdoor |"
echo "|---|---|---|"
row "none" --byzantine 0 --attack backdoor
row "none; examples of edge-case" --byzantine 0 --attack edge-case
for attack in $("$program" robust attacks | sed -n 's/^\([a-z][a-z-]*\): .*/\1/p'); do
    row "$attack" --attack "$attack"
done
