"""Ends with 0 if the server in this container takes requests, for the image's HEALTHCHECK and for compose.

It finds the server by the variables that the server reads. A server whose port or TLS is set by flags, or that asks for
clients' certificates, needs another check.
"""

import http.client
import os
import ssl
import sys

port = int(os.environ.get("MEDREWARD_PORT", "8000"))
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
if "MEDREWARD_TLS_CERT" in os.environ:
    trust = ssl.create_default_context()
    trust.check_hostname = False  # the certificate names the service, and this is the container's own loopback
    trust.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=4, context=trust)
try:
    connection.request("GET", "/readyz")
    sys.exit(connection.getresponse().status != 200)
except OSError as error:
    sys.exit(f"no server on port {port}: {error}")
