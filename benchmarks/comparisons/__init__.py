"""What the product's functions are compared with, and how it is built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.bundles import WORK
from tools import bundle
from tools.template import ROOT

FOLDER = Path(__file__).parent
SAM = ROOT / ".tools" / "sam" / "bin" / "sam"

_CALLED = ("dynamodb", "secretsmanager")
_TEMPLATE = """\
Transform: AWS::Serverless-2016-10-31
Resources:
  Usual:
    Type: AWS::Serverless::Function
    Properties: {{ CodeUri: code, Handler: app.handler, Runtime: python{version} }}
"""


def build_by_bundle(name: str, requirements: str, target: Path) -> None:
    """Build a comparison as tools/bundle.py builds the product's functions.

    Parameters
    ----------
    name : str
        Its folder.
    requirements : str
        The requirements file that has its packages.
    target : Path
        The folder to fill.
    """
    packages = [ROOT / "requirements" / f"{requirements}.txt"]
    dependencies = bundle.dependencies(packages, _CALLED, bundle.UNUSED)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(dependencies, target, copy_function=bundle.link_or_copy)
    app = target / "app.py"
    shutil.copyfile(FOLDER / name / "app.py", app)
    bundle.compile_tree(app, target)


def build_by_sam(name: str, requirements: str, target: Path) -> None:
    """Build a comparison as ``sam build`` does it without further settings.

    Raises
    ------
    subprocess.CalledProcessError
        It can't be built.
    """
    project = WORK / f"sam-{name}"
    shutil.rmtree(project, ignore_errors=True)
    (project / "code").mkdir(parents=True)
    shutil.copyfile(FOLDER / name / "app.py", project / "code" / "app.py")
    lines = (ROOT / "requirements" / f"{requirements}.txt").read_text()
    (project / "code" / "requirements.txt").write_text(lines)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    (project / "template.yaml").write_text(_TEMPLATE.format(version=version))
    path = os.pathsep.join([f"{sys.base_prefix}/bin", os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "SAM_CLI_TELEMETRY": "0"}
    environment.pop("PYTHONPATH", None)  # pip takes what is on it for installed
    subprocess.run(
        [SAM, "build"],
        cwd=project,
        env=environment,
        check=True,
        capture_output=True,
    )
    shutil.rmtree(target, ignore_errors=True)
    (project / ".aws-sam" / "build" / "Usual").rename(target)
