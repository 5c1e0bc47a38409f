"""A request to an S3 server, signed (AWS Signature Version 4): s3.py METHOD /BUCKET/KEY[?QUERY] [BODY]. Prints the version that it made."""

import datetime
import hashlib
import hmac
import http.client
import os
import sys
import urllib.parse

method, target = sys.argv[1], sys.argv[2]
body = sys.argv[3].encode() if len(sys.argv) > 3 else b""
server = urllib.parse.urlsplit(os.environ["AWS_ENDPOINT_URL"])
path, _, query = target.partition("?")
query = "&".join(sorted(part if "=" in part else part + "=" for part in query.split("&") if part))
now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
scope = [now[:8], "us-east-1", "s3", "aws4_request"]
digest = hashlib.sha256(body).hexdigest()
headers = {"host": server.netloc, "x-amz-content-sha256": digest, "x-amz-date": now}
signed = ";".join(sorted(headers))
lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
request = "\n".join([method, path, query, lines, signed, digest])
text = "\n".join(["AWS4-HMAC-SHA256", now, "/".join(scope), hashlib.sha256(request.encode()).hexdigest()])
key = ("AWS4" + os.environ["AWS_SECRET_ACCESS_KEY"]).encode()
for part in scope:
    key = hmac.new(key, part.encode(), hashlib.sha256).digest()
signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
who = "/".join([os.environ["AWS_ACCESS_KEY_ID"], *scope])
headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={who}, SignedHeaders={signed}, Signature={signature}"
connection = http.client.HTTPConnection(server.hostname, server.port, timeout=30)
connection.request(method, path + ("?" + query if query else ""), body, headers)
answer = connection.getresponse()
said = answer.read()
if answer.status >= 300:
    sys.exit(f"status {answer.status}: {said[:500]!r}")
print(answer.getheader("x-amz-version-id") or "")
