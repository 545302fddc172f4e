#!/usr/bin/env bash
# Installs the built wheel into an environment of its own and uses it as a stranger would.
#
#   scripts/check_install.sh wheel    the newest allowed versions of the dependencies
#   scripts/check_install.sh lowest   the lowest ones that pyproject.toml allows (torch stays the processor build)
#
# PYTHON: the interpreter; TORCH: what is installed first, empty for what the dependencies bring; UV: the uv program.
set -euo pipefail
kind=${1:?wheel or lowest}
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
torch=${TORCH-torch==2.13.0}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m venv "$work/env"
bin=$work/env/bin
[ -n "${UV:-}" ] || "$bin/python" -m pip install --quiet uv
uv=${UV:-$bin/uv}
"$uv" build --quiet --wheel --out-dir "$work/dist" "$root"
[ -z "$torch" ] || "$bin/python" -m pip install --quiet --retries 0 --no-compile \
    --extra-index-url https://download.pytorch.org/whl/cpu "$torch"
resolution=highest
[ "$kind" = wheel ] || resolution=lowest-direct
[ -z "$torch" ] || echo "$torch" >"$work/constraints.txt"
touch "$work/constraints.txt"
"$uv" pip install --quiet --python "$bin/python" --resolution "$resolution" --constraint "$work/constraints.txt" \
    "$work"/dist/*.whl

cd "$work"
export HF_HUB_OFFLINE=1
printf '%s\n' '{"id": "moka", "text": "A moka pot brews coffee by steam pressure."}' \
    '{"id": "volcan", "text": "Un volcan est une ouverture dans la croûte terrestre."}' >notes.jsonl
mkdir notes && printf '# Tea\n\n<p>Tea is steeped.</p>\n' >notes/tea.md
"$bin/triptych" --help >/dev/null
"$bin/triptych" encode notes.jsonl --into vectors
"$bin/triptych" index notes.jsonl notes --into my.index
"$bin/triptych" search my.index what is a volcano --json -k 1 >hits.jsonl
grep -q '"volcan"' hits.jsonl
# What needs an extra says which.
! "$bin/triptych" train --recipe laptop-unified --data notes.jsonl 2>errors.txt
grep -q "pip install 'triptych\[train\]'" errors.txt
"$bin/python" - <<'END'
from importlib.metadata import metadata
from importlib.resources import files
from importlib.util import find_spec

from triptych import Encoder

encoded = Encoder.from_pretrained("small").encode(["one text", "another"])
assert encoded.dense.shape == (2, 384) and len(encoded.multi) == 2 and encoded.lexical.shape[0] == 2
assert find_spec("pyarrow") is None
for name in ("recipes/laptop-unified.yaml", "examples/finetune.jsonl", "demo/qa-small/train.jsonl.zst"):
    assert files("triptych").joinpath(name).is_file(), name
assert {"Apache-2.0", "MPL-2.0", "MIT"} <= set(metadata("triptych")["License-Expression"].split(" AND "))
END
echo "1 passed, 0 failed"
