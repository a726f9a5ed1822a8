#!/usr/bin/env bash
# Installs what tests/targets runs code for other machines with, as far as it can be had: qemu-user and Wine, Zig, and
# in build/arm64 a Python for 64-bit ARM with numpy. For Debian, as root. Tests of what is missing are skipped.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
folder=$PWD/build/arm64

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    command -v qemu-aarch64 >/dev/null && command -v wine >/dev/null || {
        apt-get update -q
        apt-get install -q -y --no-install-recommends qemu-user wine wine64
    }
fi
"$python" -c 'import ziglang' 2>/dev/null || "$python" -m pip install --quiet ziglang

arm64_python() {
    local lists state packages version
    lists=$folder/apt
    mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial"
    : >"$lists/status"
    # A package index of its own: the system's stays as it is.
    state=(-o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o "Dir::State::lists=$lists/lists"
        -o "Dir::Cache=$lists/cache" -o "Dir::State::status=$lists/status")
    apt-get -q "${state[@]}" update || return
    version=$(apt-cache "${state[@]}" depends python3-minimal | grep -o 'python3\.[0-9]*' | head -n 1)
    packages=("$version-minimal" "lib$version-minimal" "lib$version-stdlib" libc6 libgcc-s1 libstdc++6 zlib1g
        libexpat1 libffi8 libbz2-1.0 liblzma5)
    (cd "$lists/cache" && apt-get -q "${state[@]}" download "${packages[@]}") || return
    for package in "$lists"/cache/*.deb; do
        dpkg -x "$package" "$folder" || return
    done
    "$python" -m pip install --quiet --target "$folder/packages" --only-binary=:all: numpy \
        --python-version "${version#python}" --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 || return
    rm -r "$lists"
}

[ -d "$folder/packages/numpy" ] || arm64_python || rm -rf "$folder"
exit 0
