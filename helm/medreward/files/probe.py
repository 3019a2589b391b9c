"""Asks a path of the server in this pod and shows a client certificate, which the kubelet cannot.

python probe.py URL FOLDER, where the folder has tls.crt and tls.key. It fails unless the answer is a success.
"""

import ssl
import sys
import urllib.request

url, folder = sys.argv[1:]
context = ssl.create_default_context()
context.check_hostname = False  # the certificate names the Services, and this is the pod's own loopback
context.verify_mode = ssl.CERT_NONE
context.load_cert_chain(f"{folder}/tls.crt", f"{folder}/tls.key")
urllib.request.urlopen(url, context=context, timeout=5).close()  # noqa: S310  # the chart writes the URL
