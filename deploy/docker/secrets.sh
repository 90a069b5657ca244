#!/usr/bin/env bash
# Makes the credentials of the S3 server in compose.yaml, with a random key, into the folder `secrets` beside this script.
# What is there already is kept. The folder is for its owner only; the files in it are readable, for containers have users
# of their own.
set -euo pipefail
cd "$(dirname "$0")"

mkdir -p secrets
chmod 700 secrets
if [ -s secrets/aws_credentials ] && [ -s secrets/s3_identities.json ]; then
    exit 0
fi
random() { od -An -v -tx1 -N "$1" /dev/urandom | tr -d ' \n'; }
id=$(random 10) key=$(random 32)
umask 022
printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$id" "$key" >secrets/aws_credentials
printf '{"identities": [{"name": "muster", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": [%s]}]}\n' \
    "$id" "$key" '"Admin", "Read", "Write", "List", "Tagging"' >secrets/s3_identities.json
