"""
nginx as a pass-through to the OpenAI stand-in: the cheapest thing a stream can be sent through.

Decides its configuration: one worker, nothing buffered, nothing logged, connections kept. It is not installed by the
project; where it is absent its column is.
"""

import os
import shutil
from pathlib import Path

_ALSO_LOOKED_IN = "/usr/sbin:/usr/local/sbin:/usr/local/bin"  # Debian keeps it off an ordinary user's PATH
_CONFIGURATION = """\
{user}worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    upstream standin {{
        server 127.0.0.1:{upstream};
        keepalive 256;
        keepalive_requests 1000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://standin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


def find() -> Path | None:
    """The nginx of this machine, or None."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:{_ALSO_LOOKED_IN}")
    return Path(found) if found else None


def command(binary: Path, folder: Path, *, port: int, upstream: int) -> list[str]:
    """Write a configuration into `folder` and give what starts nginx with it."""
    folder.mkdir(exist_ok=True)
    # As root its worker would become another user, who cannot enter the run's folder.
    user = "user root;\n" if os.geteuid() == 0 else ""
    configuration = folder / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(user=user, folder=folder, port=port, upstream=upstream))
    return [str(binary), "-e", "stderr", "-p", str(folder), "-c", str(configuration)]
