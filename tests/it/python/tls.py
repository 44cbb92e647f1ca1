"""TLS for the peers made of pynetdicom: PEER_TLS names three PEM files, separated by colons: authorities, certificate, private
key. Without it there is no TLS."""

import os
import ssl


def context(purpose):
    """What TLS is spoken with, or None. The other side must show a certificate in any case."""
    files = os.environ.get("PEER_TLS")
    if not files:
        return None
    authorities, certificate, key = files.split(":")
    made = ssl.create_default_context(purpose, cafile=authorities)
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_cert_chain(certificate, key)
    return made


def server():
    return context(ssl.Purpose.CLIENT_AUTH)


def client():
    made = context(ssl.Purpose.SERVER_AUTH)
    return made and (made, "localhost")
