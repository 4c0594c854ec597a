"""Git ignores each key and environment that a reader creates in the checkout."""

from __future__ import annotations

import re
import subprocess

from support.docs_pages import blocks, pages
from support.programs import CHECKOUT

CREATED = re.compile(
    r"arke keygen (\S+)|-m venv ([^/\s]\S*)|-keyout (\S+)|-out (\S+)|> (\S+\.key)\b"
)


def test_created_secrets_and_environments_are_ignored() -> None:
    shell = "\n".join(
        block.text for page in pages() for block in blocks(page) if block.language == "shell"
    )
    created = {name for groups in CREATED.findall(shell) for name in groups if name}
    assert {"id_rsa", "new_rsa", "arke-env", "key.pem", "sticky.key"} <= created
    for name in created:
        path = f"{name}/" if name == "arke-env" else name
        command = ["git", "check-ignore", "-q", path]
        assert subprocess.run(command, cwd=CHECKOUT, check=False).returncode == 0, path
