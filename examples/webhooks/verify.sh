#!/bin/sh
# Verifies a webhook of patgate that was kept in a file, by hand:
#
#     WEBHOOK_SECRET=whsec_... sh verify.sh ID TIMESTAMP SIGNATURES < BODY
#
# with the values of webhook-id, webhook-timestamp and webhook-signature. Whether it is a recent one is for you to say; and
# other users of the machine see the arguments of openssl: receive.py is the one to run.
key=$(printf %s "${WEBHOOK_SECRET#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
wanted="v1,$({ printf '%s.%s.' "$1" "$2"; cat; } | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A)"
for given in $3; do
    [ "$given" = "$wanted" ] && echo "the signature is right" && exit 0
done
echo "the signature is wrong" >&2
exit 1
