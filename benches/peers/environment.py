"""The virtual environment that the other scripts of this folder run in (target/peers), made by the first of them."""

import os
import pathlib
import subprocess
import sys
import venv

ROOT = pathlib.Path(__file__).resolve().parents[2]
RELEASE = ROOT / "target" / "release"
FOLDER = ROOT / "target" / "peers"
REQUIREMENTS = pathlib.Path(__file__).with_name("requirements.txt")


def enter():
    """Runs the calling script again inside the environment, which is made or brought up to date before."""
    if pathlib.Path(sys.prefix) == FOLDER:
        return
    python, installed = FOLDER / "bin" / "python", FOLDER / "installed"
    if not installed.exists() or installed.read_text() != REQUIREMENTS.read_text():
        venv.create(FOLDER, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", REQUIREMENTS]
        subprocess.run(install, check=True)
        installed.write_text(REQUIREMENTS.read_text())
    os.execv(python, [str(python), *sys.argv])
