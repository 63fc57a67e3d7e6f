#!/bin/sh
# Prints the path of the one Python that every environment and build of this project uses: the first
# of 3.13, 3.12 and 3.11 that runs and can make virtual environments.
#
# A pyenv shim is on PATH for versions that are not selected and fails when it is run, so each
# candidate is asked for the executable behind it, and pyenv's own folder is searched too.
check='import os, sys, ensurepip, venv
assert sys.version_info >= (3, 11)
print(os.path.realpath(sys.executable))'

for version in 3.13 3.12 3.11; do
    for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version"*/bin/"python$version"; do
        "$candidate" -c "$check" 2>/dev/null && exit 0
    done
done
python3 -c "$check" 2>/dev/null && exit 0
echo "Python 3.11 or newer (with venv and ensurepip) was not found." >&2
exit 1
