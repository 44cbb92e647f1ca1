"""The library of Helm 4, called through its C functions. Helm 4's own `template` is not among them, but `install` is:
it renders, and says what it rendered once the API server of apiserver.py has taken all of it."""

import ctypes
import json
import os
import tempfile

from apiserver import Server


class Refused(Exception):
    """Helm refused the chart or its values; the text is its own."""


class Helm4:
    def __init__(self, library, version, home):
        # Releases are kept in memory, and nothing of this user's Helm is read.
        os.environ |= {"HELM_DRIVER": "memory"}
        os.environ |= {f"HELM_{part}_HOME": os.path.join(home, part) for part in ("CACHE", "CONFIG", "DATA")}
        self.library = ctypes.CDLL(library)
        self.library.helm_sdkpy_last_error.restype = ctypes.c_char_p
        self.server = Server(version)
        self.home = home
        self.releases = 0

    def _call(self, name, *arguments):
        """Calls a function whose last argument is where its answer goes."""
        self.releases += 1
        handle = ctypes.c_ulonglong()
        config = os.path.join(self.home, "kubeconfig")
        with open(config, "w") as file:
            file.write(self.server.kubeconfig())
        # A handle of its own for each call: releases of one do not meet those of another.
        if self.library.helm_sdkpy_config_create(b"imaging", config.encode(), None, b"{}", ctypes.byref(handle)):
            raise Refused(self.library.helm_sdkpy_last_error().decode())
        answer = ctypes.c_char_p()
        arguments = [text.encode() for text in arguments]
        failed = getattr(self.library, name)(handle, *arguments, ctypes.byref(answer))
        if failed:
            raise Refused(self.library.helm_sdkpy_last_error().decode())
        return json.loads(answer.value)

    def install(self, chart, values):
        """The rendered manifests and hooks as text, and the notes."""
        options = {"wait": False, "timeout_seconds": 60, "server_side_apply": "false", "disable_openapi_validation": True}
        release = self._call("helm_sdkpy_install", "gw", chart, json.dumps(values), "", json.dumps(options))
        hooks = [hook["manifest"] for hook in release.get("hooks") or []]
        return "\n---\n".join([release["manifest"], *hooks]), release["info"]["notes"]

    def lint(self, chart):
        """What `lint` says of a chart with its own values: a list of (severity, text); 1 info, 2 warning, 3 error."""
        result = self._call("helm_sdkpy_lint", chart)
        return result
