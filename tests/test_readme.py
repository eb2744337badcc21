"""The provider that the README shows runs pods, with kubectl and all."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from wasmlet.kube import Client, load_identity
from wasmlet.testing import ControlPlane

README = Path(__file__).parents[1] / "README.md"


async def test_the_provider_of_the_readme(control_plane: ControlPlane, kubectl: Path, tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert code
    body = code[1].replace(
        "wasmlet.run(Processes())",
        "import os; from pathlib import Path\n"
        "    wasmlet.run(Processes(), wasmlet.NodeConfig(node_name='n1', node_ip='127.0.0.1', port=0,\n"
        "        state_dir=Path(os.environ['STATE'])))",
    )
    assert len(code[1].strip().splitlines()) < 50
    program = tmp_path / "processes.py"
    program.write_text(body)
    environment = os.environ | {
        "KUBECONFIG": str(control_plane.kubeconfig),
        "STATE": str(tmp_path / "state"),
    }
    node = await asyncio.create_subprocess_exec(sys.executable, program, env=environment)
    try:
        async with Client(await load_identity(control_plane.kubeconfig)) as admin:
            async with asyncio.timeout(20):
                async with admin.stream("/api/v1/nodes", {"watch": "1"}) as content:
                    while b'"Ready"' not in await content.readline():
                        pass

        async def kube(*arguments: str) -> str:
            process = await asyncio.create_subprocess_exec(
                kubectl, *arguments, env=environment, stdout=asyncio.subprocess.PIPE
            )
            out, _ = await process.communicate()
            assert process.returncode == 0, arguments
            return out.decode()

        overrides = '{"spec":{"nodeName":"n1","tolerations":[{"operator":"Exists"}]}}'
        for name, command in (("good", ("true",)), ("bad", ("false",)), ("long", ("sleep", "1000"))):
            await kube(
                "run", name, "--image=none", "--restart=Never", "--command", f"--overrides={overrides}", "--", *command
            )
        await kube("wait", "pod/good", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=20s")
        await kube("wait", "pod/bad", "--for=jsonpath={.status.phase}=Failed", "--timeout=20s")
        await kube("wait", "pod/long", "--for=condition=Ready", "--timeout=20s")
        await kube("delete", "pod", "--all", "--timeout=20s")
        assert await kube("get", "pods", "-o", "name") == ""
    finally:
        node.terminate()
        await asyncio.wait_for(node.wait(), 10)
    assert node.returncode == 0
