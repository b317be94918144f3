#!/bin/sh
# Installs one built file into an empty environment, and uses what must travel in it: templates, pages, every module, the console script.
set -eu
made=$(realpath "$1")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip -qq --disable-pip-version-check install "$made"
cd "$folder"
"$folder/venv/bin/posttrain" init mine > /dev/null
cd mine
"$folder/venv/bin/posttrain" data check task.py --split test
"$folder/venv/bin/posttrain" train base.yaml --demonstrations 64 --steps 2 --batch 8
"$folder/venv/bin/posttrain" eval suite.yaml --model runs/base/model --out runs/base/eval/suite --limit 4
"$folder/venv/bin/posttrain" report runs/base > /dev/null
test -s runs/base/report.html
echo "$(basename "$made"): installs, trains, evaluates and reports"
