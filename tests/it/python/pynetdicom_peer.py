"""A peer made of pynetdicom: one C-ECHO, or one C-STORE per file, in the files' own transfer syntaxes.

    pynetdicom_peer.py echo PORT
    pynetdicom_peer.py store PORT FILE...

With TLS when PEER_TLS is set, see tls.py.

Prints the status of each response in hex, one per line. Ends with 1 when one of them is not Success.
"""

import sys

import steady
import tls
from pydicom import dcmread
from pynetdicom import AE

CALLED = "PACSGATEWAY"


def associate(contexts, port):
    entity = AE(ae_title="PYNETDICOM")
    for abstract_syntax, transfer_syntaxes in contexts.items():
        entity.add_requested_context(abstract_syntax, sorted(transfer_syntaxes))
    association = entity.associate("127.0.0.1", port, ae_title=CALLED, tls_args=tls.client())
    if not association.is_established:
        sys.exit("no association")
    return association


def main():
    verb, port, files = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    if verb == "echo":
        association = associate({"1.2.840.10008.1.1": ["1.2.840.10008.1.2"]}, port)
        statuses = [association.send_c_echo()]
    else:
        # A context has one accepted transfer syntax, so each file gets an association that offers its own only.
        statuses = []
        for file in files:
            data_set = dcmread(file)
            association = associate({data_set.SOPClassUID: {data_set.file_meta.TransferSyntaxUID}}, port)
            statuses.append(association.send_c_store(data_set))
            association.release()
    if association.is_established:
        association.release()
    for status in statuses:
        print(f"{status.Status:04X}" if "Status" in status else "none")
    sys.exit(0 if all("Status" in status and status.Status == 0 for status in statuses) else 1)


steady.install()
main()
